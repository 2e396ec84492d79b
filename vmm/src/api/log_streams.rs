// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket that get the output of a detached workload: `GET /v1/logs`, and the half of `POST /v1/attach`
//! that leads to the client. Part of `main`'s event loop.
//!
//! The log is the buffer between the workload and all of them: a client costs its place in it and what the socket has not
//! taken, however slow it is. One that is so slow that the log was rotated twice meanwhile is cut, and told.

use super::frame::{self, Over};
use super::log_frames::{LogFrames, MOST as FRAMES_MOST, Next};
use super::server::{ClientId, LogsQuery, Server};
use crate::state::end::{End, STATUS_FAILED};
use crate::state::logs::LogNotifier;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Kept free for the last word.
const LAST_WORD: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct LogStreams {
    entry: PathBuf,
    bell: Arc<LogNotifier>,
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
    /// Something may be there to read.
    Ready,
    /// Nothing was, before the bell rings.
    Quiet,
    /// The client has had its last word, and takes it.
    Over,
}

impl LogStreams {
    /// Of the run whose entry this is and whose logs ring `bell`.
    pub(super) fn new(entry: &Path, bell: Arc<LogNotifier>) -> Self {
        Self { entry: entry.to_owned(), bell, streams: Vec::new() }
    }

    pub(super) fn bell(&self) -> &LogNotifier {
        &self.bell
    }

    /// Begins to send what is `wanted` to a client that was answered.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn open(&mut self, client: ClientId, wanted: LogsQuery) -> Result<()> {
        let frames = LogFrames::open(&self.entry, wanted)?;
        self.streams.push(LogStream { client, frames, attached: false, state: State::Ready });
        Ok(())
    }

    /// Begins to send what is written from now on.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn attach(&mut self, client: ClientId) -> Result<()> {
        let frames = LogFrames::from_now(&self.entry)?;
        self.streams.push(LogStream { client, frames, attached: true, state: State::Ready });
        Ok(())
    }

    /// A client is gone.
    pub(super) fn remove(&mut self, client: ClientId) {
        self.streams.retain(|stream| stream.client != client);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Sends each client a piece of what there is for it. `end` is how the run ended, once it has: then all is written.
    pub(super) fn serve(&mut self, server: &mut Server, end: Option<&End>) {
        // Whoever has to take something first stirs by himself.
        self.bell.arm(self.streams.iter().any(|stream| stream.state != State::Over && stream.has_room(server)));
        for stream in &mut self.streams {
            stream.serve(server, end);
        }
    }

    /// Whether [`serve`](Self::serve) has something to do at once. Where a client has to take something first, the socket
    /// will tell.
    pub(super) fn is_ready(&self, server: &Server) -> bool {
        self.streams.iter().any(|stream| stream.state == State::Ready && stream.has_room(server))
    }
}

impl LogStream {
    fn has_room(&self, server: &Server) -> bool {
        server.room(self.client) >= FRAMES_MOST + LAST_WORD
    }

    fn serve(&mut self, server: &mut Server, end: Option<&End>) {
        if self.state == State::Over || !self.has_room(server) {
            return;
        }
        let next = self.frames.next();
        if self.frames.fell_behind() {
            self.cut(server, "output is missing: the log was rotated twice before this client took what was in it");
            return;
        }
        match (next, end) {
            (Ok(Next::Frames(frames)), _) => {
                self.state = State::Ready;
                self.send(server, &frames);
            }
            (Ok(Next::More), _) => self.state = State::Ready,
            (Ok(Next::Later), None) => self.state = State::Quiet,
            (Ok(Next::Later), Some(end)) if self.attached => self.finish(server, &over(end)),
            (Ok(Next::Later | Next::End), _) => self.close(server),
            (Err(error), _) => self.cut(server, &format!("the log cannot be read: {error}")),
        }
    }

    fn send(&self, server: &mut Server, frames: &[u8]) {
        match self.attached {
            true => server.send(self.client, frames),
            false => server.push(self.client, frames),
        }
    }

    /// The client gets no more, and is told why.
    fn cut(&mut self, server: &mut Server, message: &str) {
        self.finish(server, &Over { status: STATUS_FAILED, signal: None, message: Some(message.to_owned()) });
    }

    fn finish(&mut self, server: &mut Server, over: &Over) {
        self.send(server, &frame::encode_json(over));
        self.close(server);
    }

    fn close(&mut self, server: &mut Server) {
        self.state = State::Over;
        match self.attached {
            true => server.close(self.client),
            false => server.end_stream(self.client),
        }
    }
}

/// What `run` itself would have said in the foreground.
fn over(end: &End) -> Over {
    let message = end.is_printed().then(|| end.summary().to_owned());
    Over { status: end.status, signal: end.signal, message }
}
