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
    let socket = ControlSocket::listen(entry.path()).unwrap();
    let lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
    (entry, socket, lifecycle)
}

fn request(entry: &TempDir, line: &str) -> UnixStream {
    let mut client = connect(entry.path()).unwrap();
    client.write_all(format!("{line} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    client
}

fn serve(socket: &mut ControlSocket, lifecycle: &mut Lifecycle) -> Vec<(ClientId, ClientEvent)> {
    let counters = || Counters { cpu_vmm_ns: 7, ..Counters::default() };
    socket.serve(lifecycle, counters)
}

fn response(mut client: UnixStream) -> String {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn status_has_fresh_counters() {
    let (entry, mut socket, mut lifecycle) = socket();
    let client = request(&entry, "GET /v1/status");
    serve(&mut socket, &mut lifecycle);
    let text = response(client);
    let status: Status = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((status.counters.cpu_vmm_ns, status.state), (7, State::Starting));
}

#[test]
fn finish_answers_wait_and_closes_streams() {
    let (entry, mut socket, mut lifecycle) = socket();
    let [wait, events, stats] =
        ["wait", "events", "stats?stream=true"].map(|path| request(&entry, &format!("GET /v1/{path}")));
    assert_eq!(serve(&mut socket, &mut lifecycle), []);
    lifecycle.enter(State::Running, Counters::default());
    socket.publish(lifecycle.status());
    let [late, too_late] = ["GET /v1/wait", "POST /v1/pause"].map(|text| request(&entry, text));
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    socket.finish(lifecycle.status());
    let wait = response(wait);
    assert!(wait.starts_with("HTTP/1.1 200 ") && wait.contains(r#""reason":"killed""#), "{wait}");
    assert!(response(late).contains(r#""reason":"killed""#), "a request at the last moment");
    assert!(response(too_late).starts_with("HTTP/1.1 409 "));
    let events = response(events);
    let states: Vec<_> = events.lines().filter_map(|line| serde_json::from_str::<Status>(line).ok()).collect();
    assert_eq!(
        states.iter().map(|status| status.state).collect::<Vec<_>>(),
        [State::Starting, State::Running, State::Exited]
    );
    assert!(events.ends_with("\r\n0\r\n\r\n"), "{events}");
    assert_eq!(response(stats).lines().filter(|line| serde_json::from_str::<Stats>(line).is_ok()).count(), 1);
}

#[test]
fn stats_stream_sets_a_timer_while_it_has_clients() {
    let (entry, mut socket, mut lifecycle) = socket();
    assert_eq!(socket.until_next(Instant::now()), None);
    let client = request(&entry, "GET /v1/stats?stream=true");
    serve(&mut socket, &mut lifecycle);
    let wait = socket.until_next(Instant::now()).unwrap();
    assert!(wait <= STATS_INTERVAL && !wait.is_zero(), "{wait:?}");
    drop(client);
    assert!(matches!(&*serve(&mut socket, &mut lifecycle), [(_, ClientEvent::Gone)]));
    assert_eq!(socket.until_next(Instant::now()), None);
}

#[test]
fn commands_are_passed_on_and_queries_are_not() {
    let (entry, mut socket, mut lifecycle) = socket();
    let _query = request(&entry, "GET /v1/wait");
    let _command = request(&entry, "POST /v1/pause");
    let events = serve(&mut socket, &mut lifecycle);
    assert!(matches!(&*events, [(_, ClientEvent::Command(Command::Pause))]), "{events:?}");
}

/// The commands that came, held.
fn hold_all(socket: &mut ControlSocket, lifecycle: &mut Lifecycle) {
    for (client, event) in serve(socket, lifecycle) {
        if let ClientEvent::Command(command) = event {
            socket.hold(client, command);
        }
    }
}

#[test]
fn held_commands_are_released_in_order_or_end_with_the_machine() {
    let (entry, mut socket, mut lifecycle) = socket();
    let pause = request(&entry, "POST /v1/pause");
    let resume = request(&entry, "POST /v1/resume");
    drop(request(&entry, "POST /v1/kill"));
    hold_all(&mut socket, &mut lifecycle);
    assert!(socket.until_next(Instant::now()).is_some_and(|wait| wait <= HOLD_LIMIT));
    serve(&mut socket, &mut lifecycle);
    let released = socket.release(|command| *command == Command::Resume);
    let [(client, Command::Resume)] = &*released else { panic!("{released:?}") };
    socket.server.respond(*client, &Response::json(lifecycle.status()));
    assert!(response(resume).starts_with("HTTP/1.1 200 "));
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    socket.finish(lifecycle.status());
    let pause = response(pause);
    assert!(pause.starts_with("HTTP/1.1 409 ") && pause.contains("ended before its workload ran"), "{pause}");
}

#[test]
fn held_commands_are_bounded_in_number() {
    let (entry, mut socket, mut lifecycle) = socket();
    let mut clients: Vec<_> = (0..=MAX_HELD).map(|_| request(&entry, "POST /v1/pause")).collect();
    hold_all(&mut socket, &mut lifecycle);
    let last = response(clients.pop().unwrap());
    assert!(last.starts_with("HTTP/1.1 503 ") && last.contains("the limit is 16"), "{last}");
    drop(clients);
    serve(&mut socket, &mut lifecycle);
    assert!(socket.release(|_| true).is_empty(), "their clients are gone");
}

/// A socket with logs, and the log of standard output.
fn with_logs(limit: u64) -> (TempDir, ControlSocket, Lifecycle, Arc<StreamLog>) {
    let entry = tempfile::tempdir().unwrap();
    let notifier = Arc::new(LogNotifier::new().unwrap());
    let [stdout, _] = StreamLog::create(entry.path(), limit, &notifier).unwrap();
    let mut socket = ControlSocket::listen(entry.path()).unwrap();
    socket.serve_logs(entry.path(), notifier);
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
fn logs_are_followed_to_the_end() {
    let (entry, mut socket, mut lifecycle, stdout) = with_logs(1 << 20);
    stdout.write(b"before\n");
    let [once, follower] = ["", "?follow=1"].map(|query| request(&entry, &format!("GET /v1/logs{query}")));
    settle(&mut socket, &mut lifecycle);
    let once = response(once);
    assert!(once.contains("Content-Type: application/vnd.docker.multiplexed-stream"), "{once}");
    assert!(once.ends_with("\x01\0\0\0\0\0\0\x07before\n\r\n0\r\n\r\n"), "{once:?}");
    stdout.write(b"after\n");
    settle(&mut socket, &mut lifecycle);
    stdout.write(b"last\n");
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    socket.finish(lifecycle.status());
    let text = response(follower);
    let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in {text:?}"));
    assert!(at("before\n") < at("after\n") && at("after\n") < at("last\n"), "{text:?}");
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text:?}");
}

#[test]
fn slow_log_client_gets_an_error_and_is_closed() {
    let (entry, mut socket, mut lifecycle, stdout) = with_logs(1 << 20);
    let slow = request(&entry, "GET /v1/logs?follow=1");
    settle(&mut socket, &mut lifecycle);
    for _ in 0..200 {
        stdout.write(&[b'x'; 16 << 10]);
        settle(&mut socket, &mut lifecycle);
    }
    // The socket and the outbox hold the beginning; the rest was rotated away.
    let reader = std::thread::spawn(|| response(slow));
    while !reader.is_finished() {
        settle(&mut socket, &mut lifecycle);
    }
    let text = reader.join().unwrap();
    assert!(text.contains("output is missing") && text.ends_with("\r\n0\r\n\r\n"), "{}", text.len());
    settle(&mut socket, &mut lifecycle);
    assert!(!socket.has_log_clients());
}

#[test]
fn log_notifier_is_armed_for_clients_with_room_only() {
    let (entry, mut socket, mut lifecycle, stdout) = with_logs(1 << 20);
    let signals = |socket: &ControlSocket| {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, socket.log_notifier().unwrap().as_raw_fd(), event).unwrap();
        epoll.wait(0, &mut [event]).unwrap() > 0
    };
    stdout.write(b"x\n");
    assert!(!signals(&socket), "no client");
    let client = request(&entry, "GET /v1/logs?follow=1");
    settle(&mut socket, &mut lifecycle);
    stdout.write(b"x\n");
    assert!(signals(&socket));
    // More than the socket and the outbox hold.
    for _ in 0..100 {
        stdout.write(&[b'x'; 8 << 10]);
        settle(&mut socket, &mut lifecycle);
    }
    stdout.write(b"x\n");
    assert!(!signals(&socket), "the client does not read");
    drop(client);
    settle(&mut socket, &mut lifecycle);
    stdout.write(b"x\n");
    settle(&mut socket, &mut lifecycle);
    assert!(!signals(&socket), "the client is gone");
}

#[test]
fn logs_of_a_foreground_run_are_rejected() {
    let (entry, mut socket, mut lifecycle) = socket();
    let client = request(&entry, "GET /v1/logs");
    serve(&mut socket, &mut lifecycle);
    let text = response(client);
    assert!(text.starts_with("HTTP/1.1 409 ") && text.contains("without -d"), "{text}");
}

#[test]
fn held_command_expires_at_its_own_limit() {
    let (start, mut held) = (Instant::now(), HeldCommands::default());
    let clients = [0, 1].map(Server::client_id);
    assert!(held.add(clients[0], Command::Pause, start));
    assert!(held.add(clients[1], Command::Pause, start + Duration::from_secs(9)));
    assert_eq!(held.until_next(start), Some(HOLD_LIMIT));
    assert_eq!(held.take_expired(start + HOLD_LIMIT), clients[..1]);
    assert_eq!(held.take_expired(start + HOLD_LIMIT), []);
    held.remove(clients[1]);
    assert_eq!(held.until_next(start), None);
}
