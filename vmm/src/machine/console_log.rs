// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest's kernel says: bounded, in a file if one was asked for, and its last lines in memory for the report.
//! Written by the `io` loop (console) and vCPU threads (serial port), read by `main` when they have stopped.

use devices::log_sink::LogSink;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are kept in memory: a panic with its registers and call trace.
const TAIL: usize = 16 << 10;
/// Bytes that the file may take; what comes after is only in the tail.
const FILE_LIMIT: usize = 4 << 20;

/// The log of one machine.
#[derive(Debug)]
pub(crate) struct ConsoleLog(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    file: Option<File>,
    room: usize,
    tail: VecDeque<u8>,
}

impl ConsoleLog {
    /// A log that also goes to `file`, which must take writes without blocking.
    #[must_use]
    pub(crate) fn new(file: Option<File>) -> Self {
        Self(Mutex::new(Inner { file, room: FILE_LIMIT, tail: VecDeque::with_capacity(TAIL) }))
    }

    /// The last lines.
    #[must_use]
    pub(crate) fn tail(&self) -> String {
        let inner = self.lock();
        let (first, second) = inner.tail.as_slices();
        String::from_utf8_lossy(&[first, second].concat()).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for ConsoleLog {
    fn write(&self, text: &[u8]) {
        let mut inner = self.lock();
        let fits = text.len().min(inner.room);
        inner.room -= fits;
        if let Some(file) = &mut inner.file
            && file.write_all(&text[..fits]).is_err()
        {
            // A full disk must not end the guest: the tail goes on.
            inner.file = None;
        }
        let kept = &text[text.len().saturating_sub(TAIL)..];
        let excess = (inner.tail.len() + kept.len()).saturating_sub(TAIL);
        inner.tail.drain(..excess);
        inner.tail.extend(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_holds_the_last_bytes_and_the_file_the_first() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let log = ConsoleLog::new(Some(path.reopen().unwrap()));
        let line = [b'x'; 1 << 20];
        (0..6).for_each(|_| log.write(&line));
        log.write(b"the end\n");
        assert!(log.tail().ends_with("xthe end\n"));
        assert_eq!(log.tail().len(), TAIL);
        assert_eq!(std::fs::metadata(path.path()).unwrap().len(), FILE_LIMIT as u64);
    }
}
