// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HTTP/1.1 messages as bytes: one request from what a client sent, within limits, and the response.
//! RFC 9112. Pure.
//!
//! Not supported: transfer codings of a request, trailers, `Expect` (the server just waits for the
//! body).

use serde::Serialize;

pub(super) const MAX_HEAD_SIZE: usize = 8 << 10;
pub(super) const MAX_BODY_SIZE: usize = 64 << 10;
const MAX_FIELDS: usize = 64;
/// Bound of what [`chunk`] adds to its payload.
pub(super) const CHUNK_OVERHEAD: usize = 16 + 4;

/// A complete request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// After the `?`.
    pub(super) query: String,
    pub(super) body: Vec<u8>,
    pub(super) form: Form,
}

/// How the client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// The connection stays open for another request.
    pub(super) keep_alive: bool,
    /// The client decodes chunks (HTTP/1.1).
    pub(super) chunked: bool,
    /// The client asks for another protocol on the connection.
    pub(super) upgrade: bool,
}

/// What the bytes of a client begin with.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A request of so many bytes.
    Request(Request, usize),
    Partial,
    /// An invalid request. Where the next one would begin is unknown.
    Invalid(Response),
}

/// A complete response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// RFC 9110, 15.
    pub(crate) status: u16,
    /// JSON, or empty.
    pub(crate) body: Vec<u8>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let head_length = match head.parse(&bytes[..bytes.len().min(MAX_HEAD_SIZE)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_SIZE => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Invalid(Response::error(431, "request head too long: the limit is 8 KiB and 64 fields"));
        }
        Err(error) => return Parsed::Invalid(Response::error(400, &format!("invalid HTTP request: {error}"))),
    };
    let body_length = match body_length(head.headers) {
        Ok(length) => length,
        Err(response) => return Parsed::Invalid(response),
    };
    let Some(body) = bytes[head_length..].get(..body_length) else { return Parsed::Partial };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let newer = head.version == Some(1);
    let connection = |option| has_option(head.headers, "connection", option);
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: body.to_vec(),
        form: Form {
            keep_alive: if newer { !connection("close") } else { connection("keep-alive") },
            chunked: newer,
            upgrade: newer && connection("upgrade") && has_option(head.headers, "upgrade", "tcp"),
        },
    };
    Parsed::Request(request, head_length + body_length)
}

fn body_length(fields: &[httparse::Header<'_>]) -> Result<usize, Response> {
    if fields.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding")) {
        return Err(Response::error(411, "Transfer-Encoding is not supported: send Content-Length"));
    }
    let mut lengths = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-length"));
    let (first, second) = (lengths.next(), lengths.next());
    let Some(field) = first else { return Ok(0) };
    let digits = std::str::from_utf8(field.value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<u64>().ok()) {
        // Two readers that take different ones would see different requests (RFC 9112, 6.3).
        _ if second.is_some() => Err(Response::error(400, "Content-Length given twice")),
        None => Err(Response::error(400, "Content-Length: not a number")),
        Some(length) if length > MAX_BODY_SIZE as u64 => {
            Err(Response::error(413, "request body too long: the limit is 64 KiB"))
        }
        Some(length) => Ok(length as usize),
    }
}

/// Whether the comma-separated list of a field has `option`.
fn has_option(fields: &[httparse::Header<'_>], name: &str, option: &str) -> bool {
    let lists = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let lists = lists.filter_map(|field| std::str::from_utf8(field.value).ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(option))
}

impl Response {
    #[must_use]
    pub(crate) fn json(body: &impl Serialize) -> Self {
        Self::with(200, body)
    }

    #[must_use]
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::with(status, &ErrorBody { message })
    }

    fn with(status: u16, body: &impl Serialize) -> Self {
        let mut body = serde_json::to_vec(body).expect("keys are strings, numbers are finite");
        body.push(b'\n');
        Self { status, body }
    }

    pub(super) fn to_bytes(&self, keep_alive: bool) -> Vec<u8> {
        let connection = if keep_alive { "" } else { "Connection: close\r\n" };
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

/// The head of a response whose end is not known yet.
pub(super) fn stream_head(content_type: &str, chunked: bool) -> Vec<u8> {
    let framing = if chunked { "Transfer-Encoding: chunked" } else { "Connection: close" };
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n").into_bytes()
}

/// `bytes` as a chunk; an empty one is the end.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The head after which the connection carries frames in both directions.
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
#[path = "http_tests.rs"]
mod tests;
