// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host inside of this process, on the guest's link beside the backend: a service that the guest
//! reaches whatever its network is. Used on the event loop of the interface.

use super::backend::Backend;
use super::packet::HEADER_SIZE;
use super::sent::SentPacket;
use crate::event_loop::Source;
use std::fmt::Debug;
use std::io::Result;
use std::time::Duration;
use vmm_sys_util::timerfd::TimerFd;

/// A host that is a part of this process. Frames are Ethernet frames without a checksum at their
/// end.
pub trait InternalHost: Send + Debug {
    /// Receives `frame` if it is addressed to this host; `false` leaves it to the backend. Checksums
    /// of UDP and TCP may be incomplete, and a segment may be larger than the link's frames.
    fn receive(&mut self, frame: &[u8]) -> bool;

    /// Appends the next frame to the guest to `buffer`. `false` if there is none now.
    fn send(&mut self, buffer: &mut Vec<u8>) -> bool;

    /// When there may be a frame without one from the guest before it.
    fn next_timeout(&mut self) -> Option<Duration>;
}

/// The other end of the guest's link: the backend, and the internal host if there is one.
#[derive(Debug)]
pub(super) struct HostEnd {
    backend: Backend,
    internal: Option<Internal>,
}

#[derive(Debug)]
struct Internal {
    host: Box<dyn InternalHost>,
    /// A frame to the guest behind virtio's header, or empty.
    packet: Vec<u8>,
    timer: TimerFd,
}

impl Internal {
    /// Has the next frame ready, or wakes the worker when there may be one. While a frame waits for
    /// the guest's buffers nothing else happens.
    fn update(&mut self) {
        if self.packet.is_empty() {
            self.packet.resize(HEADER_SIZE, 0);
            if !self.host.send(&mut self.packet) {
                self.packet.clear();
            }
        }
        let delay = if self.packet.is_empty() { self.host.next_timeout() } else { None };
        // It fails for invalid times only.
        let _ = match delay {
            // Zero would disarm it.
            Some(delay) => self.timer.reset(delay.max(Duration::from_millis(1)), None),
            None => self.timer.clear(),
        };
    }
}

impl HostEnd {
    pub(super) fn new(backend: Backend, host: Option<Box<dyn InternalHost>>) -> Result<Self> {
        let internal = |host| Ok::<_, std::io::Error>(Internal { host, packet: Vec::new(), timer: TimerFd::new()? });
        Ok(Self { backend, internal: host.map(internal).transpose()? })
    }

    /// See [`Backend::features`].
    pub(super) fn features(&self) -> u64 {
        self.backend.features()
    }

    /// See [`Backend::queues`].
    pub(super) fn queues(&self) -> usize {
        self.backend.queues()
    }

    /// See [`Backend::set_features`].
    pub(super) fn set_features(&self, features: u64) -> Result<()> {
        self.backend.set_features(features)
    }

    /// See [`Backend::forget`].
    pub(super) fn forget(&mut self) {
        if let Some(internal) = &mut self.internal {
            internal.packet.clear();
        }
        self.backend.forget();
    }

    /// See [`Backend::is_connected`].
    pub(super) fn is_connected(&self) -> Option<bool> {
        self.backend.is_connected()
    }

    /// See [`Backend::sources`].
    pub(super) fn sources(&self, token: u32, queues: u32) -> Vec<Source> {
        let mut sources = self.backend.sources(token, queues);
        sources.extend(self.internal.as_ref().map(|internal| Source::readable(&internal.timer, token)));
        sources
    }

    /// See [`Backend::changed`].
    pub(super) fn changed(&mut self) {
        self.backend.changed();
        if let Some(internal) = &mut self.internal {
            internal.update();
        }
    }

    /// Whether the internal host has sent a frame, which comes from queue 0.
    pub(super) fn has_internal_frame(&self) -> bool {
        self.internal.as_ref().is_some_and(|internal| !internal.packet.is_empty())
    }

    /// See [`Backend::receive`].
    pub(super) fn receive(&mut self, queue: usize) -> Result<&mut [u8]> {
        match &mut self.internal {
            Some(internal) if queue == 0 && !internal.packet.is_empty() => Ok(&mut internal.packet),
            _ => self.backend.receive(queue),
        }
    }

    /// See [`Backend::consume`].
    pub(super) fn consume(&mut self, queue: usize) {
        match &mut self.internal {
            Some(internal) if queue == 0 && !internal.packet.is_empty() => {
                internal.packet.clear();
                internal.update();
            }
            _ => self.backend.consume(queue),
        }
    }

    /// Whether [`send`](Self::send) must get packets without a rest: the internal host looks at all of a frame.
    pub(super) fn needs_whole_packets(&self) -> bool {
        self.internal.is_some()
    }

    /// See [`Backend::send`].
    pub(super) fn send(&mut self, queue: usize, packet: &SentPacket<'_>) -> Result<()> {
        if let Some(internal) = &mut self.internal
            && internal.host.receive(packet.header_and_frame().1)
        {
            internal.update();
            return Ok(());
        }
        self.backend.send(queue, packet)
    }

    /// See [`Backend::flush`].
    pub(super) fn flush(&mut self) {
        self.backend.flush();
    }
}
