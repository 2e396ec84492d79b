// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests and answers of the metadata service, and its session tokens: bytes in, bytes out, no I/O.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /latest/api/token` with `X-aws-ec2-metadata-token-ttl-seconds: 1..21600` | a token |
//! | `GET PATH` with `X-aws-ec2-metadata-token: TOKEN` | the text at PATH; JSON with `Accept: application/json` |
//!
//! A request without a valid token gets 401: there is no version without tokens, so that a server in the guest that can be made
//! to fetch a URL gives nothing away. Each connection has one request.

use super::document::Document;
use crate::host::random::random_hex;
use httparse::{EMPTY_HEADER, Header, Status};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Of a request, which has no body.
pub(super) const MAX_HEAD_BYTES: usize = 4 << 10;
const MAX_FIELDS: usize = 32;
/// The oldest is forgotten for a new one.
const MAX_TOKENS: usize = 256;
/// 256 bits.
const TOKEN_DIGITS: usize = 64;
const MAX_TOKEN_SECONDS: u64 = 6 * 60 * 60;
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_FIELD: &str = "X-aws-ec2-metadata-token";
const TTL_FIELD: &str = "X-aws-ec2-metadata-token-ttl-seconds";

/// The service of one machine.
#[derive(Debug)]
pub(super) struct Service {
    document: Document,
    /// With the moment at which each becomes invalid.
    tokens: VecDeque<(String, Instant)>,
}

/// Status (RFC 9110, 15), further fields, and the body.
struct Answer {
    status: (u16, &'static str),
    fields: String,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn error(code: u16, reason: &'static str) -> Self {
        Self { status: (code, reason), fields: String::new(), content_type: "text/plain", body: format!("{reason}\n") }
    }

    fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: (200, "OK"), fields: String::new(), content_type, body }
    }

    fn bytes(self, with_body: bool) -> Vec<u8> {
        let Self { status: (code, reason), fields, content_type, body } = self;
        let length = body.len();
        let shown = if with_body { &*body } else { "" };
        format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n{fields}\r\n{shown}"
        )
        .into_bytes()
    }
}

impl Service {
    pub(super) fn new(document: Document) -> Self {
        Self { document, tokens: VecDeque::new() }
    }

    /// Answers the request that `bytes` begin with. `None` if it is not complete.
    pub(super) fn answer(&mut self, bytes: &[u8], now: Instant) -> Option<Vec<u8>> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        match head.parse(bytes) {
            Ok(Status::Complete(_)) => {}
            Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return None,
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Some(Answer::error(431, "Request Header Fields Too Large").bytes(true));
            }
            Err(_) => return Some(Answer::error(400, "Bad Request").bytes(true)),
        }
        let (method, target) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
        // A client may name the host before the path (RFC 9112, 3.2.2).
        let path = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
        let path = path.split('?').next().unwrap_or_default();
        let answer = match method {
            "PUT" if path.trim_end_matches('/') == TOKEN_PATH => self.new_token(head.headers, now),
            "GET" | "HEAD" => self.get(path, head.headers, now),
            _ => Answer { fields: "Allow: GET, HEAD\r\n".to_owned(), ..Answer::error(405, "Method Not Allowed") },
        };
        Some(answer.bytes(method != "HEAD"))
    }

    fn new_token(&mut self, fields: &[Header<'_>], now: Instant) -> Answer {
        // Sent by way of a proxy in the guest, for a client elsewhere.
        if field(fields, "X-Forwarded-For").is_some() {
            return Answer::error(403, "Forbidden");
        }
        let seconds = field(fields, TTL_FIELD).and_then(|text| text.parse().ok());
        let Some(seconds) = seconds.filter(|seconds| (1..=MAX_TOKEN_SECONDS).contains(seconds)) else {
            return Answer::error(400, "Bad Request");
        };
        let Ok(token) = random_hex(TOKEN_DIGITS) else { return Answer::error(503, "Service Unavailable") };
        self.tokens.retain(|(_, end)| *end > now);
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.pop_front();
        }
        self.tokens.push_back((token.clone(), now + Duration::from_secs(seconds)));
        Answer { fields: format!("{TTL_FIELD}: {seconds}\r\n"), ..Answer::ok("text/plain", token) }
    }

    fn get(&self, path: &str, fields: &[Header<'_>], now: Instant) -> Answer {
        let given = field(fields, TOKEN_FIELD);
        if !self.tokens.iter().any(|(token, end)| *end > now && given == Some(&**token)) {
            return Answer::error(401, "Unauthorized");
        }
        let wants_json = field(fields, "Accept").is_some_and(|accepted| accepted.contains("application/json"));
        let found = if wants_json { self.document.json(path) } else { self.document.text(path) };
        match found {
            Some(body) => Answer::ok(if wants_json { "application/json" } else { "text/plain" }, body),
            None => Answer::error(404, "Not Found"),
        }
    }
}

