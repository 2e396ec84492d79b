// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of the guest's kernel and init: bounded, in a file, and the last ones in memory for the
//! result. Written by the `io` loop (console) and vCPU threads (serial port), read by `main` once
//! they have stopped.

use devices::log_sink::LogSink;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kept in memory: a panic with its registers and call trace.
const TAIL_BUF_SIZE: usize = 16 << 10;
/// Further messages go to the tail only.
const MAX_FILE_BYTES: usize = 4 << 20;

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
    /// Writes to `file`, too, which must not block.
    #[must_use]
    pub(crate) fn new(file: Option<File>) -> Self {
        Self(Mutex::new(Inner { file, room: MAX_FILE_BYTES, tail: VecDeque::with_capacity(TAIL_BUF_SIZE) }))
    }

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
            // A full disk must not end the guest.
            inner.file = None;
        }
        let kept = &text[text.len().saturating_sub(TAIL_BUF_SIZE)..];
        let excess = (inner.tail.len() + kept.len()).saturating_sub(TAIL_BUF_SIZE);
        inner.tail.drain(..excess);
        inner.tail.extend(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_holds_the_last_bytes_and_the_file_the_first() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let log = ConsoleLog::new(Some(path.reopen().unwrap()));
        let line = [b'x'; 1 << 20];
        (0..6).for_each(|_| log.write(&line));
        log.write(b"the end\n");
        assert!(log.tail().ends_with("xthe end\n"));
        assert_eq!(log.tail().len(), TAIL_BUF_SIZE);
        assert_eq!(std::fs::metadata(path.path()).unwrap().len(), MAX_FILE_BYTES as u64);
    }
}
