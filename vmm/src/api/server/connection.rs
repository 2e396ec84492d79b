// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One HTTP/1.1 connection of a client (RFC 9112): requests and responses as bytes, phases, buffers,
//! deadlines. All buffers are bounded, no call waits. Used by `main`'s event loop.
//!
//! Not supported: transfer codings of a request, trailers, `Expect` (the server just waits for the
//! body).

use super::descriptors::{self, Descriptors};
use crate::api::frame::{self, ClientFrame, ClientFrameError, FrameReader};
use crate::api::outbox::{Outbox, OutboxFull};
use serde::Serialize;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::EventSet;

/// From the end of one response, or from the connection, to the end of the next request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Read in one turn, so that one client does not delay the others.
const READ_BUF_SIZE: usize = 16 << 10;

const MAX_HEAD_SIZE: usize = 8 << 10;
const MAX_BODY_SIZE: usize = 64 << 10;
const MAX_FIELDS: usize = 64;
/// Bound of what [`chunk`] adds to its payload.
const CHUNK_OVERHEAD: usize = 16 + 4;

/// An answer whose end is not known when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Lines of JSON to the client.
    Lines,
    /// Frames to the client.
    Frames,
    /// Frames in both directions: the connection is upgraded.
    Duplex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// After the `?`.
    pub(super) query: String,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Descriptors,
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
enum Parsed {
    /// A request of so many bytes.
    Request(Request, usize),
    Partial,
    /// An invalid request. Where the next one would begin is unknown.
    Invalid(Response),
}

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

/// What the connection is used for.
#[derive(Debug)]
enum Phase {
    /// A request is to come.
    Request,
    /// A response is owed.
    Response(Form),
    /// [`Channel::Lines`] or [`Channel::Frames`].
    Stream { chunked: bool },
    /// [`Channel::Duplex`].
    Duplex { frames: FrameReader, read_enabled: bool, input_ended: bool },
    /// The rest of the outbox is written, then the connection ends.
    Closing,
}

#[derive(Debug)]
pub(super) enum Received {
    Request(Request),
    /// Frames of a duplex channel, and what was wrong with the one after them.
    Frames(Vec<ClientFrame>, Option<ClientFrameError>),
    /// The client sends no more on a duplex channel.
    InputEnded,
    /// No complete request has arrived yet.
    Nothing,
    /// The client is gone.
    Gone,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// Received and not parsed.
    input: Vec<u8>,
    /// Received with `input`.
    descriptors: Vec<OwnedFd>,
    /// `input` may hold a complete request.
    has_pipelined: bool,
    outbox: Outbox,
    /// The last write left something in the outbox.
    was_blocked: bool,
    request_deadline: Instant,
    /// As last registered with epoll.
    interest: Option<EventSet>,
}

