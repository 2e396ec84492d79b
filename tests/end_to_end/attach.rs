// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle attach`: the streams, the terminal and the signals of a detached workload, for several clients at once.

use crate::life_cycle::{status, waiting};
use coracle_tests::{Case, Finished, Pty, Running, Stdin, TestDir, case, frames, image};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, attach_shows_output_and_shares_the_open_input),
        case!(Full, attach_gets_all_output_before_the_status),
        case!(Full, attach_forwards_signals_unless_told_not_to),
        case!(Full, attach_detaches_by_keys_and_attaches_again),
        case!(Full, attach_accepts_a_paused_machine_and_names_others),
        case!(Full, attach_drops_a_client_that_does_not_read),
        case!(Full, attach_serves_twenty_and_survives_a_killed_client),
        case!(Full, attach_survives_garbage_and_clients_that_never_read),
    ]
}

/// Answers each word until `end`.
const ECHO: &str =
    "echo up; while read -r word; do [ \"$word\" = end ] && exit 7; echo got $word; echo not $word >&2; done";

fn detached(dir: &TestDir, arguments: &[&str]) {
    dir.verb("run", &[&["-d", "--name", "m"], arguments].concat()).finish().assert_status(0).assert_stdout("m\n");
}

fn verb(dir: &TestDir, verb: &'static str, arguments: &[&str]) -> Finished {
    dir.verb(verb, arguments).finish()
}

/// `attach` with a pipe as its input.
fn attached(dir: &TestDir, arguments: &[&str]) -> Running {
    dir.verb("attach", arguments).stdin(Stdin::Pipe).start()
}

/// Waits until `text` is in the machine's output since its start.
fn wait_for_log(dir: &TestDir, text: &str) {
    dir.verb("logs", &["-f", "m"]).start().wait_for_stdout(text);
}

/// `attach` on the terminal, as the foreground job of a shell.
fn attached_on(pty: &Pty, dir: &TestDir, arguments: &[&str]) -> Running {
    let invocation = dir.verb("attach", arguments).wrapped(&["setsid", "--ctty"]).stdin(Stdin::File(pty.terminal()));
    invocation.stdout(pty.terminal()).stderr(pty.terminal()).start()
}

