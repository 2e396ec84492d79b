// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Logs as frames: selects the records that a client wants, and encodes a bounded part at a time.
//! Used by `main`'s event loop.
//!
//! The start for `tail` is found in a first pass, which keeps the times of that many lines.

use crate::api::frame;
use crate::api::server::LogsQuery;
use crate::config::rfc3339;
use crate::state::logs::{LogReader, Record, Stream};
use std::collections::VecDeque;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of records that are read at once, give or take one record.
const READ_BUF_SIZE: usize = 32 << 10;
/// What a record has in its file besides its text, at least.
const RECORD_OVERHEAD: usize = 40;
/// Bound of one [`Next::Frames`].
pub(super) const MAX_FRAMES_SIZE: usize = 2 * READ_BUF_SIZE;

/// A position in the logs, and what is selected of them.
#[derive(Debug)]
pub(super) struct LogFrames {
    reader: LogReader,
    query: LogsQuery,
    tail: Option<TailSearch>,
    /// Of standard output and standard error: the last record had no line end.
    in_line: [bool; 2],
}

/// The result of one look into the logs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Encoded frames. There may be more at once.
    Frames(Vec<u8>),
    /// Nothing selected so far. There may be more at once.
    More,
    /// Nothing more until something is written.
    Later,
    End,
}

#[derive(Debug)]
struct TailSearch {
    entry: PathBuf,
    lines: usize,
    /// When the last lines began.
    begun: VecDeque<SystemTime>,
}

impl LogFrames {
    /// What `query` selects of the logs in `entry`.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn open(entry: &Path, mut query: LogsQuery) -> Result<Self> {
        if !query.follow {
            // Otherwise a workload that writes faster than its log is read would keep the client
            // for ever.
            query.until = query.until.into_iter().chain([SystemTime::now()]).min();
        }
        let reader = match query.tail {
            Some(0) => LogReader::at_end(entry)?,
            _ => LogReader::open(entry)?,
        };
        let lines = query.tail.filter(|lines| *lines > 0);
        let tail = lines.map(|lines| TailSearch { entry: entry.to_owned(), lines, begun: VecDeque::new() });
        Ok(Self { reader, query, tail, in_line: [false; 2] })
    }

    /// Everything that is written from now on.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(super) fn from_now(entry: &Path) -> Result<Self> {
        let query = LogsQuery {
            follow: true,
            stdout: true,
            stderr: true,
            timestamps: false,
            since: None,
            until: None,
            tail: Some(0),
        };
        Self::open(entry, query)
    }

    /// Reads and encodes the next part.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn next(&mut self) -> Result<Next> {
        let mut encoder = Encoder::default();
        let mut read = 0;
        while read < READ_BUF_SIZE {
            let record = self.reader.next()?;
            let Some(record) = record.filter(|record| self.query.until.is_none_or(|until| record.time <= until)) else {
                return match self.tail.take() {
                    Some(tail) => self.begin_second_pass(&tail),
                    None if !encoder.is_empty() => Ok(Next::Frames(encoder.into_frames())),
                    None if self.query.follow => Ok(Next::Later),
                    None => Ok(Next::End),
                };
            };
            read += RECORD_OVERHEAD + record.text.len();
            if self.is_selected(&record) {
                let in_line = std::mem::replace(&mut self.in_line[index(record.stream)], !record.full);
                match &mut self.tail {
                    Some(tail) if !in_line => tail.begin_line(record.time),
                    Some(_) => {}
                    None => encoder.add(&record, self.query.timestamps && !in_line),
                }
            }
        }
        Ok(if encoder.is_empty() { Next::More } else { Next::Frames(encoder.into_frames()) })
    }

    /// Whether records between those that were read may be missing.
    pub(super) fn fell_behind(&self) -> bool {
        self.reader.fell_behind()
    }

    fn is_selected(&self, record: &Record) -> bool {
        let stream = match record.stream {
            Stream::Stdout => self.query.stdout,
            Stream::Stderr => self.query.stderr,
        };
        stream && self.query.since.is_none_or(|since| record.time >= since)
    }

    fn begin_second_pass(&mut self, tail: &TailSearch) -> Result<Next> {
        self.reader = LogReader::open(&tail.entry)?;
        self.in_line = [false; 2];
        self.query.since = tail.begun.front().copied().or(self.query.since);
        Ok(Next::More)
    }
}

impl TailSearch {
    fn begin_line(&mut self, time: SystemTime) {
        if self.begun.len() == self.lines {
            self.begun.pop_front();
        }
        self.begun.push_back(time);
    }
}

/// Encodes records as frames; successive records of one stream share a frame.
#[derive(Debug, Default)]
struct Encoder {
    frames: Vec<u8>,
    stream: u8,
    payload: Vec<u8>,
}

impl Encoder {
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
            self.payload.extend_from_slice(rfc3339::format(record.time).as_bytes());
            self.payload.push(b' ');
        }
        self.payload.extend(record.bytes());
    }

    fn close_frame(&mut self) {
        if !self.payload.is_empty() {
            self.frames.extend(frame::encode(self.stream, &std::mem::take(&mut self.payload)));
        }
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.payload.is_empty()
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
