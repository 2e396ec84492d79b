// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the control port: what PID 1 says, and what it has not taken yet. Used by `main`'s event loop.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// What one look at the port gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// The guest's side is gone.
    Closed,
    /// No more for now.
    Nothing,
}

/// The port, in an epoll set.
#[derive(Debug)]
pub(super) struct ControlPort {
    stream: UnixStream,
    /// Bytes that the port has not taken yet.
    outgoing: VecDeque<u8>,
    open: bool,
    events: EventSet,
    /// Its number in the set.
    source: u64,
}

impl ControlPort {
    /// Adds `stream`, which does not block, to `epoll` as `source`.
    ///
    /// # Errors
    /// The set is full.
    pub(super) fn register(stream: UnixStream, epoll: &Epoll, source: u64) -> Result<Self> {
        let events = EventSet::IN;
        epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), EpollEvent::new(events, source))?;
        Ok(Self { stream, outgoing: VecDeque::new(), open: true, events, source })
    }

    /// Reads what PID 1 says into `bytes`.
    pub(super) fn receive(&mut self, bytes: &mut [u8], epoll: &Epoll) -> Received {
        while self.open {
            match self.stream.read(bytes) {
                Ok(0) => {
                    self.open = false;
                    let _ = epoll.ctl(ControlOperation::Delete, self.stream.as_raw_fd(), EpollEvent::default());
                    return Received::Closed;
                }
                Ok(length) => return Received::Bytes(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Received::Nothing
    }

    /// Puts `frame` behind what waits already.
    pub(super) fn queue(&mut self, frame: Vec<u8>) {
        self.outgoing.extend(frame);
    }

    /// Writes what the port takes, and has `epoll` wait for the rest to fit.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        while !self.outgoing.is_empty() {
            match self.stream.write(self.outgoing.as_slices().0) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The guest's side is gone; so says the reading side, too.
                Err(_) => self.outgoing.clear(),
            }
        }
        let events = if self.outgoing.is_empty() { EventSet::IN } else { EventSet::IN | EventSet::OUT };
        if self.open && self.events != events {
            let event = EpollEvent::new(events, self.source);
            let modified = epoll.ctl(ControlOperation::Modify, self.stream.as_raw_fd(), event);
            modified.expect("the descriptor was added in `register`");
            self.events = events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_arrives_in_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut port = ControlPort::register(near, &epoll, 7).unwrap();
        let sent: Vec<u8> = (0..2 << 20).map(|index: u32| index as u8).collect();
        port.queue(sent.clone());
        port.flush(&epoll);
        assert!(!port.outgoing.is_empty(), "a socket has less room than that");
        let mut received = vec![0; sent.len()];
        let mut length = 0;
        while length < sent.len() {
            length += far.read(&mut received[length..]).unwrap();
            port.flush(&epoll);
        }
        assert!(received == sent && port.events == EventSet::IN);
    }

    #[test]
    fn the_end_is_told_once() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut port = ControlPort::register(near, &epoll, 7).unwrap();
        (&far).write_all(b"last").unwrap();
        drop(far);
        let mut bytes = [0; 8];
        assert_eq!(port.receive(&mut bytes, &epoll), Received::Bytes(4));
        assert_eq!(port.receive(&mut bytes, &epoll), Received::Closed);
        assert_eq!(port.receive(&mut bytes, &epoll), Received::Nothing);
        port.queue(b"for nobody".to_vec());
        port.flush(&epoll);
    }
}
