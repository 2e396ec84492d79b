// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves frames between the queues and the backend. Runs on the event loop of the interface.

use super::super::chain::Chain;
use super::super::queue::{Served, Taken, Virtqueue};
use super::super::{Activation, Worker};
use super::control::{Command, OffloadChanges};
use super::filter::{Address, Filter};
use super::internal_host::HostEnd;
use super::link::Link;
use super::packet::{HEADER_SIZE, MAX_FRAME_BYTES, MIN_FRAME_BYTES, Rules, guest_offloads, segments, set_buffers};
use crate::event_loop::Source;
use crate::guest_warn;
use crate::interrupt::Interrupt;
use crate::rate_limit::{Direction, Limiter};
use crate::slot::Borrowed;
use crate::turn::Turn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_OK};
use vmm_sys_util::epoll::EventSet;

/// Tokens: the queues by their number, the backend, the host's wishes, and the limits' timer.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const CONTROL: u32 = 2;
pub(super) const BACKEND: u32 = 1 << 16;
pub(super) const LINK: u32 = BACKEND + 1;
const LIMITS: u32 = BACKEND + 2;
/// Frames from the backend that are handled in one turn.
const MAX_RECEIVED: u32 = 1024;
/// Frames from the backend that are dropped in a row before a buffer is returned empty.
const MAX_DROPS: u32 = 64;

device_counters! {
    /// What went through a network device since the start, seen from the guest. Monotonic, relaxed: for
    /// statistics.
    NetCounters {
        /// Bytes of frames that the guest received.
        rx_bytes,
        /// Frames that the guest received.
        rx_packets,
        /// Frames to the guest that did not fit its buffers, or that it cannot handle.
        rx_dropped,
        /// Bytes of frames that the guest sent.
        tx_bytes,
        /// Frames that the guest sent.
        tx_packets,
        /// Invalid frames of the guest, and those that the host did not accept.
        tx_dropped,
    }
}

pub(super) struct NetWorker {
    receive: Virtqueue,
    transmit: Virtqueue,
    /// If the driver has one.
    control: Option<Virtqueue>,
    interrupt: Interrupt,
    /// Buffers for the next frame, as far as they were needed.
    buffers: Vec<Taken>,
    /// Bytes of `buffers`.
    space: usize,
    /// Frames that were dropped since the last that was received.
    drops: u32,
    host: HostSide,
    /// The driver was informed of this state of the link.
    announced_up: bool,
}

/// The host's side.
struct HostSide {
    /// For messages.
    name: String,
    host_end: Borrowed<HostEnd>,
    limiter: Borrowed<Limiter>,
    link: Arc<Link>,
    rules: Rules,
    filter: Filter,
    features: u64,
    offload_changes: OffloadChanges,
    /// What the driver has left to it of [`guest_offloads`].
    offloads: u64,
    /// Of the interface as it was configured.
    address: Address,
    interrupt: Interrupt,
    /// The backend did not return `WouldBlock` when it was last read.
    readable: bool,
    /// A packet of the guest: header and frame.
    sent: Box<[u8]>,
}

impl NetWorker {
    pub(super) fn new(
        activation: Activation,
        name: String,
        host_end: Borrowed<HostEnd>,
        limiter: Borrowed<Limiter>,
        link: Arc<Link>,
        rules: Rules,
    ) -> Self {
        let Activation { mut queues, interrupt, features, .. } = activation;
        let (receive, transmit) = (queues.remove(0), queues.remove(0));
        let control = queues.pop().filter(|_| features & 1 << VIRTIO_NET_F_CTRL_VQ != 0);
        let sent = vec![0; HEADER_SIZE + MAX_FRAME_BYTES].into_boxed_slice();
        let announced_up = link.is_up();
        let host = HostSide {
            name,
            host_end,
            limiter,
            rules,
            filter: Filter::new(features, link.address()),
            address: link.address(),
            features,
            offload_changes: OffloadChanges::new(Instant::now()),
            offloads: features & guest_offloads(true),
            interrupt: interrupt.clone(),
            link,
            readable: true,
            sent,
        };
        Self { receive, transmit, control, interrupt, buffers: Vec::new(), space: 0, drops: 0, host, announced_up }
    }

