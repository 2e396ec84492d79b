// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Standard input of a detached workload (`run -d -i`): a pipe that clients write, and that stays
//! open when they leave. Used by `main`, which never waits for the reader.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::collections::VecDeque;
use std::io::{ErrorKind, PipeWriter, Result, Write as _};
use std::os::fd::AsRawFd as _;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

#[derive(Debug)]
pub(super) struct WorkloadInput {
    /// `None` without `-i`, or once the reader is gone.
    writer: Option<PipeWriter>,
    /// Bytes that the pipe has not taken. While there are any, clients are not read.
    pending: VecDeque<u8>,
    in_epoll: bool,
    source: u64,
}

impl WorkloadInput {
    /// Makes `writer` non-blocking. `source` is the data of its events.
    ///
    /// # Errors
    /// The flags of the pipe cannot be changed.
    pub(super) fn new(writer: Option<PipeWriter>, source: u64) -> Result<Self> {
        if let Some(writer) = &writer {
            fcntl_setfl(writer, fcntl_getfl(writer)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { writer, pending: VecDeque::new(), in_epoll: false, source })
    }

    /// Adds bytes from a client. Without an input they are dropped.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.writer.is_some() {
            self.pending.extend(bytes);
        }
    }

    /// Whether clients may send more.
    pub(super) fn wants_input(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes as much as the pipe takes. `epoll` reports when it takes more.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        let Some(writer) = &mut self.writer else { return };
        let mut has_reader = true;
        while !self.pending.is_empty() {
            match writer.write(self.pending.as_slices().0) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    has_reader = false;
                    break;
                }
            }
        }
        let wanted = has_reader && !self.pending.is_empty();
        if wanted != self.in_epoll {
            // In the set only while it is full: a closed pipe is always ready.
            let operation = if wanted { ControlOperation::Add } else { ControlOperation::Delete };
            let changed = epoll.ctl(operation, writer.as_raw_fd(), EpollEvent::new(EventSet::OUT, self.source));
            changed.expect("epoll takes pipes, and `in_epoll` tracks the membership");
            self.in_epoll = wanted;
        }
        if !has_reader {
            (self.writer, self.pending) = (None, VecDeque::new());
        } else if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, pipe};

    fn has_readery(epoll: &Epoll) -> bool {
        epoll.wait(0, &mut [EpollEvent::default()]).unwrap() > 0
    }

    #[test]
    fn pending_input_arrives_in_order() {
        let (mut reader, writer) = pipe().unwrap();
        let epoll = Epoll::new().unwrap();
        let mut input = WorkloadInput::new(Some(writer), 7).unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
        input.push(&sent);
        input.flush(&epoll);
        assert!(!input.wants_input() && !has_readery(&epoll), "200,000 bytes fit into a pipe");
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let mut bytes = [0; 65_536];
            let length = reader.read(&mut bytes).unwrap();
            received.extend_from_slice(&bytes[..length]);
            assert!(has_readery(&epoll) || input.wants_input());
            input.flush(&epoll);
        }
        assert!(received == sent && input.wants_input() && !has_readery(&epoll));
    }

    #[test]
    fn input_without_a_reader_takes_everything_and_keeps_nothing() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        for writer in [Some(writer), None] {
            let mut input = WorkloadInput::new(writer, 7).unwrap();
            for _ in 0..3 {
                input.push(&[0; 100_000]);
                input.flush(&epoll);
                assert!(input.wants_input() && !has_readery(&epoll));
            }
        }
    }
}
