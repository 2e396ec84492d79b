// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--events`: a file or an inherited descriptor that gets each event as a line. Used by `main`, which a reader that does
//! not read must not hold up: what a pipe does not take waits for the next event, and past a limit lines are left out, as the
//! sequence numbers then show.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{ErrorKind, Result, Write as _};

/// Most bytes that wait for the reader.
const WAITING: usize = 256 << 10;
/// A pipe that is ready takes this many at once (`PIPE_BUF`).
const STEP: usize = 4096;

/// Takes lines.
#[derive(Debug)]
pub(crate) struct EventOutlet {
    file: File,
    waiting: Vec<u8>,
}

impl EventOutlet {
    /// Writes to `file`, whatever that is. Its flags, which the parent may share, stay as they are.
    #[must_use]
    pub(crate) fn new(file: File) -> Self {
        Self { file, waiting: Vec::new() }
    }

    /// Passes on `line`, or leaves it out whole.
    ///
    /// # Errors
    /// Nobody reads any more, or the host cannot write.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<()> {
        if self.waiting.len() + line.len() <= WAITING {
            self.waiting.extend_from_slice(line);
        }
        while !self.waiting.is_empty() && self.is_ready()? {
            let step = self.waiting.len().min(STEP);
            match self.file.write(&self.waiting[..step]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written)),
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
    fn a_reader_that_does_not_read_holds_up_nobody_and_gets_whole_lines_later() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut outlet = EventOutlet::new(OwnedFd::from(writer).into());
        let line = |number: usize| format!("{number:09} {}\n", "x".repeat(989));
        (0..500).for_each(|number| outlet.push(line(number).as_bytes()).unwrap());
        let mut text = String::new();
        let mut bytes = [0; 64 << 10];
        while !outlet.waiting.is_empty() {
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
    fn a_reader_that_went_away_is_an_error() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut outlet = EventOutlet::new(OwnedFd::from(writer).into());
        assert_eq!(outlet.push(b"x\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
