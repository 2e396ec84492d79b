// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: clients against the transport alone.

use super::connection::REQUEST_TIMEOUT;
use super::*;
use crate::api::frame;
use crate::api::outbox::{MAX_OUTBOX_BYTES, MAX_OUTBOX_FRAMES, STALL_TIMEOUT};
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

/// Serves until there is nothing to do without waiting.
fn serve(server: &mut Server) -> Served {
    let mut all = Served::default();
    loop {
        let more = server.serve(Instant::now());
        if more == Served::default() {
            return all;
        }
        all.queries.extend(more.queries);
        all.events.extend(more.events);
    }
}

/// The events, where there are no queries.
fn events(server: &mut Server) -> Vec<(ClientId, ClientEvent)> {
    let served = serve(server);
    assert_eq!(served.queries, []);
    served.events
}

/// The client of the only query, where there are no events.
fn query(server: &mut Server, expected: &Query) -> ClientId {
    let served = serve(server);
    assert_eq!(served.events, []);
    match &*served.queries {
        [(client, query)] if query == expected => *client,
        other => panic!("{other:?}"),
    }
}

/// What the client can read without waiting.
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
fn connection_serves_one_request_after_the_other() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    for _ in 0..2 {
        client.write_all(STATUS).unwrap();
        let id = query(&mut server, &Query::Status);
        server.respond(id, &Response::json(&7));
        assert!(received(&client).ends_with("\r\n\r\n7\n"));
    }
}

#[test]
fn pipelined_requests_are_served_in_order() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(&[STATUS, b"POST /v1/pause HTTP/1.1\r\n\r\n"].concat()).unwrap();
    let id = query(&mut server, &Query::Status);
    server.respond(id, &Response::json(&1));
    assert_eq!(server.until_next(Instant::now()), Some(Duration::ZERO), "the second request is there");
    assert_eq!(events(&mut server), [(id, ClientEvent::Command(Command::Pause))]);
    // A client that waits for a response does not make the loop spin.
    assert_eq!(server.until_next(Instant::now()), None);
}

#[test]
fn pipelined_requests_wait_for_a_client_that_does_not_read() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(&STATUS.repeat(3)).unwrap();
    let id = query(&mut server, &Query::Status);
    let long = Response { status: 200, body: vec![b'x'; 1 << 20] };
    server.respond(id, &long);
    assert_eq!(serve(&mut server), Served::default(), "responses must not pile up");
    assert_ne!(server.until_next(Instant::now()), Some(Duration::ZERO));
    client.set_nonblocking(true).unwrap();
    let (mut length, mut queries) = (0, 0);
    while length < long.to_bytes(true).len() {
        length += client.read(&mut [0; 64 << 10]).unwrap_or(0);
        queries += serve(&mut server).queries.len();
    }
    queries += serve(&mut server).queries.len();
    assert_eq!(queries, 1, "the second request is served once the first response is taken");
}

#[test]
fn request_may_come_byte_by_byte_within_its_time() {
    let (entry, mut server) = server();
    let mut slow = client(&entry);
    for byte in &STATUS[..STATUS.len() - 1] {
        slow.write_all(&[*byte]).unwrap();
        assert_eq!(serve(&mut server), Served::default());
    }
    let silent = client(&entry);
    assert_eq!(serve(&mut server), Served::default());
    let wait = server.until_next(Instant::now()).unwrap();
    assert!(wait <= REQUEST_TIMEOUT && wait > REQUEST_TIMEOUT / 2);
    let late = server.serve(Instant::now() + REQUEST_TIMEOUT).events;
    assert_eq!(late.len(), 2, "{late:?}");
    assert!(received(&slow).starts_with("HTTP/1.1 408 "));
    assert_eq!(received(&silent), "", "no request, no response");
    assert!(is_closed(&slow) && is_closed(&silent));
    assert_eq!(server.until_next(Instant::now()), None);
}

