// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One record of a log: a line, or a part of one. Pure.

use crate::config::rfc3339;
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// In the run directory.
    #[must_use]
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout.log",
            Self::Stderr => "stderr.log",
        }
    }

    fn tag(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// When it arrived from the guest.
    pub(crate) time: SystemTime,
    pub(crate) stream: Stream,
    /// Whether it ends a line.
    pub(crate) full: bool,
    /// Without the line end.
    pub(crate) text: Vec<u8>,
}

impl Record {
    /// Appends a record to `out`. `text` has no line end.
    pub(super) fn write(time: SystemTime, stream: Stream, full: bool, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(rfc3339::format(time).as_bytes());
        out.extend_from_slice(format!(" {} {} ", stream.tag(), if full { 'F' } else { 'P' }).as_bytes());
        out.extend_from_slice(text);
        out.push(b'\n');
    }

    /// Parses a line of a log.
    #[must_use]
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.strip_suffix(b"\n")?.splitn(4, |byte| *byte == b' ');
        let time = rfc3339::parse(std::str::from_utf8(fields.next()?).ok()?)?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let full = match fields.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, full, text: fields.next()?.to_owned() })
    }

    /// The bytes that the workload wrote.
    #[must_use]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let end: &[u8] = if self.full { b"\n" } else { b"" };
        [&self.text, end].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn parse_rejects_invalid_records() {
        for line in [
            &b""[..],
            b"\n",
            b"text\n",
            b"2026-11-22T10:00:00Z stdout F\n",
            b"2026-11-22T10:00:00Z other F x\n",
            b"2026-11-22T10:00:00Z stdout X x\n",
            b"2026-11-22T10:00:00Z stdout F no end",
        ] {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            text in proptest::collection::vec(any::<u8>().prop_filter("no line end", |byte| *byte != b'\n'), 0..200),
            micros in 0_u64..4_000_000_000_000_000,
            full: bool,
            stdout: bool,
        ) {
            let stream = if stdout { Stream::Stdout } else { Stream::Stderr };
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            let mut line = Vec::new();
            Record::write(time, stream, full, &text, &mut line);
            prop_assert_eq!(Record::parse(&line), Some(Record { time, stream, full, text }));
        }
    }
}
