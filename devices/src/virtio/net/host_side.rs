// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all pairs of queues share: the backend, the limits, the link, and what the driver has set by
//! commands. Runs on the event loop of the interface.

use super::super::chain::Chain;
use super::super::queue::Served;
use super::control::{Command, OffloadChanges};
use super::filter::{Address, Filter};
use super::internal_host::HostEnd;
use super::link::Link;
use super::packet::{HEADER_SIZE, Rules, guest_offloads, is_offload_set, segments};
use super::saved::Commanded;
use super::sent::{Copied, SentPacket};
use crate::guest_warn;
use crate::interrupt::Interrupt;
use crate::rate_limit::{Direction, Limiter};
use crate::slot::Borrowed;
use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

/// What survives a reset.
pub(super) struct Kept {
    pub(super) host_end: Borrowed<HostEnd>,
    pub(super) limiter: Borrowed<Limiter>,
    pub(super) commanded: Borrowed<Commanded>,
}

pub(super) struct HostSide {
    /// For messages.
    name: String,
    pub(super) host_end: Borrowed<HostEnd>,
    pub(super) limiter: Borrowed<Limiter>,
    pub(super) link: Arc<Link>,
    pub(super) rules: Rules,
    filter: Filter,
    offload_changes: OffloadChanges,
    /// What the driver has left to it of [`guest_offloads`].
    offloads: u64,
    /// Gets all this when the worker is dropped.
    commanded: Borrowed<Commanded>,
    /// Of the interface as it was configured.
    address: Address,
    interrupt: Interrupt,
    max_pairs: u16,
    /// Pairs that the driver uses: the first ones.
    pub(super) active_pairs: usize,
    /// Queues of the backend that did not return `WouldBlock` when they were last read.
    readable: Box<[bool]>,
    /// For packets of the guest.
    copied: Copied,
}

impl HostSide {
    /// For a driver with `max_pairs` pairs of queues, of which it uses the first one until it commands
    /// more (virtio 1.3, 5.1.6.5.5).
    pub(super) fn new(
        name: String,
        kept: Kept,
        link: Arc<Link>,
        rules: Rules,
        max_pairs: u16,
        interrupt: Interrupt,
    ) -> Self {
        let Kept { host_end, limiter, commanded } = kept;
        Self {
            name,
            commanded,
            limiter,
            filter: Filter::new(rules.features, link.address()),
            offload_changes: OffloadChanges::new(Instant::now()),
            offloads: rules.features & guest_offloads(true),
            rules,
            address: link.address(),
            interrupt,
            link,
            max_pairs,
            active_pairs: 1,
            readable: vec![true; host_end.queues()].into_boxed_slice(),
            host_end,
            copied: Copied::new(),
        }
    }

    /// Goes on with what the driver had set.
    ///
    /// # Errors
    /// The driver cannot have set it with its features, or the host cannot.
    pub(super) fn resume(&mut self, commanded: &Commanded) -> Result<()> {
        let (pairs, offloads) = (commanded.pairs(), commanded.offloads());
        if !(1..=self.max_pairs).contains(&pairs) || !is_offload_set(offloads, self.rules.features) {
            return Err(ErrorKind::InvalidData.into());
        }
        commanded.apply(&mut self.filter);
        self.link.set_address(commanded.address());
        self.active_pairs = pairs.into();
        if offloads != self.offloads {
            self.host_end.set_features(self.rules.set_offloads(offloads))?;
            self.offloads = offloads;
        }
        Ok(())
    }

    /// The backend may have something to read, accept more, or have come or gone.
    pub(super) fn changed(&mut self) {
        let was_known = self.host_end.is_connected().is_some();
        self.host_end.changed();
        self.readable.fill(true);
        if was_known && self.host_end.is_connected().is_none() {
            guest_warn!("{}: the host's interface is gone", self.name);
            self.link.set_connected(false);
        }
    }

    /// Queue `queue` of the backend has something to read, or accepts more.
    pub(super) fn queue_changed(&mut self, queue: usize) {
        self.readable[queue] = true;
    }

    /// Queues of the backend.
    pub(super) fn queues(&self) -> usize {
        self.readable.len()
    }

    pub(super) fn may_receive(&self, queue: usize) -> bool {
        let has_internal_frame = queue == 0 && self.host_end.has_internal_frame();
        (self.readable[queue] || has_internal_frame) && self.link.is_enabled()
    }

