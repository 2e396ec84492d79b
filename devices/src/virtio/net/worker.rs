// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Serves the queues of an interface, and its backend. One worker for all pairs, on the event loop of
//! the interface.

use super::super::Worker;
use super::super::queue::Virtqueue;
use super::host_side::HostSide;
use super::pair::Pair;
use crate::event_loop::Source;
use crate::interrupt::Interrupt;
use crate::turn::Turn;
use vmm_sys_util::epoll::EventSet;

/// Tokens: the queues of the pairs by their number, the backend, the host's wishes, the limits' timer,
/// the control queue, and from `BACKEND_QUEUES` on each further queue of the backend.
pub(super) const BACKEND: u32 = 1 << 16;
pub(super) const LINK: u32 = BACKEND + 1;
pub(super) const LIMITS: u32 = BACKEND + 2;
pub(super) const CONTROL: u32 = BACKEND + 3;
pub(super) const BACKEND_QUEUES: u32 = 1 << 17;

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
    pairs: Vec<Pair>,
    /// If the driver has one.
    control: Option<Virtqueue>,
    interrupt: Interrupt,
    host: HostSide,
    /// The driver was informed of this state of the link.
    announced_up: bool,
    /// Counts rounds over several pairs or queues. Each is first in turn, so that none has the limits or
    /// the worker's time for itself.
    rounds: usize,
}

impl NetWorker {
    pub(super) fn new(pairs: Vec<Pair>, control: Option<Virtqueue>, interrupt: Interrupt, host: HostSide) -> Self {
        let announced_up = host.link.is_up();
        Self { pairs, control, interrupt, host, announced_up, rounds: 0 }
    }

    /// Passes frames to the guest by one pair: those of the backend's queues that are its own. A
    /// backend may have more queues than the driver uses.
    fn receive(&mut self, pair: usize, turn: &mut Turn<'_>) {
        let step = self.host.active_pairs;
        let count = (self.host.queues() - pair).div_ceil(step);
        for queue in self.round(count).map(|number| pair + number * step) {
            self.pairs[pair].receive(&mut self.host, queue, turn);
        }
    }

    /// Passes on what the guest sends by one pair.
    fn transmit(&mut self, pair: usize, turn: &mut Turn<'_>) {
        self.pairs[pair].transmit(&mut self.host, pair, turn);
    }

    /// Serves all pairs in both directions.
    fn serve(&mut self, turn: &mut Turn<'_>) {
        for pair in self.round(self.host.active_pairs) {
            self.transmit(pair, turn);
            self.receive(pair, turn);
        }
    }

    /// The numbers before `count`, from the next one on.
    fn round(&mut self, count: usize) -> impl Iterator<Item = usize> + use<> {
        self.rounds = self.rounds.wrapping_add(1);
        let first = self.rounds;
        (0..count).map(move |number| first.wrapping_add(number) % count)
    }

    /// Executes the driver's commands.
    fn control(&mut self, turn: &mut Turn<'_>) {
        let Self { control: Some(control), host, .. } = self else { return };
        let before = host.active_pairs;
        control.serve(turn, |chain| host.command(chain));
        if host.active_pairs != before {
            // A pair that was not in use may have been notified before; the backend's queues have
            // other pairs.
            self.serve(turn);
        }
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
        let mut sources = vec![Source::event(&self.host.link.for_worker, LINK), self.host.limiter.source(LIMITS)];
        for (number, pair) in (0..).zip(&self.pairs) {
            sources.push(Source::event(pair.receive.queue_event(), 2 * number));
            sources.push(Source::event(pair.transmit.queue_event(), 2 * number + 1));
        }
        sources.extend(self.control.iter().map(|control| Source::event(control.queue_event(), CONTROL)));
        sources.extend(self.host.host_end.sources(BACKEND, BACKEND_QUEUES));
        sources
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.control(turn);
        self.serve(turn);
        self.announce();
    }

    fn process(&mut self, token: u32, _: EventSet, turn: &mut Turn<'_>) {
        let pair = token as usize / 2;
        match token {
            ..BACKEND if pair >= self.host.active_pairs => {}
            ..BACKEND if token.is_multiple_of(2) => self.receive(pair, turn),
            ..BACKEND => {
                self.transmit(pair, turn);
                if self.host.host_end.has_internal_frame() {
                    self.receive(0, turn);
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
            BACKEND_QUEUES.. => {
                let queue = (token - BACKEND_QUEUES) as usize % self.host.queues();
                self.host.queue_changed(queue);
                let pair = queue % self.host.active_pairs;
                self.transmit(pair, turn);
                self.receive(pair, turn);
            }
            _ => return self.start(turn),
        }
        self.announce();
    }

    fn drain(&mut self) {
        let turn = &mut Turn::unlimited();
        self.control(turn);
        (0..self.host.active_pairs).for_each(|pair| self.transmit(pair, turn));
    }
}
