// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames on a Unix stream socket, each behind its length as a big-endian `u32`: what passt and
//! QEMU (`-netdev stream`) use. Made on `main`, used on the event loop of the interface.
//!
//! Many frames pass with one system call. Frames have no header, so every checksum must be there:
//! no offloads are possible. A length that no frame can have is a fault of the peer after which
//! nothing can be understood any more; the connection is closed. A connection that ended is made
//! again if there is a way to, and else the device's link stays down.

use super::output_wait::OutputWait;
use super::packet::{HEADER_SIZE, MAX_FRAME_BYTES, MIN_FRAME_BYTES};
use super::sent::SentPacket;
use crate::event_loop::Source;
use crate::guest_warn;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_GUEST_CSUM};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::timerfd::TimerFd;

const LENGTH_SIZE: usize = size_of::<u32>();
/// Bytes before the first length, so that a header can be put before each frame, over what was
/// consumed and its own length.
const FRONT_SIZE: usize = HEADER_SIZE - LENGTH_SIZE;
/// Bytes of one read at most.
const INPUT_BUF_SIZE: usize = 256 << 10;
/// Bytes of frames that wait for the peer at most.
const OUTPUT_BUF_SIZE: usize = 256 << 10;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(2);

/// Makes a connection. Must not block; called on the event loop of the interface.
pub type Connect = Box<dyn FnMut() -> Result<OwnedFd> + Send>;

/// A stream socket as a backend.
#[derive(Debug)]
pub struct StreamSocket {
    connection: Option<OwnedFd>,
    /// A connection that is over and cannot be made again. Kept open, because the event loop knows
    /// it by its number.
    ended: Option<OwnedFd>,
    input: Input,
    output: Output,
    output_wait: OutputWait,
    reconnect: Option<Reconnect>,
}

impl StreamSocket {
    /// A checksum may be left to the guest, which never happens: the driver can switch it off.
    pub(super) const FEATURES: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;

