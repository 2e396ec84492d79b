// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use proptest::prelude::*;

fn status_of_invalid(bytes: &[u8]) -> u16 {
    match parse(bytes) {
        Parsed::Invalid(response) => response.status,
        other => panic!("{other:?}"),
    }
}

fn request(bytes: &[u8]) -> (Request, usize) {
    match parse(bytes) {
        Parsed::Request(request, length) => (request, length),
        other => panic!("{other:?}"),
    }
}

#[test]
fn request_ends_with_its_body() {
    let bytes = b"POST /v1/stop?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET";
    let (request, length) = request(bytes);
    assert_eq!((&*request.method, &*request.path, &*request.query), ("POST", "/v1/stop", "x=1"));
    assert_eq!((&*request.body, length), (&b"body"[..], bytes.len() - 3));
    for end in 0..length {
        assert!(matches!(parse(&bytes[..end]), Parsed::Partial), "{end}");
    }
}

#[test]
fn form_follows_from_version_and_connection() {
    for (lines, keep_alive, chunked, upgrade) in [
        ("1.1\r\n", true, true, false),
        ("1.1\r\nConnection: close\r\n", false, true, false),
        ("1.0\r\n", false, false, false),
        ("1.0\r\nConnection: Keep-Alive\r\n", true, false, false),
        ("1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: tcp\r\n", true, true, true),
        ("1.1\r\nUpgrade: tcp\r\n", true, true, false),
    ] {
        let (request, _) = request(format!("GET / HTTP/{lines}\r\n").as_bytes());
        assert_eq!(request.form, Form { keep_alive, chunked, upgrade }, "{lines}");
    }
}

#[test]
fn invalid_and_too_long_requests_are_rejected() {
    let field = |value: &str| format!("POST / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n");
    assert_eq!(status_of_invalid(b"\x16\x03\x01 not a request at all\r\n\r\n"), 400);
    assert_eq!(status_of_invalid(&[b'x'; MAX_HEAD_SIZE]), 431);
    let fields = "A: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(status_of_invalid(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()), 431);
    assert_eq!(status_of_invalid(field("65537").as_bytes()), 413);
    assert_eq!(status_of_invalid(field("99999999999999999999").as_bytes()), 400);
    assert_eq!(status_of_invalid(field("-1").as_bytes()), 400);
    assert_eq!(status_of_invalid(field("1\r\nContent-Length: 1").as_bytes()), 400);
    assert_eq!(status_of_invalid(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 411);
}

#[test]
fn response_has_its_length_and_the_end_of_the_connection() {
    let text = String::from_utf8(Response::error(404, "no such path").to_bytes(false)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"message\":\"no such path\"}\n");
    assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && head.ends_with("Connection: close"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
}

#[test]
fn chunk_begins_with_its_length_and_the_last_is_empty() {
    assert_eq!(chunk(&[b'x'; 17]), [b"11\r\n", &[b'x'; 17][..], b"\r\n"].concat());
    assert_eq!(chunk(b""), b"0\r\n\r\n");
}

proptest! {
    #[test]
    fn parse_accepts_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..10_000)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn parse_accepts_any_head(text in "(GET|POST|\\PC{0,9}) [/?a-z]{0,20} HTTP/1.[01]\r\n([A-Za-z-]{1,20}: [ -~]{0,40}\r\n){0,9}\r\n\\PC{0,99}") {
        let _ = parse(text.as_bytes());
    }
}