    /// Passes frames to the guest until there is none, the guest has no buffers, or the turn is
    /// over.
    fn receive(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MAX_RECEIVED {
            if turn.is_over() {
                break;
            }
            // The backend is not read before there is a buffer.
            if !self.host.may_receive() || !self.add_buffers(1) || !self.host.limiter.admits(Direction::ToGuest) {
                return;
            }
            let Some(length) = self.host.next_length() else { continue };
            if !self.add_buffers(length) {
                if self.host.rules.is_merging() && self.buffers.len() < usize::from(self.receive.size()) {
                    // The frame waits for more.
                    return;
                }
                self.host.drop_received();
                self.drops += 1;
                if self.drops >= MAX_DROPS {
                    // The buffers are too small for what comes. They are returned, so that this
                    // does not stall.
                    self.receive.finish_many(self.buffers.drain(..).map(|taken| (taken, 0)));
                    (self.space, self.drops) = (0, 0);
                }
                continue;
            }
            self.fill(length);
            turn.spend(length as u64);
        }
        self.receive.reschedule();
    }

    /// Takes buffers until there is space for `length` bytes. `false` if there is less for now, or
    /// if buffers are not merged and the one that there is, is too small.
    fn add_buffers(&mut self, length: usize) -> bool {
        while self.space < length {
            if !self.buffers.is_empty() && !self.host.rules.is_merging() {
                return false;
            }
            let Some(taken) = self.receive.take() else { return false };
            let space = taken.chain().writable.remaining();
            if space < HEADER_SIZE {
                // The header must be in one buffer.
                self.receive.finish(taken, 0);
                continue;
            }
            self.space += space;
            self.buffers.push(taken);
        }
        true
    }

    /// Writes the received packet, which has `length` bytes, to the buffers, and returns them.
    fn fill(&mut self, length: usize) {
        let Self { receive, buffers, host, .. } = self;
        let Ok(packet) = host.host_end.receive() else { return };
        host.limiter.spend(Direction::ToGuest, (length - HEADER_SIZE) as u64, segments(packet));
        // No more than the queue has.
        set_buffers(packet, buffers.len() as u16);
        let mut rest = &*packet;
        receive.finish_many(buffers.drain(..).map(|taken| {
            let mut place = taken.chain().writable;
            let (now, later) = rest.split_at(place.remaining().min(rest.len()));
            place.write_all(now).expect("the length was compared with the space");
            rest = later;
            // A packet is shorter than 4 GiB.
            (taken, now.len() as u32)
        }));
        (self.space, self.drops) = (0, 0);
        host.host_end.consume();
        host.link.counters.rx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
        host.link.counters.rx_packets.fetch_add(1, Ordering::Relaxed);
    }

    /// Passes on what the guest sends.
    fn transmit(&mut self, turn: &mut Turn<'_>) {
        let Self { transmit, host, .. } = self;
        transmit.serve(turn, |chain| host.send(chain));
        host.host_end.flush();
    }

    /// Executes the driver's commands.
    fn control(&mut self, turn: &mut Turn<'_>) {
        let Self { control: Some(control), host, .. } = self else { return };
        control.serve(turn, |chain| host.command(chain));
    }

    /// Informs the driver if the link has changed.
    fn announce(&mut self) {
        if let Some(is_connected) = self.host.host_end.is_connected() {
            self.host.link.set_connected(is_connected);
        }
        let is_up = self.host.link.is_up();
        if std::mem::replace(&mut self.announced_up, is_up) != is_up {
            self.interrupt.signal_config();
        }
    }
}