impl Connection {
    /// `stream` must not block.
    pub(super) fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            phase: Phase::Request,
            input: Vec::new(),
            descriptors: Vec::new(),
            has_pipelined: false,
            outbox: Outbox::default(),
            was_blocked: false,
            request_deadline: now + REQUEST_TIMEOUT,
            interest: None,
        }
    }

    /// When the client must have sent its request, or taken something. `None` for a duplex channel:
    /// what waits is bounded, and its reader may be a person.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Duplex { .. } => None,
            Phase::Request if self.outbox.is_empty() => Some(self.request_deadline),
            _ => self.outbox.deadline(),
        }
    }

    /// The events to wait for, if they changed. epoll always reports the end of the connection.
    pub(super) fn new_interest(&mut self) -> Option<EventSet> {
        let mut interest = EventSet::empty();
        interest.set(EventSet::IN, self.is_read());
        interest.set(EventSet::OUT, !self.outbox.is_empty());
        (self.interest.replace(interest) != Some(interest)).then_some(interest)
    }

    /// A client that does not take a response sends no further request: responses would pile up.
    fn is_read(&self) -> bool {
        match self.phase {
            Phase::Request => self.outbox.is_empty(),
            Phase::Duplex { read_enabled, input_ended, .. } => read_enabled && !input_ended,
            Phase::Response(_) | Phase::Stream { .. } | Phase::Closing => false,
        }
    }

    /// Whether [`read`](Self::read) has something to do although the socket may be empty: what came
    /// together with the last request.
    pub(super) fn has_unread_input(&self) -> bool {
        let is_complete = self.has_pipelined || matches!(self.phase, Phase::Duplex { .. });
        !self.input.is_empty() && is_complete && self.is_read()
    }

    /// Whether everything is written and nothing follows.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Closing) && self.outbox.is_empty()
    }

    /// Whether a request was begun and not completed, so that an error response is in order.
    pub(super) fn is_in_request(&self) -> bool {
        matches!(self.phase, Phase::Request) && !self.input.is_empty() && self.outbox.is_empty()
    }

    /// Reads once, and returns what is complete.
    pub(super) fn read(&mut self, now: Instant) -> Received {
        match self.phase {
            _ if !self.is_read() => Received::Nothing,
            Phase::Duplex { .. } => self.read_frames(),
            _ => self.read_request(now),
        }
    }

    fn read_request(&mut self, now: Instant) -> Received {
        if std::mem::take(&mut self.has_pipelined) {
            let parsed = self.parse_request(now);
            if !matches!(parsed, Received::Nothing) || !matches!(self.phase, Phase::Request) {
                return parsed;
            }
        }
        match self.fill() {
            Ok(0) => Received::Gone,
            Ok(_) => self.parse_request(now),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
            Err(_) => Received::Gone,
        }
    }

    fn parse_request(&mut self, now: Instant) -> Received {
        match parse(&self.input) {
            Parsed::Partial => Received::Nothing,
            Parsed::Request(mut request, length) => {
                request.descriptors = std::mem::take(&mut self.descriptors).into();
                self.input.drain(..length);
                self.has_pipelined = !self.input.is_empty();
                if !self.has_pipelined {
                    self.input = Vec::new();
                }
                self.phase = Phase::Response(request.form);
                Received::Request(request)
            }
            Parsed::Invalid(response) => {
                self.respond_and_close(&response, now);
                Received::Nothing
            }
        }
    }

    fn read_frames(&mut self) -> Received {
        if self.input.is_empty() {
            match self.fill() {
                Ok(0) => {
                    if let Phase::Duplex { input_ended, .. } = &mut self.phase {
                        *input_ended = true;
                    }
                    return Received::InputEnded;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(_) => return Received::Gone,
            }
        }
        // No frame has any.
        self.descriptors.clear();
        let Phase::Duplex { frames, .. } = &mut self.phase else { return Received::Nothing };
        frames.push(&std::mem::take(&mut self.input));
        let mut complete = Vec::new();
        loop {
            match frames.next_client_frame() {
                Ok(Some(frame)) => complete.push(frame),
                Ok(None) => return Received::Frames(complete, None),
                Err(error) => return Received::Frames(complete, Some(error)),
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ_BUF_SIZE];
        let room = (MAX_HEAD_SIZE + MAX_BODY_SIZE).saturating_sub(self.input.len()).clamp(1, READ_BUF_SIZE);
        let length = loop {
            match descriptors::receive(&self.stream, &mut bytes[..room], &mut self.descriptors) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.input.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Answers the request. Without one it does nothing.
    pub(super) fn respond(&mut self, response: &Response, now: Instant) -> Result<(), OutboxFull> {
        let Phase::Response(Form { keep_alive, .. }) = self.phase else { return Ok(()) };
        self.phase = if keep_alive { Phase::Request } else { Phase::Closing };
        self.request_deadline = now + REQUEST_TIMEOUT;
        self.outbox.push(&response.to_bytes(keep_alive), now)
    }

    /// Answers what is not a request, and ends the connection.
    pub(super) fn respond_and_close(&mut self, response: &Response, now: Instant) {
        self.phase = Phase::Closing;
        self.input = Vec::new();
        // Requests are read with an empty outbox only, so there is room.
        let _ = self.outbox.push(&response.to_bytes(false), now);
    }

    /// Answers the request with a channel. Without a request it does nothing.
    pub(super) fn open(&mut self, channel: Channel, now: Instant) -> Result<(), OutboxFull> {
        let Phase::Response(Form { chunked, .. }) = self.phase else { return Ok(()) };
        let (phase, head) = match channel {
            Channel::Lines => (Phase::Stream { chunked }, stream_head("application/x-ndjson", chunked)),
            Channel::Frames => (Phase::Stream { chunked }, stream_head(frame::CONTENT_TYPE, chunked)),
            Channel::Duplex => (
                Phase::Duplex { frames: FrameReader::default(), read_enabled: true, input_ended: false },
                upgrade_head(frame::CONTENT_TYPE),
            ),
        };
        self.phase = phase;
        self.outbox.push(&head, now)
    }

    /// Sends one frame, some of them, or a line. Without a channel it does nothing.
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant) -> Result<(), OutboxFull> {
        match self.phase {
            Phase::Stream { chunked: true } => self.outbox.push(&chunk(bytes), now),
            Phase::Stream { chunked: false } | Phase::Duplex { .. } => self.outbox.push(bytes, now),
            _ => Ok(()),
        }
    }

    /// Bytes that [`send`](Self::send) accepts now.
    pub(super) fn room(&self) -> usize {
        match self.phase {
            Phase::Stream { .. } => self.outbox.room().saturating_sub(CHUNK_OVERHEAD),
            Phase::Duplex { .. } => self.outbox.room(),
            _ => 0,
        }
    }

    /// Bytes that the client has not taken.
    pub(super) fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Whether a duplex channel is read.
    pub(super) fn set_read_enabled(&mut self, enabled: bool) {
        if let Phase::Duplex { read_enabled, .. } = &mut self.phase {
            *read_enabled = enabled;
        }
    }

    /// Ends a channel once everything is written.
    pub(super) fn close(&mut self, now: Instant) -> Result<(), OutboxFull> {
        let is_chunked = matches!(self.phase, Phase::Stream { chunked: true });
        self.phase = Phase::Closing;
        self.outbox.restart_deadline(now);
        if is_chunked { self.outbox.push(&chunk(b""), now) } else { Ok(()) }
    }

    /// Writes what the client takes. Whether a channel has room again that it lacked before.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn write(&mut self, now: Instant) -> io::Result<bool> {
        let written = self.outbox.write_to(&mut self.stream, now)?;
        if written > 0 && self.outbox.is_empty() {
            self.request_deadline = now + REQUEST_TIMEOUT;
        }
        let was_blocked = std::mem::replace(&mut self.was_blocked, !self.outbox.is_empty());
        let is_channel = matches!(self.phase, Phase::Stream { .. } | Phase::Duplex { .. });
        Ok(is_channel && was_blocked && written > 0)
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

fn parse(bytes: &[u8]) -> Parsed {
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
        descriptors: Descriptors::default(),
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
fn stream_head(content_type: &str, chunked: bool) -> Vec<u8> {
    let framing = if chunked { "Transfer-Encoding: chunked" } else { "Connection: close" };
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n").into_bytes()
}

/// `bytes` as a chunk; an empty one is the end.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The head after which the connection carries frames in both directions.
fn upgrade_head(content_type: &str) -> Vec<u8> {
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
#[path = "connection_tests.rs"]
mod tests;
