// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: clients of every kind against the transport alone.

use super::client::{QUEUE_BYTES, REQUEST_TIME, TAKE_TIME};
use super::*;
use std::io::Read as _;
use tempfile::TempDir;

fn server() -> (TempDir, Server) {
    let entry = tempfile::tempdir().unwrap();
    let server = Server::listen(entry.path()).unwrap();
    (entry, server)
}

fn client(entry: &TempDir) -> UnixStream {
    connect(entry.path()).unwrap()
}

/// Serves until there is nothing more to do at once.
fn serve(server: &mut Server) -> Vec<Notice> {
    let mut notices = Vec::new();
    loop {
        let more = server.serve(Instant::now());
        if more.is_empty() {
            return notices;
        }
        notices.extend(more);
    }
}

fn call(notices: &[Notice]) -> (ClientId, &Operation) {
    match notices {
        [Notice::Call(client, operation)] => (*client, operation),
        other => panic!("{other:?}"),
    }
}

/// What is there without waiting.
fn received(mut client: &UnixStream) -> String {
    client.set_nonblocking(true).unwrap();
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        text.extend_from_slice(&bytes[..length]);
    }
    client.set_nonblocking(false).unwrap();
    String::from_utf8(text).unwrap()
}

fn is_closed(mut client: &UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    matches!(client.read(&mut [0; 1]), Ok(0)) || client.write_all(b"x").is_err()
}

const STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_call_is_answered_and_the_connection_takes_another() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    for _ in 0..2 {
        client.write_all(STATUS).unwrap();
        let notices = serve(&mut server);
        let (id, operation) = call(&notices);
        assert_eq!(*operation, Operation::Status);
        server.answer(id, &Response::json(&7));
        assert!(received(&client).ends_with("\r\n\r\n7\n"));
    }
}

#[test]
fn requests_that_come_together_are_done_one_after_the_other() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(&[STATUS, b"POST /v1/pause HTTP/1.1\r\n\r\n"].concat()).unwrap();
    let notices = serve(&mut server);
    let (id, operation) = call(&notices);
    assert_eq!(*operation, Operation::Status);
    server.answer(id, &Response::json(&1));
    assert_eq!(server.until_next(Instant::now()), Some(Duration::ZERO), "there is more to do at once");
    let notices = serve(&mut server);
    assert_eq!(call(&notices), (id, &Operation::Pause));
    // Nobody spins for a client that waits for an answer.
    assert_eq!(server.until_next(Instant::now()), None);
}

#[test]
fn a_request_may_come_byte_by_byte_but_not_for_ever() {
    let (entry, mut server) = server();
    let mut slow = client(&entry);
    for byte in &STATUS[..STATUS.len() - 1] {
        slow.write_all(&[*byte]).unwrap();
        assert_eq!(serve(&mut server), []);
    }
    let silent = client(&entry);
    assert_eq!(serve(&mut server), []);
    let wait = server.until_next(Instant::now()).unwrap();
    assert!(wait <= REQUEST_TIME && wait > REQUEST_TIME / 2);
    let late = server.serve(Instant::now() + REQUEST_TIME);
    assert_eq!(late.len(), 2, "{late:?}");
    assert!(received(&slow).starts_with("HTTP/1.1 408 "));
    assert_eq!(received(&silent), "", "who asked for nothing is told nothing");
    assert!(is_closed(&slow) && is_closed(&silent));
    assert_eq!(server.until_next(Instant::now()), None);
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_closed() {
    let (entry, mut server) = server();
    let mut garbage = client(&entry);
    garbage.write_all(&[0xff; 300]).unwrap();
    assert!(matches!(&*serve(&mut server), [Notice::Gone(_)]));
    assert!(received(&garbage).starts_with("HTTP/1.1 400 "));
    let huge = client(&entry);
    huge.set_nonblocking(true).unwrap();
    let head = b"POST /v1/stop HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n";
    (&huge).write_all(head).unwrap();
    while (&huge).write(&[b'x'; 4096]).is_ok() {}
    assert!(matches!(&*serve(&mut server), [Notice::Gone(_)]));
    assert!(received(&huge).starts_with("HTTP/1.1 413 "));
}

#[test]
fn an_unknown_path_leaves_the_connection_open() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/nothing HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(serve(&mut server), []);
    assert!(received(&client).starts_with("HTTP/1.1 404 "));
    client.write_all(STATUS).unwrap();
    assert_eq!(call(&serve(&mut server)).1, &Operation::Status);
}