impl Worker for NetWorker {
    fn sources(&self) -> Vec<Source> {
        let mut sources = vec![
            Source::event(self.receive.queue_event(), RECEIVE),
            Source::event(self.transmit.queue_event(), TRANSMIT),
            Source::event(&self.host.link.for_worker, LINK),
            self.host.limiter.source(LIMITS),
        ];
        sources.extend(self.control.iter().map(|control| Source::event(control.queue_event(), CONTROL)));
        sources.extend(self.host.host_end.sources(BACKEND));
        sources
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.control(turn);
        self.transmit(turn);
        self.receive(turn);
        self.announce();
    }

    fn process(&mut self, token: u32, _: EventSet, turn: &mut Turn<'_>) {
        match token {
            RECEIVE => self.receive(turn),
            TRANSMIT => {
                self.transmit(turn);
                if self.host.host_end.has_internal_frame() {
                    self.receive(turn);
                }
            }
            CONTROL => self.control(turn),
            BACKEND => {
                self.host.changed();
                return self.start(turn);
            }
            LIMITS => {
                self.host.limiter.update();
                return self.start(turn);
            }
            _ => return self.start(turn),
        }
        self.announce();
    }

    fn drain(&mut self) {
        self.control(&mut Turn::unlimited());
        self.transmit(&mut Turn::unlimited());
    }
}

impl HostSide {
    /// The backend may have something to read, accept more, or have come or gone.
    fn changed(&mut self) {
        let was_known = self.host_end.is_connected().is_some();
        self.host_end.changed();
        self.readable = true;
        if was_known && self.host_end.is_connected().is_none() {
            guest_warn!("{}: the host's interface is gone", self.name);
            self.link.set_connected(false);
        }
    }

    fn may_receive(&self) -> bool {
        (self.readable || self.host_end.has_internal_frame()) && self.link.is_enabled()
    }

    /// Length of the next frame from the backend and its header, which is completed. `None` if
    /// there is none now, or one that was dropped.
    fn next_length(&mut self) -> Option<usize> {
        let is_unknown = self.host_end.is_connected().is_none();
        match self.host_end.receive() {
            Ok(packet) => {
                if is_unknown {
                    self.link.set_connected(true);
                }
                // The guest asked for less than all: nothing is lost for it.
                if !packet.get(HEADER_SIZE..).is_none_or(|frame| self.filter.admits(frame)) {
                    self.host_end.consume();
                    return None;
                }
                if self.rules.prepare_received(packet) {
                    return Some(packet.len());
                }
                self.drop_received();
            }
            // One frame that the host's kernel cannot describe in a header.
            Err(error) if error.kind() == ErrorKind::InvalidInput => self.drop_received(),
            Err(error) => {
                self.readable = false;
                if error.kind() != ErrorKind::WouldBlock && is_unknown && self.link.is_connected() {
                    guest_warn!("{}: the host's end is gone: {error}", self.name);
                    self.link.set_connected(false);
                }
            }
        }
        None
    }

    fn drop_received(&mut self) {
        self.host_end.consume();
        self.link.counters.rx_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the frame in `chain` to the backend.
    fn send(&mut self, chain: &mut Chain<'_>) -> Served {
        if !self.limiter.admits(Direction::FromGuest) {
            return Served::Later;
        }
        let length = chain.readable.remaining();
        if !(HEADER_SIZE + MIN_FRAME_BYTES..=self.sent.len()).contains(&length) {
            return self.drop_sent();
        }
        let packet = &mut self.sent[..length];
        chain.readable.read_exact(packet).expect("the packet has the length of the chain");
        if !self.link.is_enabled() || !self.rules.may_be_sent(packet) {
            return self.drop_sent();
        }
        match self.host_end.send(packet) {
            Ok(()) => {
                self.limiter.spend(Direction::FromGuest, (length - HEADER_SIZE) as u64, segments(packet));
                self.link.counters.tx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
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
    fn command(&mut self, chain: &mut Chain<'_>) -> Served {
        if chain.writable.remaining() == 0 {
            guest_warn!("{}: a command without space for its answer was ignored", self.name);
            return Served::Done(0);
        }
        let command = Command::read(&mut chain.readable, self.features);
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
        self.link.set_address(self.address);
    }
}
