// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--events`: writes each event as a line to a file or an inherited descriptor. Used by `main`, which must not wait for a slow reader:
//! what does not fit into a pipe is buffered until the next event, and lines beyond the buffer are dropped, which shows in the sequence
//! numbers.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{ErrorKind, Result, Write as _};

/// Bytes that wait for the reader.
const MAX_PENDING: usize = 256 << 10;
/// `PIPE_BUF`: a pipe that is ready takes so many bytes at once.
const WRITE_SIZE: usize = 4096;

#[derive(Debug)]
pub(crate) struct EventOutlet {
    file: File,
    pending: Vec<u8>,
}

impl EventOutlet {
    /// Writes to a file of any kind. Its flags, which the parent may share, are not changed.
    #[must_use]
    pub(crate) fn new(file: File) -> Self {
        Self { file, pending: Vec::new() }
    }

    /// Writes or buffers `line`, or drops it as a whole.
    ///
    /// # Errors
    /// The reader closed the pipe, or a write failed.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<()> {
        if self.pending.len() + line.len() <= MAX_PENDING {
            self.pending.extend_from_slice(line);
        }
        while !self.pending.is_empty() && self.is_ready()? {
            let length = self.pending.len().min(WRITE_SIZE);
            match self.file.write(&self.pending[..length]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<bool> {
        let mut descriptors = [PollFd::new(&self.file, PollFlags::OUT)];
        Ok(rustix::io::retry_on_intr(|| poll(&mut descriptors, Some(&Timespec::default())))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    #[test]
    fn push_does_not_wait_for_a_slow_reader() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut outlet = EventOutlet::new(OwnedFd::from(writer).into());
        let line = |number: usize| format!("{number:09} {}\n", "x".repeat(989));
        (0..500).for_each(|number| outlet.push(line(number).as_bytes()).unwrap());
        let mut text = String::new();
        let mut bytes = [0; 64 << 10];
        while !outlet.pending.is_empty() {
            let length = reader.read(&mut bytes).unwrap();
            text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
            outlet.push(b"").unwrap();
        }
        drop(outlet);
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 300 && lines.len() < 500, "{}", lines.len());
        assert!(lines.iter().enumerate().all(|(number, got)| format!("{got}\n") == line(number)));
    }

    #[test]
    fn push_fails_once_the_reader_is_gone() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut outlet = EventOutlet::new(OwnedFd::from(writer).into());
        assert_eq!(outlet.push(b"x\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
