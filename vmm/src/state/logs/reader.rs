// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reading side: the records of both streams in the order in which they were written. Used by `logs`, and by
//! `main`'s event loop for those who read over the control socket.

use super::record::{Record, Stream};
use crate::state::rotated_reader::RotatedReader;
use std::io::{ErrorKind, Result};
use std::path::Path;

/// A place in the logs of a run.
#[derive(Debug)]
pub(crate) struct LogReader {
    stdout: Side,
    stderr: Side,
}

/// One stream.
#[derive(Debug)]
struct Side {
    reader: RotatedReader,
    /// Its next record.
    next: Option<Record>,
    /// There was no next record after all that is read of the other stream was there.
    is_empty: bool,
}

impl LogReader {
    /// Begins with the oldest record in `entry`.
    ///
    /// # Errors
    /// The run has no logs.
    pub(crate) fn open(entry: &Path) -> Result<Self> {
        if !entry.join(Stream::Stdout.file_name()).try_exists()? {
            return Err(ErrorKind::NotFound.into());
        }
        let side = |stream: Stream| Side::new(RotatedReader::new(&entry.join(stream.file_name())));
        Ok(Self { stdout: side(Stream::Stdout), stderr: side(Stream::Stderr) })
    }

    /// Begins with the record in `entry` that is written next.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub(crate) fn at_end(entry: &Path) -> Result<Self> {
        let side = |stream: Stream| RotatedReader::at_end(&entry.join(stream.file_name())).map(Side::new);
        Ok(Self { stdout: side(Stream::Stdout)?, stderr: side(Stream::Stderr)? })
    }

    /// The next record; none if there is none now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        let Self { stdout, stderr } = self;
        loop {
            stdout.look();
            stderr.look();
            // A record of one stream comes first if the other was seen without an older one *after* it was there.
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
            // More of the other one is newer than what was read of this one.
            other.is_empty = !other.reader.fill()?;
            first.is_empty &= other.is_empty;
        }
    }

    /// Whether records between those that were read may be missing, because the logs were rotated too often meanwhile.
    #[must_use]
    pub(crate) fn fell_behind(&self) -> bool {
        self.stdout.reader.fell_behind() || self.stderr.reader.fell_behind()
    }
}

impl Side {
    fn new(reader: RotatedReader) -> Self {
        Self { reader, next: None, is_empty: false }
    }

    /// Finds the next record among what was read, past lines that are none.
    fn look(&mut self) {
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
    fn a_run_without_logs_is_told_from_one_that_wrote_nothing() {
        let entry = tempfile::tempdir().unwrap();
        assert_eq!(LogReader::open(entry.path()).unwrap_err().kind(), ErrorKind::NotFound);
        let notifier = std::sync::Arc::new(super::super::LogNotifier::new().unwrap());
        let _logs = super::super::StreamLog::create(entry.path(), 1 << 20, &notifier).unwrap();
        assert_eq!(LogReader::open(entry.path()).unwrap().next().unwrap(), None);
    }

    #[test]
    fn what_somebody_else_wrote_into_a_log_is_passed_over() {
        let entry = tempfile::tempdir().unwrap();
        let text = "garbage\n2026-11-22T10:00:00Z stdout F a line\n";
        std::fs::write(entry.path().join("stdout.log"), text).unwrap();
        let record = LogReader::open(entry.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(record.text, b"a line");
    }
}