#[test]
fn the_client_after_the_last_is_told_to_come_back() {
    let (entry, mut server) = server();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(&entry)).collect();
    assert_eq!(serve(&mut server), []);
    let surplus = client(&entry);
    assert_eq!(serve(&mut server), []);
    assert!(received(&surplus).starts_with("HTTP/1.1 503 "));
    drop(clients.pop());
    assert!(matches!(&*serve(&mut server), [Notice::Gone(_)]));
    let mut next = client(&entry);
    next.write_all(STATUS).unwrap();
    assert_eq!(call(&serve(&mut server)).1, &Operation::Status);
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_queue_and_is_given_up() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/events HTTP/1.1\r\n\r\n").unwrap();
    let notices = serve(&mut server);
    let (id, _) = call(&notices);
    server.begin_stream(id, "text/plain");
    let line = [b'x'; 4096];
    let mut lines = 0;
    while !server.clients.is_empty() {
        server.push(id, &line);
        lines += 1;
        assert!(lines < 10_000, "it is never given up");
    }
    assert!(lines > QUEUE_BYTES / line.len(), "{lines}");
    assert_eq!(serve(&mut server), [Notice::Gone(id)]);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(STATUS).unwrap();
    let notices = serve(&mut server);
    let (id, _) = call(&notices);
    server.answer(id, &Response { status: 200, body: vec![b'x'; 1 << 20] });
    assert_eq!(serve(&mut server), []);
    assert_eq!(server.serve(Instant::now() + TAKE_TIME), [Notice::Gone(id)]);
}

#[test]
fn a_stream_is_chunks_up_to_its_end() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/events HTTP/1.1\r\n\r\n").unwrap();
    let notices = serve(&mut server);
    let (id, _) = call(&notices);
    server.begin_stream(id, "text/plain");
    server.push(id, b"{}\n");
    server.end_stream(id);
    let text = received(&client);
    assert!(text.contains("Transfer-Encoding: chunked") && text.ends_with("\r\n\r\n3\r\n{}\n\r\n0\r\n\r\n"), "{text}");
    assert!(is_closed(&client));
}

#[test]
fn a_client_that_leaves_in_the_middle_is_noticed() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/wait HTTP/1.1\r\n\r\n").unwrap();
    let notices = serve(&mut server);
    let (id, operation) = call(&notices);
    assert_eq!(*operation, Operation::Wait);
    drop(client);
    assert_eq!(serve(&mut server), [Notice::Gone(id)]);
    server.answer(id, &Response::json(&1));
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_as_far_as_there_is_room() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    // Bytes may follow the request at once.
    client.write_all(&[STATUS, b"first"].concat()).unwrap();
    let notices = serve(&mut server);
    let (id, _) = call(&notices);
    server.upgrade(id, "application/octet-stream");
    assert!(received(&client).starts_with("HTTP/1.1 101 "));
    assert_eq!(serve(&mut server), [Notice::Data(id, b"first".to_vec())]);
    server.welcome_input(id, false);
    client.write_all(b"second").unwrap();
    assert_eq!(serve(&mut server), []);
    server.welcome_input(id, true);
    assert_eq!(serve(&mut server), [Notice::Data(id, b"second".to_vec())]);

    let mut sent = 0;
    while server.room(id) > 0 {
        let bytes = vec![b'x'; server.room(id)];
        sent += bytes.len();
        server.send(id, &bytes);
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = vec![0; sent];
    let mut length = 0;
    let mut notices = Vec::new();
    while length < sent {
        length += client.read(&mut bytes[length..]).unwrap();
        notices.extend(serve(&mut server));
    }
    assert!(notices.contains(&Notice::InputEnded(id)) && notices.contains(&Notice::Room(id)), "{notices:?}");
    server.close(id);
    assert!(is_closed(&client));
}

#[test]
fn an_upgraded_client_that_is_gone_is_told_of_once() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(STATUS).unwrap();
    let (id, _) = call(&serve(&mut server));
    server.upgrade(id, "application/octet-stream");
    assert!(received(&client).starts_with("HTTP/1.1 101 "));
    drop(client);
    assert_eq!(serve(&mut server), [Notice::InputEnded(id), Notice::Gone(id)]);
}

#[test]
fn clients_of_a_second_socket_are_served_like_those_of_the_first_and_a_third_is_refused() {
    let (entry, mut server) = server();
    let path = entry.path().join("other");
    let listener = || {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    server.also_listen(listener()).unwrap();
    let (mut own, mut other) = (client(&entry), UnixStream::connect(&path).unwrap());
    for client in [&mut own, &mut other] {
        client.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let notices = serve(&mut server);
        let (id, operation) = call(&notices);
        assert_eq!(operation, &Operation::Status);
        server.answer(id, &Response::refusal(404, "no"));
        assert!(received(client).starts_with("HTTP/1.1 404"));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.also_listen(listener()).unwrap_err().kind(), ErrorKind::InvalidInput);
}
