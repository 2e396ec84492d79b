// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One connection: what came, what goes, and how long either may take. All buffers are bounded, and nothing waits. Used by
//! `main`'s event loop.

use super::head::{self, BODY_BYTES, HEAD_BYTES, Request, Taken};
use super::response::{self, Form, Response};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::EventSet;

/// From the end of one answer, or the connection's begin, to the end of the next request.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is for it.
pub(super) const TAKE_TIME: Duration = Duration::from_secs(30);
/// Bytes read at once, so that one client does not hold up the others.
const STEP: usize = 16 << 10;
/// Most bytes that wait for a client to take them.
pub(super) const QUEUE_BYTES: usize = 256 << 10;

/// What the connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request is awaited.
    Request,
    /// One is being done.
    Answer(Form),
    /// Its answer goes on.
    Stream(Form),
    /// Bytes either way as agreed. The flag: input is welcome.
    Upgraded(bool),
    /// The rest is written, then it is over.
    Closing,
}

/// What reading gave.
#[derive(Debug)]
pub(super) enum Input {
    /// A request.
    Request(Request),
    /// Bytes after an upgrade.
    Data(Vec<u8>),
    /// The client sends no more after an upgrade.
    End,
    /// Nothing for now.
    Nothing,
    /// The connection is over.
    Gone,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    phase: Phase,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// The last write left something.
    full: bool,
    input_ended: bool,
    /// The input holds what was read together with a request that is answered now.
    read_ahead: bool,
    deadline: Option<Instant>,
    registered: Option<EventSet>,
}