    /// Length of the next frame from queue `queue` of the backend and its header, which is completed.
    /// `None` if there is none now, or one that was dropped.
    pub(super) fn next_length(&mut self, queue: usize) -> Option<usize> {
        let is_unknown = self.host_end.is_connected().is_none();
        match self.host_end.receive(queue) {
            Ok(packet) => {
                if is_unknown {
                    self.link.set_connected(true);
                }
                // The guest asked for less than all: nothing is lost for it.
                if !packet.get(HEADER_SIZE..).is_none_or(|frame| self.filter.admits(frame)) {
                    self.host_end.consume(queue);
                    return None;
                }
                if self.rules.prepare_received(packet) {
                    return Some(packet.len());
                }
                self.drop_received(queue);
            }
            // One frame that the host's kernel cannot describe in a header.
            Err(error) if error.kind() == ErrorKind::InvalidInput => self.drop_received(queue),
            Err(error) => {
                self.readable[queue] = false;
                if error.kind() != ErrorKind::WouldBlock && is_unknown && self.link.is_connected() {
                    guest_warn!("{}: the host's end is gone: {error}", self.name);
                    self.link.set_connected(false);
                }
            }
        }
        None
    }

    pub(super) fn drop_received(&mut self, queue: usize) {
        self.host_end.consume(queue);
        self.link.counters.rx_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the frame in `chain` to queue `queue` of the backend.
    pub(super) fn send(&mut self, queue: usize, chain: &mut Chain<'_>) -> Served {
        if !self.limiter.admits(Direction::FromGuest) {
            return Served::Later;
        }
        let packet = self.copied.take(chain.readable.split_off(0), self.host_end.needs_whole_packets());
        let may_be_sent = |packet: &SentPacket<'_>| self.rules.may_be_sent(packet.start(), packet.length());
        let Some(packet) = packet.filter(|packet| self.link.is_enabled() && may_be_sent(packet)) else {
            return self.drop_sent();
        };
        match self.host_end.send(queue, &packet) {
            Ok(()) => {
                let (bytes, packets) = (packet.frame_length() as u64, segments(packet.start(), packet.length()));
                self.limiter.spend(Direction::FromGuest, bytes, packets);
                self.link.counters.tx_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.link.counters.tx_packets.fetch_add(1, Ordering::Relaxed);
                Served::Done(0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Served::Later,
            // The interface is down or gone, or the kernel rejects the frame: it is lost, as on a
            // cable.
            Err(_) => self.drop_sent(),
        }
    }

    /// Executes one command, and answers it.
    pub(super) fn command(&mut self, chain: &mut Chain<'_>) -> Served {
        if chain.writable.remaining() == 0 {
            guest_warn!("{}: a command without space for its answer was ignored", self.name);
            return Served::Done(0);
        }
        let command = Command::read(&mut chain.readable, self.rules.features, self.max_pairs);
        let is_done = command.is_some_and(|command| self.execute(command));
        if !is_done {
            guest_warn!("{}: a command was rejected", self.name);
        }
        let answer = if is_done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        chain.writable.write_all(&[answer as u8]).expect("there is a byte");
        Served::Done(1)
    }

    /// `false` if the host cannot.
    fn execute(&mut self, command: Command) -> bool {
        match command {
            Command::Mode(mode, on) => self.filter.set_mode(mode, on),
            Command::Tables { unicast, multicast } => self.filter.set_tables(unicast, multicast),
            Command::Address(address) => {
                self.filter.set_address(address);
                self.link.set_address(address);
                self.interrupt.change_config();
            }
            Command::Vlan(vlan, accepted) => self.filter.set_vlan(vlan, accepted),
            Command::Offloads(offloads) => return self.set_offloads(offloads),
            Command::Pairs(pairs) => self.active_pairs = pairs.into(),
        }
        true
    }

    fn set_offloads(&mut self, offloads: u64) -> bool {
        if offloads == self.offloads {
            return true;
        }
        if !self.offload_changes.admits(Instant::now()) {
            return false;
        }
        let mut rules = self.rules;
        if let Err(error) = self.host_end.set_features(rules.set_offloads(offloads)) {
            guest_warn!("{}: cannot set the offloads of the host's interface: {error}", self.name);
            return false;
        }
        (self.rules, self.offloads) = (rules, offloads);
        true
    }

    fn drop_sent(&self) -> Served {
        self.link.counters.tx_dropped.fetch_add(1, Ordering::Relaxed);
        Served::Done(0)
    }
}

/// A reset by the driver ends what it has set. A worker that is taken from its loop and put on one
/// again keeps it.
impl Drop for HostSide {
    fn drop(&mut self) {
        *self.commanded = Commanded::new(&self.filter, self.offloads, self.active_pairs);
        self.link.set_address(self.address);
    }
}
