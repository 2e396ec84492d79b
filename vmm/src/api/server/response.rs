// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a client is answered: status line, header fields, JSON. RFC 9112. Pure.

use serde::Serialize;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// RFC 9110, 15.
    pub(crate) status: u16,
    /// JSON, or nothing.
    pub(crate) body: Vec<u8>,
}

/// How the client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// The connection stays open for another request.
    pub(super) keep_alive: bool,
    /// It takes chunks (HTTP/1.1).
    pub(super) chunked: bool,
    /// It asks for another protocol on the connection.
    pub(super) upgrade: bool,
}

/// What a refusal says.
#[derive(Serialize)]
struct Refusal<'a> {
    message: &'a str,
}

impl Response {
    /// It was done; `body` tells.
    #[must_use]
    pub(crate) fn json(body: &impl Serialize) -> Self {
        Self::with(200, body)
    }

    /// It cannot be done.
    #[must_use]
    pub(crate) fn refusal(status: u16, message: &str) -> Self {
        Self::with(status, &Refusal { message })
    }

    fn with(status: u16, body: &impl Serialize) -> Self {
        let mut body = serde_json::to_vec(body).expect("the keys are strings and the numbers finite");
        body.push(b'\n');
        Self { status, body }
    }

    /// As it goes over the connection.
    pub(super) fn to_bytes(&self, form: Form) -> Vec<u8> {
        let connection = if form.keep_alive { "" } else { "Connection: close\r\n" };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{connection}\r\n",
            self.status,
            reason(self.status),
            self.body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The head of an answer whose end is not known yet.
pub(super) fn stream_head(content_type: &str, form: Form) -> Vec<u8> {
    let framing = if form.chunked { "Transfer-Encoding: chunked" } else { "Connection: close" };
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n").into_bytes()
}

/// Most bytes that a chunk takes besides its own.
pub(super) const CHUNK_BYTES: usize = 16 + 4;

/// `bytes` as a chunk; none at all are the end.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The head after which the connection is the client's and ours to use as agreed.
pub(super) fn upgrade_head(content_type: &str) -> Vec<u8> {
    let fields = "Connection: Upgrade\r\nUpgrade: tcp";
    format!("HTTP/1.1 101 Switching Protocols\r\nContent-Type: {content_type}\r\n{fields}\r\n\r\n").into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_and_whether_more_may_follow() {
        let form = Form { keep_alive: false, chunked: true, upgrade: false };
        let text = String::from_utf8(Response::refusal(404, "no such path").to_bytes(form)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"message\":\"no such path\"}\n");
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && head.ends_with("Connection: close"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn chunks_have_their_length_in_front_and_the_last_is_empty() {
        assert_eq!(chunk(&[b'x'; 17]), [b"11\r\n", &[b'x'; 17][..], b"\r\n"].concat());
        assert_eq!(chunk(b""), b"0\r\n\r\n");
    }
}
