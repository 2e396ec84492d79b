// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of a network device: one of several kinds, and what the worker needs of each. Made
//! on `main`, used on the event loop of the interface.
//!
//! Frames pass behind virtio's header, whether the backend has it or not. A backend holds at most
//! one received frame until the worker consumes it.

use super::link_watch::LinkState;
use super::packet_socket::PacketSocket;
use super::sent::SentPacket;
use super::stream::StreamSocket;
use super::tap::Tap;
use crate::event_loop::Source;
use std::io::{ErrorKind, Result};

/// Queues of a backend, each with a pair of queues of the device. All are served by one thread, so that
/// more serve only to keep vCPUs from waiting for each other; each pair that is used costs the guest
/// 400 KiB of receive buffers.
pub const MAX_QUEUE_PAIRS: u16 = 8;

/// The host's end of a network device.
#[derive(Debug)]
pub enum Backend {
    /// A tap, or a macvtap.
    Tap(Tap),
    /// Frames behind their length, on a Unix stream socket: passt, a switch, another machine.
    Stream(StreamSocket),
    /// A packet socket that is bound to an interface.
    Packet(PacketSocket),
    /// No other host: a link with an [`InternalHost`](super::InternalHost) alone.
    None,
    /// No other host: the device has the features and queues that another backend would give it.
    Absent {
        /// Features of the network device that depend on the backend.
        features: u64,
        /// Queues of the backend.
        queues: usize,
    },
}

impl From<Tap> for Backend {
    fn from(tap: Tap) -> Self {
        Self::Tap(tap)
    }
}

impl From<StreamSocket> for Backend {
    fn from(stream: StreamSocket) -> Self {
        Self::Stream(stream)
    }
}

impl From<PacketSocket> for Backend {
    fn from(socket: PacketSocket) -> Self {
        Self::Packet(socket)
    }
}

impl Backend {
    /// Whether it makes a new connection to its socket after the first has ended.
    #[must_use]
    pub fn connects_again(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.connects_again())
    }

    /// Its queues. Those other than the first have frames of their own and are known by their number.
    #[must_use]
    pub fn queues(&self) -> usize {
        match self {
            Self::Tap(tap) => tap.queues(),
            Self::Stream(_) | Self::Packet(_) | Self::None => 1,
            Self::Absent { queues, .. } => *queues,
        }
    }

    /// Features of the network device that this backend makes possible.
    #[must_use]
    pub fn features(&self) -> u64 {
        match self {
            Self::Tap(tap) => tap.features(),
            Self::Stream(_) => StreamSocket::FEATURES,
            Self::Packet(socket) => socket.features(),
            Self::None => 0,
            Self::Absent { features, .. } => *features,
        }
    }

    /// Leaves to the guest what `features` has of offloads.
    pub(super) fn set_features(&self, features: u64) -> Result<()> {
        match self {
            Self::Tap(tap) => tap.set_features(features),
            Self::Stream(_) | Self::Packet(_) | Self::None | Self::Absent { .. } => Ok(()),
        }
    }

    /// Forgets what was received for another driver. A stream has nothing that belongs to one.
    pub(super) fn forget(&mut self) {
        if !matches!(self, Self::Stream(_)) {
            (0..self.queues()).for_each(|queue| self.consume(queue));
        }
    }

    /// Whether frames can pass. `None` if only a receive shows it.
    pub(super) fn is_connected(&self) -> Option<bool> {
        match self {
            Self::Tap(tap) => tap.link_state().and_then(is_up),
            Self::Stream(stream) => Some(stream.is_connected()),
            Self::Packet(socket) => is_up(socket.link_state()),
            Self::None | Self::Absent { .. } => Some(true),
        }
    }

    /// What the worker waits for: with `token`, and for each further queue with its number added to
    /// `queues`.
    pub(super) fn sources(&self, token: u32, queues: u32) -> Vec<Source> {
        match self {
            Self::Tap(tap) => tap.sources(token, queues),
            Self::Stream(stream) => stream.sources(token),
            Self::Packet(socket) => socket.sources(token),
            Self::None | Self::Absent { .. } => Vec::new(),
        }
    }

    /// One of the sources with the first token is ready.
    pub(super) fn changed(&mut self) {
        match self {
            Self::Tap(tap) => tap.changed(),
            Self::Stream(stream) => stream.changed(),
            Self::Packet(socket) => socket.changed(),
            Self::None | Self::Absent { .. } => {}
        }
    }

    /// The next frame of queue `queue`, with a header before it. The same again until it is consumed.
    ///
    /// # Errors
    /// There is none now (`WouldBlock`), or the backend is gone.
    pub(super) fn receive(&mut self, queue: usize) -> Result<&mut [u8]> {
        match self {
            Self::Tap(tap) => tap.receive(queue),
            Self::Stream(stream) => stream.receive(),
            Self::Packet(socket) => socket.receive(),
            Self::None | Self::Absent { .. } => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Forgets the frame that was received last from queue `queue`.
    pub(super) fn consume(&mut self, queue: usize) {
        match self {
            Self::Tap(tap) => tap.consume(queue),
            Self::Stream(stream) => stream.consume(),
            Self::Packet(socket) => socket.consume(),
            Self::None | Self::Absent { .. } => {}
        }
    }

    /// Sends one packet, header and frame, on queue `queue`, or takes it over until [`flush`](Self::flush).
    ///
    /// # Errors
    /// Not now (`WouldBlock`), or the frame is lost.
    pub(super) fn send(&mut self, queue: usize, packet: &SentPacket<'_>) -> Result<()> {
        match self {
            Self::Tap(tap) => tap.send(queue, packet),
            Self::Stream(stream) => stream.send(packet),
            Self::Packet(socket) => socket.send(packet),
            // As on a cable without another end.
            Self::None | Self::Absent { .. } => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Sends on what was taken over, as far as the host accepts it now.
    pub(super) fn flush(&mut self) {
        if let Self::Stream(stream) = self {
            stream.flush();
        }
    }
}

/// An interface that is gone from here may have been moved to another network namespace and carry
/// frames there.
fn is_up(state: LinkState) -> Option<bool> {
    match state {
        LinkState::Up => Some(true),
        LinkState::Down => Some(false),
        LinkState::Gone => None,
    }
}