    /// On a connected Unix stream socket. Its file status flags are not changed.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(socket: OwnedFd) -> Result<Self> {
        Self::with(Some(socket), None)
    }

    /// On a connection that `connect` makes, now and whenever it has ended. There need not be a
    /// peer yet.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn reconnecting(connect: Connect) -> Result<Self> {
        let mut new = Self::with(None, Some(Reconnect::new(connect)?))?;
        new.connect();
        Ok(new)
    }

    fn with(connection: Option<OwnedFd>, reconnect: Option<Reconnect>) -> Result<Self> {
        let (input, output, output_wait) = (Input::new(), Output::new(), OutputWait::new()?);
        Ok(Self { connection, ended: None, input, output, output_wait, reconnect })
    }

    /// See [`Backend::sources`](super::backend::Backend::sources).
    pub(super) fn sources(&self, token: u32) -> Vec<Source> {
        vec![Source::readable(self, token), self.output_wait.source(token)]
    }

    pub(super) fn connects_again(&self) -> bool {
        self.reconnect.is_some()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// The socket may be readable, writable or hung up, or it is time to try a connection.
    pub(super) fn changed(&mut self) {
        self.output_wait.update();
        if self.connection.is_none() && self.reconnect.as_mut().is_some_and(Reconnect::is_due) {
            self.connect();
        }
        self.flush();
        if self.connection.is_some() {
            // The end of the connection shows even if the guest has no buffers.
            let _ = self.receive();
        }
    }

    /// See [`Backend::receive`](super::backend::Backend::receive).
    pub(super) fn receive(&mut self) -> Result<&mut [u8]> {
        if let Err(error) = self.fill() {
            if error.kind() != ErrorKind::WouldBlock {
                self.disconnect(&error);
            }
            return Err(error);
        }
        Ok(self.input.packet())
    }

    /// Reads until there is a whole frame.
    fn fill(&mut self) -> Result<()> {
        while !self.input.has_frame()? {
            let socket = self.connection.as_ref().ok_or(ErrorKind::NotConnected)?;
            match recv(socket, self.input.space(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(Error::new(ErrorKind::UnexpectedEof, "the peer closed the connection")),
                Ok((_, count)) => self.input.end += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn consume(&mut self) {
        self.input.consume();
    }

    /// See [`Backend::send`](super::backend::Backend::send).
    pub(super) fn send(&mut self, packet: &SentPacket<'_>) -> Result<()> {
        if !self.output.has_space(packet.frame_length()) {
            self.flush();
        }
        if self.connection.is_none() {
            return Err(ErrorKind::NotConnected.into());
        }
        if !self.output.has_space(packet.frame_length()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.output.push(packet);
        Ok(())
    }

    /// Sends what is in the buffer, as far as the peer accepts it.
    pub(super) fn flush(&mut self) {
        let Some(socket) = &self.connection else { return };
        while !self.output.is_empty() {
            match send(socket, self.output.bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.output.consume(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return self.output_wait.wait_for(socket),
                Err(error) => return self.disconnect(&error.into()),
            }
        }
    }

    /// Closes the connection, with all that was half received or half sent.
    fn disconnect(&mut self, error: &Error) {
        let Some(socket) = self.connection.take() else { return };
        guest_warn!("net: the connection has ended: {error}");
        // For the peer, if this side ends it. It fails if the peer has gone.
        let _ = shutdown(&socket, Shutdown::Both);
        self.input.clear();
        self.output.clear();
        match &mut self.reconnect {
            Some(reconnect) => reconnect.ended(socket),
            None => self.ended = Some(socket),
        }
    }

    /// Tries to make a connection, and does so later if there is none.
    fn connect(&mut self) {
        self.connection = self.reconnect.as_mut().and_then(Reconnect::connect);
    }
}

impl AsRawFd for StreamSocket {
    /// The same as long as this exists.
    fn as_raw_fd(&self) -> RawFd {
        match (&self.reconnect, &self.connection, &self.ended) {
            (Some(reconnect), ..) => reconnect.epoll.as_raw_fd(),
            (None, Some(socket), _) | (None, None, Some(socket)) => socket.as_raw_fd(),
            (None, None, None) => unreachable!("a connection that is not made again is kept"),
        }
    }
}

/// How connections are made. The event loop waits for `epoll` instead of a socket, because a
/// worker's sources cannot change.
struct Reconnect {
    connect: Connect,
    /// Has the connection, if there is one, and the timer.
    epoll: Epoll,
    timer: TimerFd,
    delay: Duration,
}

impl Reconnect {
    fn new(connect: Connect) -> Result<Self> {
        let new = Self { connect, epoll: Epoll::new()?, timer: TimerFd::new()?, delay: FIRST_RETRY };
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        new.epoll.ctl(ControlOperation::Add, new.timer.as_raw_fd(), event)?;
        Ok(new)
    }

    /// Whether the time of a retry has come. Called while there is no connection.
    fn is_due(&mut self) -> bool {
        let _ = self.epoll.wait(0, &mut [EpollEvent::default(); 2]);
        self.timer.is_armed().is_ok_and(|armed| !armed)
    }

    /// A connection, or `None` and another try later.
    fn connect(&mut self) -> Option<OwnedFd> {
        let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        let connected = (self.connect)().and_then(|socket| {
            self.epoll.ctl(ControlOperation::Add, socket.as_raw_fd(), EpollEvent::new(events, 1))?;
            Ok(socket)
        });
        if connected.is_err() {
            self.retry_later();
        }
        connected.ok()
    }

    fn ended(&mut self, socket: OwnedFd) {
        let _ = self.epoll.ctl(ControlOperation::Delete, socket.as_raw_fd(), EpollEvent::default());
        self.delay = FIRST_RETRY;
        self.retry_later();
    }

    fn retry_later(&mut self) {
        // It fails for invalid durations only.
        let _ = self.timer.reset(self.delay, None);
        self.delay = (self.delay * 2).min(MAX_RETRY);
    }
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect").field("timer", &self.timer).field("delay", &self.delay).finish_non_exhaustive()
    }
}

/// Bytes that were received.
#[derive(Debug)]
struct Input {
    bytes: Box<[u8]>,
    /// Place of the next length.
    start: usize,
    end: usize,
    /// Bytes of the current frame, whose length and header have been replaced; 0 if there is none.
    current: usize,
}

impl Input {
    fn new() -> Self {
        let bytes = vec![0; FRONT_SIZE + INPUT_BUF_SIZE].into_boxed_slice();
        Self { bytes, start: FRONT_SIZE, end: FRONT_SIZE, current: 0 }
    }

    fn clear(&mut self) {
        (self.start, self.end, self.current) = (FRONT_SIZE, FRONT_SIZE, 0);
    }

    /// Whether there is a whole frame, which then is the current one.
    fn has_frame(&mut self) -> Result<bool> {
        if self.current > 0 {
            return Ok(true);
        }
        let Some((length, rest)) = self.bytes[self.start..self.end].split_first_chunk::<LENGTH_SIZE>() else {
            return Ok(false);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&length) {
            return Err(Error::new(ErrorKind::InvalidData, format!("{length} is not the length of a frame")));
        }
        if rest.len() < length {
            return Ok(false);
        }
        self.current = length;
        Ok(true)
    }

    /// Space for more bytes, at least as much as the current frame lacks.
    fn space(&mut self) -> &mut [u8] {
        if self.start > FRONT_SIZE && self.bytes.len() - self.start < LENGTH_SIZE + MAX_FRAME_BYTES {
            self.bytes.copy_within(self.start..self.end, FRONT_SIZE);
            (self.start, self.end) = (FRONT_SIZE, FRONT_SIZE + self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// The current frame behind an empty header.
    fn packet(&mut self) -> &mut [u8] {
        let frame = self.start + LENGTH_SIZE;
        let packet = &mut self.bytes[frame - HEADER_SIZE..frame + self.current];
        packet[..HEADER_SIZE].fill(0);
        packet
    }

    fn consume(&mut self) {
        if self.current == 0 {
            return;
        }
        self.start += LENGTH_SIZE + self.current;
        self.current = 0;
        if self.start == self.end {
            self.clear();
        }
    }
}

/// Bytes to be sent, in whole frames but for the first.
#[derive(Debug)]
struct Output {
    bytes: Vec<u8>,
    /// Those before it have been sent.
    start: usize,
}

impl Output {
    fn new() -> Self {
        Self { bytes: Vec::with_capacity(OUTPUT_BUF_SIZE), start: 0 }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// For a frame of `length` bytes.
    fn has_space(&self, length: usize) -> bool {
        self.bytes().len() + LENGTH_SIZE + length <= OUTPUT_BUF_SIZE
    }

    fn push(&mut self, packet: &SentPacket<'_>) {
        let length = packet.frame_length();
        if self.bytes.len() + LENGTH_SIZE + length > OUTPUT_BUF_SIZE {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        // A frame is shorter than 4 GiB.
        self.bytes.extend_from_slice(&(length as u32).to_be_bytes());
        self.bytes.extend_from_slice(packet.header_and_frame().1);
        let rest = self.bytes.len();
        self.bytes.resize(rest + packet.rest.remaining(), 0);
        packet.rest.clone().read_exact(&mut self.bytes[rest..]).expect("the space is that of the rest");
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            self.clear();
        }
    }
}
