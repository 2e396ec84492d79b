// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;
use proptest::prelude::*;

fn refused(bytes: &[u8]) -> u16 {
    match take(bytes) {
        Taken::Refused(response) => response.status,
        other => panic!("{other:?}"),
    }
}

fn request(bytes: &[u8]) -> (Request, usize) {
    match take(bytes) {
        Taken::Request(request, length) => (request, length),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_ends_with_its_body() {
    let bytes = b"POST /v1/stop?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET";
    let (request, length) = request(bytes);
    assert_eq!((&*request.method, &*request.path, &*request.query), ("POST", "/v1/stop", "x=1"));
    assert_eq!((&*request.body, length), (&b"body"[..], bytes.len() - 3));
    for end in 0..length {
        assert!(matches!(take(&bytes[..end]), Taken::Partial), "{end}");
    }
}

#[test]
fn how_to_answer_follows_from_version_and_connection() {
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
fn what_is_too_much_or_no_request_is_refused() {
    let field = |value: &str| format!("POST / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n");
    assert_eq!(refused(b"\x16\x03\x01 not a request at all\r\n\r\n"), 400);
    assert_eq!(refused(&[b'x'; HEAD_BYTES]), 431);
    let fields = "A: b\r\n".repeat(FIELDS + 1);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()), 431);
    assert_eq!(refused(field("65537").as_bytes()), 413);
    assert_eq!(refused(field("99999999999999999999").as_bytes()), 400);
    assert_eq!(refused(field("-1").as_bytes()), 400);
    assert_eq!(refused(field("1\r\nContent-Length: 1").as_bytes()), 400);
    assert_eq!(refused(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 411);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..10_000)) {
        let _ = take(&bytes);
    }

    #[test]
    fn no_head_makes_it_panic(text in "(GET|POST|\\PC{0,9}) [/?a-z]{0,20} HTTP/1.[01]\r\n([A-Za-z-]{1,20}: [ -~]{0,40}\r\n){0,9}\r\n\\PC{0,99}") {
        let _ = take(text.as_bytes());
    }
}
