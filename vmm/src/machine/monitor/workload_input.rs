// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The standard input of a detached workload (`run -d -i`): a pipe into which clients write, and which stays open when they
//! leave. Part of `main`'s event loop, which never waits for the reader.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::collections::VecDeque;
use std::io::{ErrorKind, PipeWriter, Result, Write as _};
use std::os::fd::AsRawFd as _;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// See the module.
#[derive(Debug)]
pub(super) struct WorkloadInput {
    /// None if there is no such input, or nobody reads it any more.
    writer: Option<PipeWriter>,
    /// What the pipe has not taken. While there is any, the clients are not read.
    waiting: VecDeque<u8>,
    awaited: bool,
    source: u64,
}

impl WorkloadInput {
    /// Made of the pipe's end, which is not to block from now on; `source` stands for it in the epoll set.
    ///
    /// # Errors
    /// The host refused.
    pub(super) fn new(writer: Option<PipeWriter>, source: u64) -> Result<Self> {
        if let Some(writer) = &writer {
            fcntl_setfl(writer, fcntl_getfl(writer)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { writer, waiting: VecDeque::new(), awaited: false, source })
    }

    /// Adds what a client sent. Without an input it is dropped.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.writer.is_some() {
            self.waiting.extend(bytes);
        }
    }

    /// Whether clients may send more.
    pub(super) fn is_hungry(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes what the pipe takes; `epoll` tells when it takes more.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        let Some(writer) = &mut self.writer else { return };
        let mut is_read = true;
        while !self.waiting.is_empty() {
            match writer.write(self.waiting.as_slices().0) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    is_read = false;
                    break;
                }
            }
        }
        let wanted = is_read && !self.waiting.is_empty();
        if wanted != self.awaited {
            // Not in the set without need: that the reader is gone would be told without end.
            let operation = if wanted { ControlOperation::Add } else { ControlOperation::Delete };
            let changed = epoll.ctl(operation, writer.as_raw_fd(), EpollEvent::new(EventSet::OUT, self.source));
            changed.expect("a pipe can be waited for, and `awaited` says whether it is");
            self.awaited = wanted;
        }
        if !is_read {
            (self.writer, self.waiting) = (None, VecDeque::new());
        } else if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, pipe};

    fn is_ready(epoll: &Epoll) -> bool {
        epoll.wait(0, &mut [EpollEvent::default()]).unwrap() > 0
    }

    #[test]
    fn what_the_pipe_does_not_take_waits_and_arrives_in_order() {
        let (mut reader, writer) = pipe().unwrap();
        let epoll = Epoll::new().unwrap();
        let mut input = WorkloadInput::new(Some(writer), 7).unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
        input.push(&sent);
        input.flush(&epoll);
        assert!(!input.is_hungry() && !is_ready(&epoll), "a pipe has less room than that");
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let mut bytes = [0; 65_536];
            let length = reader.read(&mut bytes).unwrap();
            received.extend_from_slice(&bytes[..length]);
            assert!(is_ready(&epoll) || input.is_hungry());
            input.flush(&epoll);
        }
        assert!(received == sent && input.is_hungry() && !is_ready(&epoll));
    }

    #[test]
    fn an_input_that_nobody_reads_takes_everything_and_keeps_nothing() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        for writer in [Some(writer), None] {
            let mut input = WorkloadInput::new(writer, 7).unwrap();
            for _ in 0..3 {
                input.push(&[0; 100_000]);
                input.flush(&epoll);
                assert!(input.is_hungry() && !is_ready(&epoll));
            }
        }
    }
}
