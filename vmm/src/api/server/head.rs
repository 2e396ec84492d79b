// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking one request off what a client sent: head and body within their limits, or the refusal. RFC 9112. Pure.
//!
//! Not supported: transfer codings of a request, trailers, `Expect` (the body is simply awaited).

use super::response::{Form, Response};

/// Longest head of a request.
pub(super) const HEAD_BYTES: usize = 8 << 10;
/// Longest body.
pub(super) const BODY_BYTES: usize = 64 << 10;
/// Most header fields.
const FIELDS: usize = 64;

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Behind the `?`.
    pub(super) query: String,
    pub(super) body: Vec<u8>,
    pub(super) form: Form,
}

/// What there is at the beginning of a client's bytes.
#[derive(Debug)]
pub(super) enum Taken {
    /// A request, and how many bytes it was.
    Request(Request, usize),
    /// Not all of one yet.
    Partial,
    /// None that can be answered otherwise; where the next one would begin is not known.
    Refused(Response),
}

/// Looks at `bytes`.
pub(super) fn take(bytes: &[u8]) -> Taken {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let head_length = match head.parse(&bytes[..bytes.len().min(HEAD_BYTES)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES => return Taken::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Taken::Refused(Response::refusal(431, "the head of the request is too long"));
        }
        Err(error) => return Taken::Refused(Response::refusal(400, &format!("this is no HTTP request: {error}"))),
    };
    let body_length = match body_length(head.headers) {
        Ok(length) => length,
        Err(refusal) => return Taken::Refused(refusal),
    };
    let Some(body) = bytes[head_length..].get(..body_length) else { return Taken::Partial };
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
    Taken::Request(request, head_length + body_length)
}

fn body_length(fields: &[httparse::Header<'_>]) -> Result<usize, Response> {
    if fields.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding")) {
        return Err(Response::refusal(411, "the length of the body has to be given"));
    }
    let mut lengths = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-length"));
    let (first, second) = (lengths.next(), lengths.next());
    let Some(field) = first else { return Ok(0) };
    let digits = std::str::from_utf8(field.value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<u64>().ok()) {
        // Two readers who take different ones would see different requests (RFC 9112, 6.3).
        _ if second.is_some() => Err(Response::refusal(400, "the length of the body is given twice")),
        None => Err(Response::refusal(400, "the length of the body is no number")),
        Some(length) if length > BODY_BYTES as u64 => Err(Response::refusal(413, "the body is too long")),
        Some(length) => Ok(length as usize),
    }
}

/// Whether the comma-separated list of a field has `option`.
fn has_option(fields: &[httparse::Header<'_>], name: &str, option: &str) -> bool {
    let lists = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let lists = lists.filter_map(|field| std::str::from_utf8(field.value).ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(option))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
