// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One virtqueue and the only ritual with which it is served. Owned by a worker, runs on its event loop.
//! Virtio 1.3, 2.7 (split rings), with EVENT_IDX and indirect descriptors where they were negotiated.
//!
//! The driver may write its rings at any moment, so nothing is believed twice: the available index is taken once a
//! round, each entry is read once and remembered in `taken` until its chain has been returned. A head that is offered
//! again before that, or is outside the table, or an index that moved by more than the queue's size, is a *broken ring*:
//! the device needs a reset, and this queue is never touched again. A *broken chain* is returned with length zero.

use super::chain::{Chain, ChainError};
use crate::GuestMemory;
use crate::guest_warn;
use crate::interrupt::Interrupt;
use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Finished: return it to the driver, with this many bytes written to it.
    Done(u32),
    /// Not now: the host side would block. The chain stays first in line and is offered again by the next `serve`.
    Later,
}

/// A ring that cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BrokenRing {
    #[error("available index moved by more than the queue's size, or the rings left memory")]
    Index,
    #[error("descriptor {0} was offered again before it was returned, or is outside the table")]
    Head(u16),
}

impl From<virtio_queue::Error> for BrokenRing {
    fn from(_: virtio_queue::Error) -> Self {
        Self::Index
    }
}

/// One ring and its kick.
#[derive(Debug)]
pub struct Virtqueue {
    /// `disk root, queue 0`, for messages.
    name: String,
    ring: Queue,
    kick: EventFd,
    interrupt: Interrupt,
    /// Whether indirect descriptors were negotiated.
    indirect: bool,
    /// Heads that the driver gave and that were not returned, in order.
    taken: VecDeque<u16>,
    /// Whether a head is in `taken`, by its number.
    in_flight: Box<[bool]>,
    broken: bool,
}

impl Virtqueue {
    /// A queue over `ring`, whose addresses have been checked. `kick` must be non-blocking.
    #[must_use]
    pub fn new(name: String, ring: Queue, kick: EventFd, interrupt: Interrupt, indirect: bool) -> Self {
        let in_flight = vec![false; usize::from(ring.size())].into_boxed_slice();
        Self { name, ring, kick, interrupt, indirect, taken: VecDeque::new(), in_flight, broken: false }
    }

    /// To be waited for with [`Source::kick`](crate::event_loop::Source::kick).
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Hands each offered chain to `work`, in order, until there is none left or `work` says [`Served::Later`], and
    /// interrupts the driver once if it wants to know. While chains wait for later, kicks are suppressed where they can
    /// be; serve again when the host side can go on.
    pub fn serve<'m>(&mut self, memory: &'m GuestMemory, work: impl FnMut(&mut Chain<'m>) -> Served) {
        // Not readable means not kicked since the last time.
        let _ = self.kick.read();
        if self.broken || !self.ring.ready() {
            return;
        }
        if let Err(error) = self.serve_rounds(memory, work) {
            guest_warn!("{}: {error}; the device needs a reset", self.name);
            self.broken = true;
            self.interrupt.needs_reset();
        }
    }

    fn serve_rounds<'m>(
        &mut self,
        memory: &'m GuestMemory,
        mut work: impl FnMut(&mut Chain<'m>) -> Served,
    ) -> Result<(), BrokenRing> {
        // A driver that offers as fast as we serve must not keep the event loop from its other workers.
        let mut budget = 4 * u32::from(self.ring.size());
        let mut used = false;
        'rounds: loop {
            self.ring.disable_notification(memory)?;
            self.take_all(memory)?;
            while let Some(&head) = self.taken.front() {
                if budget == 0 {
                    // It fails only at the counter's limit; then the kick is pending anyway.
                    let _ = self.kick.write(1);
                    break 'rounds;
                }
                budget -= 1;
                let written = match self.chain(memory, head) {
                    Ok(mut chain) => match work(&mut chain) {
                        Served::Done(written) => written,
                        Served::Later => break 'rounds,
                    },
                    Err(error) => {
                        guest_warn!("{}: chain {head} refused: {error}", self.name);
                        0
                    }
                };
                self.taken.pop_front();
                self.in_flight[usize::from(head)] = false;
                self.ring.add_used(memory, head, written)?;
                used = true;
            }
            // Whatever was offered before this took effect was not kicked for: look again.
            if !self.ring.enable_notification(memory)? {
                break;
            }
        }
        if used && self.wants_interrupt(memory)? {
            self.interrupt.queue();
        }
        Ok(())
    }

    /// Moves everything that is in the available ring now to `taken`.
    fn take_all(&mut self, memory: &GuestMemory) -> Result<(), BrokenRing> {
        for chain in self.ring.iter(memory)? {
            let head = chain.head_index();
            match self.in_flight.get_mut(usize::from(head)) {
                Some(in_flight) if !*in_flight => *in_flight = true,
                _ => return Err(BrokenRing::Head(head)),
            }
            self.taken.push_back(head);
        }
        Ok(())
    }

    fn chain<'m>(&self, memory: &'m GuestMemory, head: u16) -> Result<Chain<'m>, ChainError> {
        Chain::walk(memory, GuestAddress(self.ring.desc_table()), self.ring.size(), self.indirect, head)
    }

    fn wants_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, BrokenRing> {
        if self.ring.event_idx_enabled() {
            return Ok(self.ring.needs_notification(memory)?);
        }
        // The used index must be visible before the flag is read, or both sides could miss each other.
        fence(Ordering::SeqCst);
        let flags: u16 =
            memory.load(GuestAddress(self.ring.avail_ring()), Ordering::Relaxed).map_err(|_| BrokenRing::Index)?;
        Ok(u16::from_le(flags) & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
