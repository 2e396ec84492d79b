// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hostile and faulty clients of the control socket: the machine goes on, other clients are served, and coracle's memory stays
//! bounded.

use crate::life_cycle::{status, waiting};
use coracle_tests::{Case, Running, TestDir, case};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, control_socket_rejects_garbage_and_oversized_requests),
        case!(Full, control_socket_survives_a_thousand_connections),
        case!(Full, control_socket_drops_clients_that_never_read),
        case!(Full, curl_reads_the_status_and_stops_the_machine),
    ]
}

fn socket(dir: &TestDir) -> PathBuf {
    dir.run_directory().join("target/control.sock")
}

fn connect(dir: &TestDir) -> UnixStream {
    let stream = UnixStream::connect(socket(dir)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has timeouts");
    stream
}

/// The response to `bytes`, up to the end of the connection.
fn answer(dir: &TestDir, bytes: &[u8]) -> String {
    let mut stream = connect(dir);
    // A rejection may close the connection before everything is sent.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Resident memory of a process in KiB, without guest memory.
pub(crate) fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("there is such a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The workload still answers.
fn assert_alive(dir: &TestDir, run: &mut Running, word: &str) {
    run.send(format!("{word}\n"));
    run.wait_for_stdout(&format!("got {word}\n"));
    assert_eq!(status(dir, "target")["state"], "running");
}

fn target(dir: &TestDir) -> Running {
    let script = "echo up; while read word; do echo got $word; done";
    let arguments = ["-i", "--name", "target", &coracle_tests::image("busybox"), "sh", "-c", script];
    let mut run = dir.invocation(&arguments).stdin(coracle_tests::Stdin::Pipe).start();
    run.wait_for_stdout("up\n");
    run
}

fn end(mut run: Running) {
    run.close_stdin();
    run.finish().assert_status(0);
}

fn control_socket_rejects_garbage_and_oversized_requests() {
    let dir = TestDir::new().keeping_machines();
    let mut run = target(&dir);
    let mut garbage = vec![0_u8; 64 << 10];
    (0_u32..).zip(&mut garbage).for_each(|(index, byte)| *byte = (index.wrapping_mul(2_654_435_761) >> 13) as u8);
    let too_long = [b"GET / HTTP/1.1\r\nX: ", &vec![b'x'; 10 << 20][..]].concat();
    let too_much = [&b"POST /v1/stop HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n"[..], &vec![b'x'; 10 << 20]].concat();
    let requests = [
        (&garbage[..], "400"),
        (b"\r\n\r\n\r\n", "408"),
        (&too_long, "431"),
        (&too_much, "413"),
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\n", "408"),
        (b"POST /v1/stop HTTP/1.1\r\nContent-Length: 10\r\n\r\n{\"timeo", "408"),
        (b"DELETE /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n", "405"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n", "404"),
        (b"POST /v1/stop HTTP/1.1\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnull", "400"),
    ];
    // All at once, because some are rejected by a timeout.
    std::thread::scope(|scope| {
        for (bytes, status) in requests {
            let dir = &dir;
            scope.spawn(move || {
                let answer = answer(dir, bytes);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
                assert!(answer.contains("{\"message\":\""), "{answer}");
            });
        }
    });
    assert_eq!(answer(&dir, b""), "", "a client that sends nothing gets no response");
    assert_alive(&dir, &mut run, "on");
    end(run);
}

fn control_socket_survives_a_thousand_connections() {
    let dir = TestDir::new().keeping_machines();
    let mut run = target(&dir);
    let before = own_memory(run.pid());
    let mut refused = 0;
    let mut held = Vec::new();
    for _ in 0..1000 {
        let mut stream = connect(&dir);
        let _ = stream.write_all(b"GET /v1/events HTTP/1.1\r\n");
        stream.set_nonblocking(true).expect("a socket can");
        held.push(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while refused < 1000 - 32 && Instant::now() < deadline {
        held.retain_mut(|stream| {
            let mut bytes = [0; 512];
            let is_refused =
                matches!(stream.read(&mut bytes), Ok(length) if bytes[..length].starts_with(b"HTTP/1.1 503"));
            refused += usize::from(is_refused);
            !is_refused
        });
    }
    assert_eq!((refused, held.len()), (1000 - 32, 32), "32 clients are served, the others are rejected");
    run.send("during\n");
    run.wait_for_stdout("got during\n");
    let during = own_memory(run.pid());
    assert!(during < before + 16 * 1024, "{before} KiB before, {during} KiB with the clients");
    drop(held);
    assert_alive(&dir, &mut run, "after");
    end(run);
}

fn control_socket_drops_clients_that_never_read() {
    let dir = TestDir::new().keeping_machines();
    let mut run = target(&dir);
    let before = own_memory(run.pid());
    let request = b"GET /v1/status HTTP/1.1\r\n\r\n";
    // Responses are not read: as many requests as the connection takes, from as many clients as are allowed.
    let clients: Vec<UnixStream> = (0..31).map(|_| connect(&dir)).collect();
    for client in &clients {
        client.set_nonblocking(true).expect("a socket can");
    }
    for _ in 0..2000 {
        for mut client in &clients {
            let _ = client.write(request);
        }
    }
    assert_alive(&dir, &mut run, "during");
    let during = own_memory(run.pid());
    assert!(during < before + 24 * 1024, "{before} KiB before, {during} KiB with the clients");
    drop(clients);
    assert_alive(&dir, &mut run, "after");
    end(run);
}

fn curl_reads_the_status_and_stops_the_machine() {
    let dir = TestDir::new().keeping_machines();
    let run = waiting(&dir, "target", "trap 'exit 0' TERM");
    let curl = |arguments: &[&str]| {
        let output = std::process::Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"])
            .arg(socket(&dir))
            .args(arguments)
            .output()
            .expect("curl is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(curl(&["http://x/v1/status"]).contains(r#""state":"running""#));
    let stop =
        curl(&["-X", "POST", "-H", "Content-Type: application/json", "-d", r#"{"timeout":5}"#, "http://x/v1/stop"]);
    assert!(stop.contains(r#""state":"stopping""#), "{stop}");
    run.finish().assert_status(0).assert_reason("stopped");
}
