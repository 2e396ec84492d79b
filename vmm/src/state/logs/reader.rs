// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the records of both streams in the order in which they were written. Used by the verb `logs`, and by `main`'s event loop for
//! clients of the control socket.

use super::record::{Record, Stream};
use crate::state::rotated_reader::RotatedReader;
use std::io::{ErrorKind, Result};
use std::path::Path;

/// A position in the logs of a machine.
#[derive(Debug)]
pub(crate) struct LogReader {
    stdout: Side,
    stderr: Side,
}

#[derive(Debug)]
struct Side {
    reader: RotatedReader,
    next: Option<Record>,
    /// It had no next record after everything that was read of the other stream had been written.
    is_empty: bool,
}

impl LogReader {
    /// Starts with the oldest record in `run_directory`.
    ///
    /// # Errors
    /// The machine has no logs.
    pub(crate) fn open(run_directory: &Path) -> Result<Self> {
        if !run_directory.join(Stream::Stdout.file_name()).try_exists()? {
            return Err(ErrorKind::NotFound.into());
        }
        let side = |stream: Stream| Side::new(RotatedReader::new(&run_directory.join(stream.file_name())));
        Ok(Self { stdout: side(Stream::Stdout), stderr: side(Stream::Stderr) })
    }

    /// Starts with the next record to be written in `run_directory`.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(crate) fn at_end(run_directory: &Path) -> Result<Self> {
        let side = |stream: Stream| RotatedReader::at_end(&run_directory.join(stream.file_name())).map(Side::new);
        Ok(Self { stdout: side(Stream::Stdout)?, stderr: side(Stream::Stderr)? })
    }

    /// The next record; none if there is none yet.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        let Self { stdout, stderr } = self;
        loop {
            stdout.parse_next();
            stderr.parse_next();
            // A record of one stream is the next one if the other stream had none *after* that record was written.
            let (first, other) = match (&stdout.next, &stderr.next) {
                (Some(out), Some(err)) if err.time < out.time => return Ok(stderr.next.take()),
                (Some(_), Some(_)) => return Ok(stdout.next.take()),
                (Some(_), None) => (&mut *stdout, &mut *stderr),
                (None, Some(_)) => (&mut *stderr, &mut *stdout),
                (None, None) => {
                    (stdout.is_empty, stderr.is_empty) = (false, false);
                    if stdout.reader.fill()? | stderr.reader.fill()? {
                        continue;
                    }
                    return Ok(None);
                }
            };
            if other.is_empty {
                return Ok(first.next.take());
            }
            // What is read of the other stream now may be older than this record.
            other.is_empty = !other.reader.fill()?;
            first.is_empty &= other.is_empty;
        }
    }

    /// Whether records may be missing because the logs were rotated twice between two reads.
    #[must_use]
    pub(crate) fn fell_behind(&self) -> bool {
        self.stdout.reader.fell_behind() || self.stderr.reader.fell_behind()
    }
}

impl Side {
    fn new(reader: RotatedReader) -> Self {
        Self { reader, next: None, is_empty: false }
    }

    /// Parses the next record of what was read. Invalid lines are skipped.
    fn parse_next(&mut self) {
        while self.next.is_none()
            && let Some(line) = self.reader.peek_read()
        {
            self.next = Record::parse(line);
            self.reader.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_fails_only_without_logs() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(LogReader::open(directory.path()).unwrap_err().kind(), ErrorKind::NotFound);
        let notifier = std::sync::Arc::new(super::super::LogNotifier::new().unwrap());
        let _logs = super::super::StreamLog::create(directory.path(), 1 << 20, &notifier).unwrap();
        assert_eq!(LogReader::open(directory.path()).unwrap().next().unwrap(), None);
    }

    #[test]
    fn next_skips_invalid_lines() {
        let directory = tempfile::tempdir().unwrap();
        let text = "garbage\n2026-11-22T10:00:00Z stdout F a line\n";
        std::fs::write(directory.path().join("stdout.log"), text).unwrap();
        let record = LogReader::open(directory.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(record.text, b"a line");
    }
}