#[test]
fn invalid_request_gets_an_error_and_is_closed() {
    let (entry, mut server) = server();
    let mut garbage = client(&entry);
    garbage.write_all(&[0xff; 300]).unwrap();
    assert!(matches!(&*events(&mut server), [(_, ClientEvent::Gone)]));
    assert!(received(&garbage).starts_with("HTTP/1.1 400 "));
    let huge = client(&entry);
    huge.set_nonblocking(true).unwrap();
    let head = b"POST /v1/stop HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n";
    (&huge).write_all(head).unwrap();
    while (&huge).write(&[b'x'; 4096]).is_ok() {}
    assert!(matches!(&*events(&mut server), [(_, ClientEvent::Gone)]));
    assert!(received(&huge).starts_with("HTTP/1.1 413 "));
}

#[test]
fn unknown_path_leaves_the_connection_open() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/nothing HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(serve(&mut server), Served::default());
    assert!(received(&client).starts_with("HTTP/1.1 404 "));
    client.write_all(STATUS).unwrap();
    query(&mut server, &Query::Status);
}

#[test]
fn client_above_the_limit_gets_503() {
    let (entry, mut server) = server();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| client(&entry)).collect();
    assert_eq!(serve(&mut server), Served::default());
    let surplus = client(&entry);
    assert_eq!(serve(&mut server), Served::default());
    assert!(received(&surplus).starts_with("HTTP/1.1 503 "));
    drop(clients.pop());
    assert!(matches!(&*events(&mut server), [(_, ClientEvent::Gone)]));
    let mut next = client(&entry);
    next.write_all(STATUS).unwrap();
    query(&mut server, &Query::Status);
}

/// Sends `bytes` on a channel until the client is dropped; returns how often that was possible.
fn sends_until_dropped(request: &[u8], bytes: &[u8]) -> usize {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(request).unwrap();
    let served = serve(&mut server);
    let ids = served.queries.iter().map(|(id, _)| *id).chain(served.events.iter().map(|(id, _)| *id));
    let id = ids.last().unwrap();
    server.open(id, if served.queries.is_empty() { Channel::Duplex } else { Channel::Lines });
    let mut sends = 0;
    while !server.connections.is_empty() {
        server.send(id, bytes);
        sends += 1;
        assert!(sends < 100_000, "the client is never dropped");
    }
    assert_eq!(events(&mut server), [(id, ClientEvent::Gone)]);
    sends
}

#[test]
fn channel_of_a_client_that_does_not_read_is_bounded() {
    const EVENTS: &[u8] = b"GET /v1/events HTTP/1.1\r\n\r\n";
    const ATTACH: &[u8] = b"POST /v1/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    for request in [EVENTS, ATTACH] {
        // The socket buffer of the host takes some, too.
        let long = sends_until_dropped(request, &[b'x'; 4096]);
        assert!(long > MAX_OUTBOX_BYTES / 4200 && long < 4 * MAX_OUTBOX_BYTES / 4096, "{long}");
        let empty = sends_until_dropped(request, &frame::encode(frame::STDOUT, b""));
        assert!(empty > MAX_OUTBOX_FRAMES && empty < 6 * MAX_OUTBOX_FRAMES, "{empty}");
    }
}

#[test]
fn client_that_does_not_take_its_response_is_dropped() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(STATUS).unwrap();
    let id = query(&mut server, &Query::Status);
    server.respond(id, &Response { status: 200, body: vec![b'x'; 1 << 20] });
    assert_eq!(serve(&mut server), Served::default());
    assert_eq!(server.serve(Instant::now() + STALL_TIMEOUT).events, [(id, ClientEvent::Gone)]);
}

#[test]
fn stream_is_chunks_up_to_its_end() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/events HTTP/1.1\r\n\r\n").unwrap();
    let id = query(&mut server, &Query::Events);
    server.open(id, Channel::Lines);
    server.send(id, b"{}\n");
    server.close(id);
    let text = received(&client);
    assert!(text.contains("Transfer-Encoding: chunked") && text.ends_with("\r\n\r\n3\r\n{}\n\r\n0\r\n\r\n"), "{text}");
    assert!(is_closed(&client));
}

#[test]
fn client_that_leaves_while_it_waits_is_reported() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(b"GET /v1/wait HTTP/1.1\r\n\r\n").unwrap();
    let id = query(&mut server, &Query::Wait);
    drop(client);
    assert_eq!(events(&mut server), [(id, ClientEvent::Gone)]);
    server.respond(id, &Response::json(&1));
}

fn input(bytes: &[u8]) -> ClientEvent {
    ClientEvent::Frame(ClientFrame::Input(bytes.to_vec()))
}

