// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control port, on `main`: single reads of what PID 1 sends, and a bounded queue of what it has not read yet.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Bytes that can wait for PID 1 to read them. The largest messages, the limits of exec and all
/// their input together are less.
const MAX_OUTGOING_BYTES: usize = 16 << 20;
/// Bytes that may wait when another signal is added: some ten thousand signals.
const MAX_SIGNAL_BACKLOG: usize = 64 << 10;

/// Result of one read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(usize),
    /// End of file; once.
    Closed,
    Nothing,
}

/// The host's end of the control port: messages from PID 1, and those that it has not taken yet.
#[derive(Debug)]
pub(super) struct ControlPort {
    stream: UnixStream,
    outgoing: VecDeque<u8>,
    /// Frames that are not sent before [`release`](Self::release).
    held: Option<Vec<u8>>,
    open: bool,
    events: EventSet,
    /// Data of its events.
    source: u64,
}

impl ControlPort {
    /// Adds `stream`, which is non-blocking, to `epoll` as `source`.
    ///
    /// # Errors
    /// The host has no memory left for it.
    pub(super) fn register(stream: UnixStream, epoll: &Epoll, source: u64) -> std::io::Result<Self> {
        let events = EventSet::IN;
        epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), EpollEvent::new(events, source))?;
        Ok(Self { stream, outgoing: VecDeque::new(), held: None, open: true, events, source })
    }

    /// Reads once, into `bytes`.
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

    /// Sends `frame` with the next [`flush`](Self::flush).
    pub(super) fn queue(&mut self, frame: Vec<u8>) {
        match &mut self.held {
            Some(held) => held.extend(frame),
            None => self.outgoing.extend(frame),
        }
    }

    /// Holds what is queued from now on.
    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Sends `first`, then what was held.
    pub(super) fn release(&mut self, first: Vec<u8>) {
        self.outgoing.extend(first);
        self.outgoing.extend(self.held.take().into_iter().flatten());
    }

    /// Whether PID 1 has stopped reading.
    pub(super) fn is_stalled(&self) -> bool {
        self.backlog() > MAX_OUTGOING_BYTES
    }

    /// Whether so much waits that signals are not added to it.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog() > MAX_SIGNAL_BACKLOG
    }

    fn backlog(&self) -> usize {
        self.outgoing.len() + self.held.as_ref().map_or(0, Vec::len)
    }

    /// Writes as much as the port takes. `epoll` reports when it takes more.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        while !self.outgoing.is_empty() {
            match self.stream.write(self.outgoing.as_slices().0) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The guest's end is closed, which a read reports, too.
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
    fn queued_bytes_arrive_in_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut port = ControlPort::register(near, &epoll, 7).unwrap();
        let sent: Vec<u8> = (0..2 << 20).map(|index: u32| index as u8).collect();
        port.queue(sent.clone());
        port.flush(&epoll);
        assert!(!port.outgoing.is_empty(), "2 MiB fit into a socket buffer");
        let mut received = vec![0; sent.len()];
        let mut length = 0;
        while length < sent.len() {
            length += far.read(&mut received[length..]).unwrap();
            port.flush(&epoll);
        }
        assert!(received == sent && port.events == EventSet::IN);
    }

    #[test]
    fn held_frames_follow_the_one_that_releases_them() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut port = ControlPort::register(near, &epoll, 7).unwrap();
        port.queue(b"1".to_vec());
        port.hold();
        port.queue(b"3".to_vec());
        port.flush(&epoll);
        port.release(b"2".to_vec());
        port.queue(b"4".to_vec());
        port.flush(&epoll);
        let mut received = [0; 4];
        far.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"1234");
    }

    #[test]
    fn port_that_takes_nothing_is_stalled_at_the_limit() {
        let (near, _far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut port = ControlPort::register(near, &epoll, 7).unwrap();
        port.queue(vec![0; MAX_OUTGOING_BYTES]);
        assert!(!port.is_stalled());
        port.queue(vec![0; 1]);
        assert!(port.is_stalled());
    }

    #[test]
    fn end_of_file_is_reported_once() {
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
        port.queue(b"lost".to_vec());
        port.flush(&epoll);
    }
}