fn field<'a>(fields: &[Header<'a>], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    str::from_utf8(found.value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service::new(Document::parse(br#"{"latest": {"meta-data": {"instance-id": "i-1"}}}"#).unwrap())
    }

    fn text(service: &mut Service, request: &str, now: Instant) -> String {
        String::from_utf8(service.answer(request.as_bytes(), now).expect(request)).unwrap()
    }

    fn token(service: &mut Service, seconds: u32, now: Instant) -> String {
        let request =
            format!("PUT /latest/api/token HTTP/1.1\r\nx-aws-ec2-metadata-TOKEN-ttl-seconds: {seconds}\r\n\r\n");
        let answer = text(service, &request, now);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(&format!("{TTL_FIELD}: {seconds}\r\n")));
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_token_opens_the_document_until_its_end() {
        let (mut service, now) = (service(), Instant::now());
        let token = token(&mut service, 60, now);
        let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\n{TOKEN_FIELD}: {token}\r\n{more}\r\n");
        let answer = text(&mut service, &get("/latest/meta-data/instance-id", ""), now);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\ni-1"), "{answer}");
        assert!(answer.contains("Content-Length: 3\r\n"));
        let json = text(&mut service, &get("/latest?a=b", "Accept: application/json\r\n"), now);
        assert!(json.ends_with("\r\n\r\n{\"meta-data\":{\"instance-id\":\"i-1\"}}"), "{json}");
        assert!(text(&mut service, &get("http://169.254.169.254/latest", ""), now).ends_with("meta-data/"));
        assert!(text(&mut service, &get("/absent", ""), now).starts_with("HTTP/1.1 404"));
        let head = get("/latest", "").replacen("GET", "HEAD", 1);
        assert!(text(&mut service, &head, now).ends_with("\r\n\r\n"));
        let late = now + Duration::from_secs(60);
        assert!(text(&mut service, &get("/latest", ""), late).starts_with("HTTP/1.1 401"));
    }

    #[test]
    fn requests_get_the_status_of_their_fault() {
        let (mut service, now) = (service(), Instant::now());
        for (request, status) in [
            ("GET /latest HTTP/1.1\r\n\r\n", 401),
            ("GET /latest HTTP/1.1\r\nX-aws-ec2-metadata-token: 00\r\n\r\n", 401),
            ("PUT /latest/api/token HTTP/1.1\r\n\r\n", 400),
            ("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 0\r\n\r\n", 400),
            ("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 21601\r\n\r\n", 400),
            ("PUT /latest/api/token HTTP/1.1\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n", 403),
            ("PUT /latest HTTP/1.1\r\n\r\n", 405),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
            ("\u{1}\u{2}\r\n\r\n", 400),
            (&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(33)), 431),
            (&format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD_BYTES)), 431),
        ] {
            let answer = text(&mut service, request, now);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        for partial in ["", "G", "GET / HTTP/1.1\r\na: b\r\n"] {
            assert_eq!(service.answer(partial.as_bytes(), now), None);
        }
    }

    #[test]
    fn tokens_are_bounded_and_differ() {
        let (mut service, now) = (service(), Instant::now());
        let first = token(&mut service, 60, now);
        assert_eq!(first.len(), 64);
        for _ in 0..MAX_TOKENS {
            assert_ne!(token(&mut service, 60, now), first);
        }
        assert_eq!(service.tokens.len(), MAX_TOKENS);
        let request = format!("GET / HTTP/1.1\r\n{TOKEN_FIELD}: {first}\r\n\r\n");
        assert!(text(&mut service, &request, now).starts_with("HTTP/1.1 401"));
    }
}