impl Client {
    /// `stream` does not block.
    pub(super) fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            phase: Phase::Request,
            input: Vec::new(),
            output: VecDeque::new(),
            full: false,
            input_ended: false,
            read_ahead: false,
            deadline: Some(now + REQUEST_TIME),
            registered: None,
        }
    }

    /// When it is too late for what is awaited of the client.
    /// None after an upgrade: what waits is bounded then, and its reader may be a person.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| !matches!(self.phase, Phase::Upgraded(_)))
    }

    /// What to wait for from now on, if that changed. That the other end is gone is always told.
    pub(super) fn new_interest(&mut self) -> Option<EventSet> {
        let interest = self.interest();
        (self.registered.replace(interest) != Some(interest)).then_some(interest)
    }

    /// Whether something may be there that came together with the last request.
    pub(super) fn has_read_ahead(&self) -> bool {
        !self.input.is_empty()
            && (self.phase == Phase::Request && self.read_ahead || self.phase == Phase::Upgraded(true))
    }

    fn interest(&self) -> EventSet {
        let read = match self.phase {
            Phase::Request => true,
            Phase::Upgraded(welcome) => welcome && !self.input_ended,
            Phase::Answer(_) | Phase::Stream(_) | Phase::Closing => false,
        };
        let mut interest = EventSet::empty();
        interest.set(EventSet::IN, read);
        interest.set(EventSet::OUT, !self.output.is_empty());
        interest
    }

    /// Whether all is written and nothing else is to come.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Closing && self.output.is_empty()
    }

    /// Takes the next piece of what the client sent.
    pub(super) fn read(&mut self, now: Instant) -> Input {
        match self.phase {
            Phase::Request => {}
            Phase::Upgraded(true) if !self.input_ended => return self.read_upgraded(),
            _ => return Input::Nothing,
        }
        // What is there may hold a request already, behind the one before.
        self.read_ahead = false;
        let taken = self.take_request(now);
        if !matches!(taken, Input::Nothing) || self.phase != Phase::Request {
            return taken;
        }
        match self.fill() {
            Ok(0) => Input::Gone,
            Ok(_) => self.take_request(now),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Nothing,
            Err(_) => Input::Gone,
        }
    }

    fn take_request(&mut self, now: Instant) -> Input {
        match head::take(&self.input) {
            _ if self.input.is_empty() => Input::Nothing,
            Taken::Partial => Input::Nothing,
            Taken::Request(request, length) => {
                self.input.drain(..length);
                self.read_ahead = !self.input.is_empty();
                if !self.read_ahead {
                    self.input = Vec::new();
                }
                (self.phase, self.deadline) = (Phase::Answer(request.form), None);
                Input::Request(request)
            }
            Taken::Refused(response) => {
                self.close_with(&response, now);
                Input::Nothing
            }
        }
    }

    fn read_upgraded(&mut self) -> Input {
        if self.input.is_empty() {
            match self.fill() {
                Ok(0) => {
                    self.input_ended = true;
                    return Input::End;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Input::Nothing,
                Err(_) => return Input::Gone,
            }
        }
        Input::Data(std::mem::take(&mut self.input))
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; STEP];
        let room = (HEAD_BYTES + BODY_BYTES).saturating_sub(self.input.len()).clamp(1, STEP);
        let length = loop {
            match self.stream.read(&mut bytes[..room]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.input.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Answers the request that is being done. Nothing if there is none.
    pub(super) fn answer(&mut self, response: &Response, now: Instant) {
        let Phase::Answer(form) = self.phase else { return };
        self.queue(&response.to_bytes(form), now);
        (self.phase, self.deadline) = match form.keep_alive {
            true => (Phase::Request, Some(now + REQUEST_TIME)),
            false => (Phase::Closing, self.deadline),
        };
    }

    /// Answers, and ends the connection.
    pub(super) fn close_with(&mut self, response: &Response, now: Instant) {
        self.phase = Phase::Closing;
        self.input = Vec::new();
        self.queue(&response.to_bytes(Form { keep_alive: false, chunked: true, upgrade: false }), now);
    }

    /// Begins an answer without a known end.
    pub(super) fn begin_stream(&mut self, content_type: &str, now: Instant) {
        if let Phase::Answer(form) = self.phase {
            self.phase = Phase::Stream(form);
            self.queue(&response::stream_head(content_type, form), now);
        }
    }

    /// Goes on with it. A client that is too slow for it is given up.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Result<(), TooSlow> {
        let Phase::Stream(form) = self.phase else { return Ok(()) };
        let bytes = if form.chunked { response::chunk(bytes) } else { bytes.to_vec() };
        if self.output.len() + bytes.len() > QUEUE_BYTES {
            return Err(TooSlow);
        }
        self.queue(&bytes, now);
        Ok(())
    }

    /// Ends it.
    pub(super) fn end_stream(&mut self, now: Instant) {
        let Phase::Stream(form) = self.phase else { return };
        if form.chunked {
            self.queue(&response::chunk(b""), now);
        }
        self.phase = Phase::Closing;
    }

    /// The connection is for bytes either way from now on.
    pub(super) fn upgrade(&mut self, content_type: &str, now: Instant) {
        if matches!(self.phase, Phase::Answer(_)) {
            self.phase = Phase::Upgraded(true);
            self.queue(&response::upgrade_head(content_type), now);
        }
    }

    /// Whether bytes of the client are welcome after an upgrade.
    pub(super) fn welcome_input(&mut self, welcome: bool) {
        if let Phase::Upgraded(now) = &mut self.phase {
            *now = welcome;
        }
    }

    /// Room for bytes to the client in a stream or after an upgrade.
    pub(super) fn room(&self) -> usize {
        match self.phase {
            Phase::Upgraded(_) => QUEUE_BYTES.saturating_sub(self.output.len()),
            Phase::Stream(_) => QUEUE_BYTES.saturating_sub(self.output.len() + response::CHUNK_BYTES),
            _ => 0,
        }
    }

    /// Sends `bytes`, of which there are no more than [`room`](Self::room).
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant) {
        if matches!(self.phase, Phase::Upgraded(_)) {
            self.queue(bytes, now);
        }
    }

    /// Writes the rest and ends the connection.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closing;
        self.deadline = Some(Instant::now() + TAKE_TIME);
    }

    fn queue(&mut self, bytes: &[u8], now: Instant) {
        if self.output.is_empty() {
            self.deadline = Some(now + TAKE_TIME);
        }
        self.output.extend(bytes);
    }

    /// Writes what the client takes. Whether one with a stream or an upgrade has taken something that had to wait.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn write(&mut self, now: Instant) -> std::io::Result<bool> {
        let before = self.output.len();
        let was_full = std::mem::replace(&mut self.full, false);
        while !self.output.is_empty() {
            match self.stream.write(self.output.as_slices().0) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.output.len() < before {
            let waits_for_request = self.phase == Phase::Request;
            self.deadline = match self.output.is_empty() {
                true if waits_for_request => Some(now + REQUEST_TIME),
                true => {
                    self.output = VecDeque::new();
                    None
                }
                false => Some(now + TAKE_TIME),
            };
        }
        self.full = !self.output.is_empty();
        let goes_on = matches!(self.phase, Phase::Upgraded(_) | Phase::Stream(_));
        Ok(goes_on && was_full && self.output.len() < before)
    }

    /// Whether it is awaited that the client completes a request, which can be refused in words.
    pub(super) fn is_in_request(&self) -> bool {
        self.phase == Phase::Request && !self.input.is_empty() && self.output.is_empty()
    }
}

/// A client does not take what it asked for.
#[derive(Debug)]
pub(super) struct TooSlow;

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
