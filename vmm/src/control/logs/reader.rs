// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reading side: the records of both streams in the order in which they were written. Used by `logs`.

use super::record::{Record, Stream};
use crate::control::rotated_reader::RotatedReader;
use std::io::{ErrorKind, Result};
use std::path::Path;

/// A place in the logs of a run.
#[derive(Debug)]
pub struct LogReader {
    stdout: RotatedReader,
    stderr: RotatedReader,
}

impl LogReader {
    /// Begins with the oldest record in `entry`.
    ///
    /// # Errors
    /// The run has no logs.
    pub fn open(entry: &Path) -> Result<Self> {
        let [stdout, stderr] = [Stream::Stdout, Stream::Stderr].map(|stream| entry.join(stream.file_name()));
        if !stdout.try_exists()? {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(Self { stdout: RotatedReader::new(&stdout), stderr: RotatedReader::new(&stderr) })
    }

    /// The next record; none if there is none now.
    ///
    /// # Errors
    /// A file cannot be read.
    #[expect(clippy::should_implement_trait, reason = "after the last record there may be more")]
    pub fn next(&mut self) -> Result<Option<Record>> {
        // A record of one stream comes first if the other was seen without an older one *after* it was there.
        let mut stdout = peek(&mut self.stdout)?;
        let stderr = peek(&mut self.stderr)?;
        if stdout.is_none() && stderr.is_some() {
            stdout = peek(&mut self.stdout)?;
        }
        let first = match (stdout, stderr) {
            (Some(stdout), Some(stderr)) if stderr.time < stdout.time => Some(stderr),
            (None, stderr) => stderr,
            (stdout, _) => stdout,
        };
        match first.as_ref().map(|record| record.stream) {
            Some(Stream::Stdout) => self.stdout.take(),
            Some(Stream::Stderr) => self.stderr.take(),
            None => {}
        }
        Ok(first)
    }
}

/// The next record, past lines that are none.
fn peek(reader: &mut RotatedReader) -> Result<Option<Record>> {
    loop {
        match reader.peek()?.map(Record::parse) {
            None => return Ok(None),
            Some(Some(record)) => return Ok(Some(record)),
            Some(None) => reader.take(),
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
        let _logs = super::super::StreamLog::create(entry.path(), 1 << 20).unwrap();
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
