// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::super::end::End;
use super::super::server::connect;
use super::super::status::State;
use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use tempfile::TempDir;

fn socket() -> (TempDir, ControlSocket, Lifecycle) {
    let entry = tempfile::tempdir().unwrap();
    let socket = ControlSocket::listen(entry.path()).unwrap();
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
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
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
