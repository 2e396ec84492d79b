// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket that get the output of a detached workload: `GET /v1/logs`, and
//! the output of `POST /v1/attach`. Part of `main`'s event loop.
//!
//! The log is the buffer between the workload and all clients. A client costs its position in the
//! log and its outbox, however slow it is. If the log is rotated twice before a client has read it,
//! output is lost: the client gets an error as its last frame.

use super::frame::{self, Exit};
use super::log_frames::{LogFrames, MAX_FRAMES_SIZE, Next};
use super::server::{ClientId, LogsQuery, Server};
use crate::state::end::{End, STATUS_FAILED};
use crate::state::logs::LogNotifier;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Kept free in the outbox for the last frame.
const EXIT_SIZE: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct LogStreams {
    entry: PathBuf,
    notifier: Arc<LogNotifier>,
    streams: Vec<LogStream>,
}

#[derive(Debug)]
struct LogStream {
    client: ClientId,
    frames: LogFrames,
    attached: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The log may have more.
    Ready,
    /// The log has nothing more until the notifier signals.
    Waiting,
    /// The channel is closed; its outbox drains.
    Closed,
}

impl LogStreams {
    /// Logs in `entry`, whose writers use `notifier`.
    pub(super) fn new(entry: &Path, notifier: Arc<LogNotifier>) -> Self {
        Self { entry: entry.to_owned(), notifier, streams: Vec::new() }
    }

    pub(super) fn notifier(&self) -> &LogNotifier {
        &self.notifier
    }

    /// Adds a client that gets what `query` selects. The caller opens its channel.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn open(&mut self, client: ClientId, query: LogsQuery) -> Result<()> {
        let frames = LogFrames::open(&self.entry, query)?;
        self.streams.push(LogStream { client, frames, attached: false, state: State::Ready });
        Ok(())
    }

    /// Adds a client that gets what is written from now on, and the exit. The caller opens its
    /// channel.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn attach(&mut self, client: ClientId) -> Result<()> {
        let frames = LogFrames::from_now(&self.entry)?;
        self.streams.push(LogStream { client, frames, attached: true, state: State::Ready });
        Ok(())
    }

    pub(super) fn remove(&mut self, client: ClientId) {
        self.streams.retain(|stream| stream.client != client);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Sends each client a bounded part of the log. With the `end` of the run, the log is complete.
    pub(super) fn serve(&mut self, server: &mut Server, end: Option<&End>) {
        // A client without room causes an event itself once it has taken something.
        let is_reading = |stream: &LogStream| stream.state != State::Closed && stream.has_room(server);
        self.notifier.arm(self.streams.iter().any(is_reading));
        for stream in &mut self.streams {
            stream.serve(server, end);
        }
    }

    /// Whether [`serve`](Self::serve) has something to do without an event.
    pub(super) fn is_ready(&self, server: &Server) -> bool {
        self.streams.iter().any(|stream| stream.state == State::Ready && stream.has_room(server))
    }
}

impl LogStream {
    fn has_room(&self, server: &Server) -> bool {
        server.room(self.client) >= MAX_FRAMES_SIZE + EXIT_SIZE
    }

    fn serve(&mut self, server: &mut Server, end: Option<&End>) {
        if self.state == State::Closed || !self.has_room(server) {
            return;
        }
        let next = self.frames.next();
        if self.frames.fell_behind() {
            return self.fail(server, "output is missing: the log was rotated twice before this client read it");
        }
        match (next, end) {
            (Ok(Next::Frames(frames)), _) => {
                self.state = State::Ready;
                server.send(self.client, &frames);
            }
            (Ok(Next::More), _) => self.state = State::Ready,
            (Ok(Next::Later), None) => self.state = State::Waiting,
            (Ok(Next::Later), Some(end)) if self.attached => {
                // The message that `run` prints in the foreground.
                let message = end.is_printed().then(|| end.summary().to_owned());
                self.close_with(server, &Exit { status: end.status, signal: end.signal, message });
            }
            (Ok(Next::Later | Next::End), _) => self.close(server),
            (Err(error), _) => self.fail(server, &format!("cannot read the logs: {error}")),
        }
    }

    fn fail(&mut self, server: &mut Server, message: &str) {
        self.close_with(server, &Exit { status: STATUS_FAILED, signal: None, message: Some(message.to_owned()) });
    }

    fn close_with(&mut self, server: &mut Server, exit: &Exit) {
        server.send(self.client, &frame::encode_json(exit));
        self.close(server);
    }

    fn close(&mut self, server: &mut Server) {
        self.state = State::Closed;
        server.close(self.client);
    }
}