#[test]
fn duplex_channel_carries_frames_both_ways() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    // Frames may follow the request at once.
    client.write_all(&[STATUS, &frame::encode(frame::STDIN, b"first")].concat()).unwrap();
    let id = query(&mut server, &Query::Status);
    server.open(id, Channel::Duplex);
    assert!(received(&client).starts_with("HTTP/1.1 101 "));
    assert_eq!(events(&mut server), [(id, input(b"first"))]);
    server.set_read_enabled(id, false);
    client.write_all(&frame::encode(frame::STDIN, b"second")).unwrap();
    assert_eq!(serve(&mut server), Served::default());
    server.set_read_enabled(id, true);
    assert_eq!(events(&mut server), [(id, input(b"second"))]);

    let mut sent = 0;
    while server.room(id) > 0 {
        let bytes = vec![b'x'; server.room(id)];
        sent += bytes.len();
        server.send(id, &bytes);
    }
    assert_eq!(server.unsent(id), MAX_OUTBOX_BYTES);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = vec![0; sent];
    let mut length = 0;
    let mut all = Vec::new();
    while length < sent {
        length += client.read(&mut bytes[length..]).unwrap();
        all.extend(events(&mut server));
    }
    assert!(all.contains(&(id, ClientEvent::InputEnded)) && all.contains(&(id, ClientEvent::Writable)), "{all:?}");
    server.close(id);
    assert!(is_closed(&client));
}

#[test]
fn duplex_channel_outlives_a_reader_that_pauses() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(STATUS).unwrap();
    let id = query(&mut server, &Query::Status);
    server.open(id, Channel::Duplex);
    while server.room(id) > 0 {
        server.send(id, &vec![b'x'; server.room(id)]);
    }
    assert_eq!(server.serve(Instant::now() + 2 * STALL_TIMEOUT), Served::default());
    server.close(id);
    assert_eq!(server.serve(Instant::now() + STALL_TIMEOUT).events, [(id, ClientEvent::Gone)]);
}

#[test]
fn client_that_is_gone_is_reported_once() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(STATUS).unwrap();
    let id = query(&mut server, &Query::Status);
    server.open(id, Channel::Duplex);
    assert!(received(&client).starts_with("HTTP/1.1 101 "));
    drop(client);
    assert_eq!(events(&mut server), [(id, ClientEvent::InputEnded), (id, ClientEvent::Gone)]);
}

#[test]
fn invalid_frame_ends_the_channel_after_valid_ones() {
    let (entry, mut server) = server();
    let mut client = client(&entry);
    client.write_all(STATUS).unwrap();
    let id = query(&mut server, &Query::Status);
    server.open(id, Channel::Duplex);
    client.write_all(&[frame::encode(frame::STDIN, b"x"), frame::encode(frame::STDOUT, b"x")].concat()).unwrap();
    assert_eq!(events(&mut server), [(id, input(b"x")), (id, ClientEvent::Gone)]);
}

#[test]
fn second_listener_is_served_and_a_third_is_rejected() {
    let (entry, mut server) = server();
    let path = entry.path().join("other");
    let listener = || {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    server.add_listener(listener()).unwrap();
    let (mut own, mut other) = (client(&entry), UnixStream::connect(&path).unwrap());
    for client in [&mut own, &mut other] {
        client.write_all(STATUS).unwrap();
        let id = query(&mut server, &Query::Status);
        server.respond(id, &Response::error(404, "no"));
        assert!(received(client).starts_with("HTTP/1.1 404"));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.add_listener(listener()).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn path_may_be_longer_than_a_socket_address() {
    let base = tempfile::tempdir().unwrap();
    let entry = base.path().join("x".repeat(200));
    fs::create_dir(&entry).unwrap();
    let listener = listen(&entry).unwrap();
    let mut client = connect(&entry).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    let (mut server, _) = listener.accept().unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(is_permitted(&server).unwrap());
    assert_eq!(fs::metadata(entry.join(SOCKET_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn stale_socket_is_reclaimed() {
    let entry = tempfile::tempdir().unwrap();
    drop(listen(entry.path()).unwrap());
    assert_eq!(connect(entry.path()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let _listener = listen(entry.path()).unwrap();
    assert!(connect(entry.path()).is_ok());
}
