// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Logs as docker's frames: which records a client wants, and what becomes of them, a bounded piece at a time. Used by `main`'s
//! event loop.
//!
//! `tail` is found in a first pass, which keeps no more than the times of so many lines.

use crate::api::frame;
use crate::api::server::LogsQuery;
use crate::config::rfc3339;
use crate::state::logs::LogReader;
use crate::state::logs::{Record, Stream};
use std::collections::VecDeque;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of records that are read at once, give or take one.
const PIECE: usize = 32 << 10;
/// What a record has in its file besides its text, at least.
const RECORD_BYTES: usize = 40;
/// Most bytes of one [`Next::Frames`].
pub(crate) const MOST: usize = 2 * PIECE;

/// A place in the logs, and what is wanted of them.
#[derive(Debug)]
pub(crate) struct LogFrames {
    reader: LogReader,
    wanted: LogsQuery,
    tail: Option<Tail>,
    /// Of standard output and standard error: the last record had no line end.
    in_line: [bool; 2],
}

/// What a look into the logs gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Frames; there may be more at once.
    Frames(Vec<u8>),
    /// Nothing wanted so far; there may be more at once.
    More,
    /// Nothing until something is written.
    Later,
    /// There will be nothing more.
    End,
}

/// The first pass.
#[derive(Debug)]
struct Tail {
    entry: PathBuf,
    lines: usize,
    /// When the last lines were begun.
    begun: VecDeque<SystemTime>,
}

impl LogFrames {
    /// What `wanted` says of the logs in `entry`.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(crate) fn open(entry: &Path, mut wanted: LogsQuery) -> Result<Self> {
        if !wanted.follow {
            // A workload that writes faster than its log is read would never come to an end.
            wanted.until = wanted.until.into_iter().chain([SystemTime::now()]).min();
        }
        let reader = match wanted.tail {
            Some(0) => LogReader::at_end(entry)?,
            _ => LogReader::open(entry)?,
        };
        let lines = wanted.tail.filter(|lines| *lines > 0);
        let tail = lines.map(|lines| Tail { entry: entry.to_owned(), lines, begun: VecDeque::new() });
        Ok(Self { reader, wanted, tail, in_line: [false; 2] })
    }

    /// Everything that is written from now on.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(crate) fn from_now(entry: &Path) -> Result<Self> {
        let wanted = LogsQuery {
            follow: true,
            stdout: true,
            stderr: true,
            timestamps: false,
            since: None,
            until: None,
            tail: Some(0),
        };
        Self::open(entry, wanted)
    }

    /// Looks at the next piece.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Next> {
        let mut gathered = Gathered::default();
        let mut read = 0;
        while read < PIECE {
            let record = self.reader.next()?;
            let Some(record) = record.filter(|record| self.wanted.until.is_none_or(|until| record.time <= until))
            else {
                return match self.tail.take() {
                    Some(tail) => self.begin_again(&tail),
                    None if !gathered.is_empty() => Ok(Next::Frames(gathered.into_frames())),
                    None if self.wanted.follow => Ok(Next::Later),
                    None => Ok(Next::End),
                };
            };
            read += RECORD_BYTES + record.text.len();
            if self.is_wanted(&record) {
                let in_line = std::mem::replace(&mut self.in_line[index(record.stream)], !record.full);
                match &mut self.tail {
                    Some(tail) if !in_line => tail.begin_line(record.time),
                    Some(_) => {}
                    None => gathered.add(&record, self.wanted.timestamps && !in_line),
                }
            }
        }
        Ok(if gathered.is_empty() { Next::More } else { Next::Frames(gathered.into_frames()) })
    }

    /// Whether records between those that were read may be missing.
    pub(crate) fn fell_behind(&self) -> bool {
        self.reader.fell_behind()
    }

    fn is_wanted(&self, record: &Record) -> bool {
        let stream = match record.stream {
            Stream::Stdout => self.wanted.stdout,
            Stream::Stderr => self.wanted.stderr,
        };
        stream && self.wanted.since.is_none_or(|since| record.time >= since)
    }

    /// The second pass: it is known where to begin.
    fn begin_again(&mut self, tail: &Tail) -> Result<Next> {
        self.reader = LogReader::open(&tail.entry)?;
        self.in_line = [false; 2];
        self.wanted.since = tail.begun.front().copied().or(self.wanted.since);
        Ok(Next::More)
    }
}

impl Tail {
    fn begin_line(&mut self, time: SystemTime) {
        if self.begun.len() == self.lines {
            self.begun.pop_front();
        }
        self.begun.push_back(time);
    }
}

/// Records of one stream after the other as frames, as few as possible.
#[derive(Debug, Default)]
struct Gathered {
    frames: Vec<u8>,
    stream: u8,
    bytes: Vec<u8>,
}

impl Gathered {
    fn add(&mut self, record: &Record, timestamp: bool) {
        let stream = match record.stream {
            Stream::Stdout => frame::STDOUT,
            Stream::Stderr => frame::STDERR,
        };
        if stream != self.stream {
            self.close_frame();
            self.stream = stream;
        }
        if timestamp {
            self.bytes.extend_from_slice(rfc3339::format(record.time).as_bytes());
            self.bytes.push(b' ');
        }
        self.bytes.extend(record.bytes());
    }

    fn close_frame(&mut self) {
        if !self.bytes.is_empty() {
            self.frames.extend(frame::encode(self.stream, &std::mem::take(&mut self.bytes)));
        }
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.bytes.is_empty()
    }

    fn into_frames(mut self) -> Vec<u8> {
        self.close_frame();
        self.frames
    }
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

#[cfg(test)]
#[path = "log_frames_tests.rs"]
mod tests;
