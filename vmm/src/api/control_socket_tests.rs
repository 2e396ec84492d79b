// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use crate::api::server::connect;
use crate::state::end::End;
use crate::state::logs::StreamLog;
use crate::state::status::State;
use devices::log_sink::LogSink as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use tempfile::TempDir;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

fn socket() -> (TempDir, ControlSocket, Lifecycle) {
    let entry = tempfile::tempdir().unwrap();
    let socket = ControlSocket::listen(entry.path(), None).unwrap();
    let lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
    (entry, socket, lifecycle)
}

fn ask(entry: &TempDir, request: &str) -> UnixStream {
    let mut client = connect(entry.path()).unwrap();
    client.write_all(format!("{request} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    client
}

fn serve(socket: &mut ControlSocket, lifecycle: &mut Lifecycle) -> Vec<Notice> {
    let counters = || Counters { cpu_vmm_ns: 7, ..Counters::default() };
    socket.serve(lifecycle, counters)
}

fn answer(mut client: UnixStream) -> String {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_status_has_the_counters_of_the_moment() {
    let (entry, mut socket, mut lifecycle) = socket();
    let client = ask(&entry, "GET /v1/status");
    serve(&mut socket, &mut lifecycle);
    let answer = answer(client);
    let status: Status = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((status.counters.cpu_vmm_ns, status.state), (7, State::Starting));
}

#[test]
fn the_end_is_told_to_those_who_wait_for_it_and_closes_the_streams() {
    let (entry, mut socket, mut lifecycle) = socket();
    let [wait, events, stats] =
        ["wait", "events", "stats?stream=true"].map(|path| ask(&entry, &format!("GET /v1/{path}")));
    assert_eq!(serve(&mut socket, &mut lifecycle), []);
    lifecycle.enter(State::Running, Counters::default());
    socket.publish(lifecycle.status());
    let [late, too_late] = ["GET /v1/wait", "POST /v1/pause"].map(|request| ask(&entry, request));
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    socket.finish(lifecycle.status());
    let wait = answer(wait);
    assert!(wait.starts_with("HTTP/1.1 200 ") && wait.contains(r#""reason":"killed""#), "{wait}");
    assert!(answer(late).contains(r#""reason":"killed""#), "whoever asks at the last moment is told, too");
    assert!(answer(too_late).starts_with("HTTP/1.1 409 "));
    let events = answer(events);
    let states: Vec<_> = events.lines().filter_map(|line| serde_json::from_str::<Status>(line).ok()).collect();
    assert_eq!(
        states.iter().map(|status| status.state).collect::<Vec<_>>(),
        [State::Starting, State::Running, State::Exited]
    );
    assert!(events.ends_with("\r\n0\r\n\r\n"), "{events}");
    assert_eq!(answer(stats).lines().filter(|line| serde_json::from_str::<Stats>(line).is_ok()).count(), 1);
}

#[test]
fn statistics_come_each_second_while_somebody_listens_and_cost_nothing_otherwise() {
    let (entry, mut socket, mut lifecycle) = socket();
    assert_eq!(socket.until_next(Instant::now()), None);
    let client = ask(&entry, "GET /v1/stats?stream=true");
    serve(&mut socket, &mut lifecycle);
    let wait = socket.until_next(Instant::now()).unwrap();
    assert!(wait <= STATS_INTERVAL && !wait.is_zero(), "{wait:?}");
    drop(client);
    assert!(matches!(&*serve(&mut socket, &mut lifecycle), [Notice::Gone(_)]));
    assert_eq!(socket.until_next(Instant::now()), None);
}

#[test]
fn what_concerns_the_machine_is_handed_on() {
    let (entry, mut socket, mut lifecycle) = socket();
    let _client = ask(&entry, "POST /v1/pause");
    let notices = serve(&mut socket, &mut lifecycle);
    assert!(matches!(&*notices, [Notice::Call(_, Operation::Pause)]), "{notices:?}");
}

/// A socket with logs, and what rings its bell.
fn with_logs(limit: u64) -> (TempDir, ControlSocket, Lifecycle, Arc<StreamLog>) {
    let entry = tempfile::tempdir().unwrap();
    let bell = Arc::new(LogNotifier::new().unwrap());
    let [stdout, _] = StreamLog::create(entry.path(), limit, &bell).unwrap();
    let socket = ControlSocket::listen(entry.path(), Some(bell)).unwrap();
    let lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
    (entry, socket, lifecycle, stdout)
}

/// Turns of the event loop until nothing is left to do at once.
fn settle(socket: &mut ControlSocket, lifecycle: &mut Lifecycle) {
    serve(socket, lifecycle);
    while socket.until_next(Instant::now()) == Some(Duration::ZERO) {
        serve(socket, lifecycle);
    }
}

#[test]
fn logs_are_followed_to_the_last_word_of_the_workload() {
    let (entry, mut socket, mut lifecycle, stdout) = with_logs(1 << 20);
    stdout.write(b"before\n");
    let [once, follower] = ["", "?follow=1"].map(|query| ask(&entry, &format!("GET /v1/logs{query}")));
    settle(&mut socket, &mut lifecycle);
    let once = answer(once);
    assert!(once.contains("Content-Type: application/vnd.docker.multiplexed-stream"), "{once}");
    assert!(once.ends_with("\x01\0\0\0\0\0\0\x07before\n\r\n0\r\n\r\n"), "{once:?}");
    stdout.write(b"after\n");
    settle(&mut socket, &mut lifecycle);
    stdout.write(b"last\n");
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    socket.finish(lifecycle.status());
    let text = answer(follower);
    let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in {text:?}"));
    assert!(at("before\n") < at("after\n") && at("after\n") < at("last\n"), "{text:?}");
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text:?}");
}

#[test]
fn who_does_not_read_the_logs_is_cut_and_told() {
    let (entry, mut socket, mut lifecycle, stdout) = with_logs(1 << 20);
    let slow = ask(&entry, "GET /v1/logs?follow=1");
    settle(&mut socket, &mut lifecycle);
    for _ in 0..200 {
        stdout.write(&[b'x'; 16 << 10]);
        settle(&mut socket, &mut lifecycle);
    }
    // What the socket and the queue hold is taken, and then there is a gap.
    let reader = std::thread::spawn(|| answer(slow));
    while !reader.is_finished() {
        settle(&mut socket, &mut lifecycle);
    }
    let text = reader.join().unwrap();
    assert!(text.contains("output is missing") && text.ends_with("\r\n0\r\n\r\n"), "{}", text.len());
    settle(&mut socket, &mut lifecycle);
    assert!(!socket.has_readers());
}

#[test]
fn the_bell_is_silent_where_nobody_could_take_what_it_rings_for() {
    let (entry, mut socket, mut lifecycle, stdout) = with_logs(1 << 20);
    let rings = |socket: &ControlSocket| {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, socket.bell().unwrap().as_raw_fd(), event).unwrap();
        epoll.wait(0, &mut [event]).unwrap() > 0
    };
    stdout.write(b"x\n");
    assert!(!rings(&socket), "there is no client");
    let client = ask(&entry, "GET /v1/logs?follow=1");
    settle(&mut socket, &mut lifecycle);
    stdout.write(b"x\n");
    assert!(rings(&socket));
    // As many as the socket and the queue hold.
    for _ in 0..100 {
        stdout.write(&[b'x'; 8 << 10]);
        settle(&mut socket, &mut lifecycle);
    }
    stdout.write(b"x\n");
    assert!(!rings(&socket), "the client does not read");
    drop(client);
    settle(&mut socket, &mut lifecycle);
    stdout.write(b"x\n");
    settle(&mut socket, &mut lifecycle);
    assert!(!rings(&socket), "the client is gone");
}

#[test]
fn a_run_in_the_foreground_has_no_logs() {
    let (entry, mut socket, mut lifecycle) = socket();
    let client = ask(&entry, "GET /v1/logs");
    serve(&mut socket, &mut lifecycle);
    let answer = answer(client);
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("without -d"), "{answer}");
}