/// A connection to the control socket, upgraded to `attach`.
fn upgraded(dir: &TestDir) -> UnixStream {
    let mut stream = UnixStream::connect(dir.run_directory().join("m/control.sock")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has timeouts");
    stream.write_all(b"POST /v1/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").expect("it is read");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("it answers");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

fn attach_shows_output_and_shares_the_open_input() {
    let dir = TestDir::new().keeping_machines();
    detached(&dir, &["-i", &image("busybox"), "sh", "-c", ECHO]);
    wait_for_log(&dir, "up\n");
    assert_eq!(status(&dir, "m")["interactive"], true);
    // A client whose input was answered is attached. The end of its input does not end its output.
    let mut watching = attached(&dir, &["m"]);
    watching.send("zero\n");
    watching.wait_for_stdout("got zero\n");
    watching.wait_for_stderr("not zero\n");
    watching.close_stdin();
    let mut typing = attached(&dir, &["m"]);
    typing.send("one\n");
    typing.wait_for_stdout("got one\n");
    typing.wait_for_stderr("not one\n");
    typing.close_stdin();
    watching.wait_for_stdout("got one\n");
    let mut next = attached(&dir, &["m"]);
    next.send("two\n");
    next.wait_for_stdout("got two\n");
    next.send("end\n");
    next.finish().assert_status(7).assert_stdout("got two\n").assert_stderr("not two\n");
    typing.finish().assert_status(7).assert_stdout("got one\ngot two\n").assert_stderr("not one\nnot two\n");
    watching.finish().assert_status(7).assert_stdout("got zero\ngot one\ngot two\n");
    verb(&dir, "logs", &["m"]).assert_stdout("up\ngot zero\ngot one\ngot two\n");
}

fn attach_gets_all_output_before_the_status() {
    let dir = TestDir::new().keeping_machines();
    detached(&dir, &["-i", &image("busybox"), "sh", "-c", "echo up; read -r word; seq 1 50000; exit 3"]);
    let mut run = attached(&dir, &["m"]);
    run.send("go\n");
    let numbers: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    let run = run.finish();
    run.assert_status(3);
    assert!(run.stdout_text().ends_with(&numbers), "{} bytes of {}", run.stdout.len(), numbers.len());
}

fn attach_forwards_signals_unless_told_not_to() {
    let dir = TestDir::new().keeping_machines();
    let script =
        "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; while :; do read -r word && echo got $word; done";
    detached(&dir, &["-i", &image("busybox"), "sh", "-c", script]);
    let [mut proxy, mut alone] = ["--sig-proxy", "--sig-proxy=false"].map(|option| attached(&dir, &[option, "m"]));
    // A client whose input was answered is attached and handles signals.
    for (run, word) in [(&mut proxy, "one\n"), (&mut alone, "two\n")] {
        run.send(word);
        run.wait_for_stdout(&format!("got {word}"));
    }
    proxy.signal(Signal::USR1);
    proxy.wait_for_stdout("usr1\n");
    alone.signal(Signal::INT);
    alone.finish().assert_status(130).assert_stderr("");
    assert_eq!(status(&dir, "m")["state"], "running");
    proxy.signal(Signal::TERM);
    proxy.finish().assert_status(5).assert_stdout("got one\ngot two\nusr1\nterm\n");
}

fn attach_detaches_by_keys_and_attaches_again() {
    let dir = TestDir::new().keeping_machines();
    detached(&dir, &["-it", &image("busybox"), "sh"]);
    attached(&dir, &["m"]).finish().assert_status(125).assert_one_line_naming(&["m", "terminal"]);
    let mut pty = Pty::open(50, 132);
    let before = pty.modes();
    let first = attached_on(&pty, &dir, &["m"]);
    pty.type_text("stty size\r");
    pty.wait_for("50 132");
    pty.resize(40, 100);
    pty.type_text("until stty size | grep '40 100'; do :; done\r");
    pty.wait_for("\n40 100");
    pty.type_text("echo left\x10");
    pty.type_text("\x11");
    first.finish().assert_status(0);
    pty.wait_for("m: detached");
    assert_eq!(pty.modes(), before, "the terminal's modes afterwards");
    assert_eq!(status(&dir, "m")["state"], "running");

    let mut other = Pty::open(30, 90);
    let second = attached_on(&other, &dir, &["--detach-keys", "ctrl-a", "m"]);
    // The unfinished line of the first terminal is still there. Its detach keys have no meaning on the second.
    other.type_text("-behind\r");
    other.wait_for("left-behind");
    other.type_text("stty size\r");
    other.wait_for("30 90");
    other.type_text("\x01");
    second.finish().assert_status(0);

    // A client without input has no raw terminal, and its signals are not forwarded.
    let watching = attached_on(&other, &dir, &["--no-stdin", "m"]);
    let mut last = Pty::open(24, 80);
    let third = attached_on(&last, &dir, &["m"]);
    // The client may attach after a text that is printed once.
    last.type_text("until read -t 1 line; do echo t'wo'; done; echo three; exit 9\r");
    other.wait_for("two");
    last.type_text("\r");
    third.finish().assert_status(9);
    other.wait_for("three");
    watching.finish().assert_status(9);
}

fn attach_accepts_a_paused_machine_and_names_others() {
    let dir = TestDir::new().keeping_machines();
    verb(&dir, "attach", &["missing"]).assert_status(125).assert_one_line_naming(&["missing"]);
    verb(&dir, "attach", &["--detach-keys", "ctrl-1", "m"]).assert_status(125).assert_one_line_naming(&["ctrl-1"]);
    let front = waiting(&dir, "front", "trap 'exit 0' TERM");
    verb(&dir, "attach", &["front"]).assert_status(125).assert_one_line_naming(&["front", "-d"]);
    front.signal(Signal::TERM);
    front.finish().assert_status(0);

    detached(&dir, &["-i", &image("busybox"), "sh", "-c", ECHO]);
    wait_for_log(&dir, "up\n");
    verb(&dir, "pause", &["m"]).assert_status(0);
    let mut run = attached(&dir, &["m"]);
    run.send("early\n");
    verb(&dir, "resume", &["m"]).assert_status(0);
    run.wait_for_stdout("got early\n");
    verb(&dir, "kill", &["m"]).assert_status(0);
    run.finish().assert_status(137).assert_stdout("got early\n");
    verb(&dir, "attach", &["m"]).assert_status(125).assert_one_line_naming(&["m"]);
}

fn attach_drops_a_client_that_does_not_read() {
    let dir = TestDir::new().keeping_machines();
    let script = "echo up; seq 1 200000 >&2; echo done; read -r word";
    detached(&dir, &["-i", "--log-size", "64k", &image("busybox"), "sh", "-c", &format!("read -r word; {script}")]);
    let (mut reader, writer) = std::io::pipe().expect("the host has pipes");
    let mut slow = dir.verb("attach", &["m"]).stdin(Stdin::Pipe).stderr(writer).start();
    slow.send("go\n");
    // The workload reaches its last line, though its output is not read.
    wait_for_log(&dir, "done\n");
    let mut seen = String::new();
    let read = std::thread::spawn(move || reader.read_to_string(&mut seen).map(|_| seen));
    slow.finish().assert_status(125);
    let seen = read.join().expect("it does not panic").expect("it is text");
    assert!(seen.starts_with("1\n2\n3\n"), "{}", &seen[..100.min(seen.len())]);
    assert!(seen.contains("coracle: output is missing"), "{}", &seen[seen.len().saturating_sub(100)..]);
    assert_eq!(status(&dir, "m")["state"], "running");
    verb(&dir, "rm", &["-f", "m"]).assert_status(0);
}

fn attach_serves_twenty_and_survives_a_killed_client() {
    let dir = TestDir::new().keeping_machines();
    detached(&dir, &["-i", &image("busybox"), "sh", "-c", ECHO]);
    let mut all: Vec<Running> = (0..20).map(|_| attached(&dir, &["m"])).collect();
    for (index, one) in all.iter_mut().enumerate() {
        one.send(format!("{index}\n"));
        one.wait_for_stdout(&format!("got {index}\n"));
    }
    let vanished = all.pop().expect("there are twenty");
    vanished.signal(Signal::KILL);
    let _ = vanished.finish();
    all[0].send("last\n");
    for one in &mut all {
        one.wait_for_stdout("got last\n");
    }
    all[0].send("end\n");
    for one in all {
        one.finish().assert_status(7);
    }
}

fn attach_survives_garbage_and_clients_that_never_read() {
    let dir = TestDir::new().keeping_machines();
    detached(&dir, &["-i", &image("busybox"), "sh", "-c", "echo up; exec cat"]);
    wait_for_log(&dir, "up\n");
    let pid = status(&dir, "m")["pid"].as_u64().expect("a process has a number");
    let before = crate::hostile_clients::own_memory(u32::try_from(pid).expect("process numbers fit"));
    for garbage in [
        frames::frame(0, &[b'x'; 10])[..8].repeat(1000),
        frames::frame(7, b"no such stream"),
        frames::frame(3, b"{\"signal\":0}"),
        frames::frame(3, b"{\"signal\":9,\"twice\":1}"),
        vec![0xff; 64 << 10],
    ] {
        let mut client = upgraded(&dir);
        // The connection may be closed during the write.
        let _ = client.write_all(&garbage);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    let mut silent: Vec<UnixStream> = (0..25).map(|_| upgraded(&dir)).collect();
    let mut run = attached(&dir, &["m"]);
    // More than the pipe takes while the workload is stopped. All of it arrives.
    verb(&dir, "pause", &["m"]).assert_status(0);
    for client in &mut silent {
        client.set_nonblocking(true).expect("a socket can");
        let line = [&[b'x'; 20_000][..], b"\n"].concat();
        let _ = client.write(&frames::frame(0, &line).repeat(20));
    }
    let during = crate::hostile_clients::own_memory(u32::try_from(pid).expect("process numbers fit"));
    assert!(during < before + 16 * 1024, "{before} KiB before, {during} KiB with the clients");
    drop(silent);
    verb(&dir, "resume", &["m"]).assert_status(0);
    run.wait_for_stdout("xxxx\n");
    run.send("\nlast\n");
    run.wait_for_stdout("\nlast\n");
    verb(&dir, "kill", &["m"]).assert_status(0);
    run.finish().assert_status(137);
}
