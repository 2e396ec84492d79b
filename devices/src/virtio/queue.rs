// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One virtqueue. Owned by a worker, runs on its event loop. Virtio 1.3, 2.7 (split rings), with
//! EVENT_IDX and indirect descriptors where they were negotiated.
//!
//! A worker takes chains with [`Virtqueue::take`] and finishes each exactly once with
//! [`Virtqueue::finish`], at any time and in any order. [`Virtqueue::serve`] does both, for devices
//! that answer at once.
//!
//! The driver may write its rings at any moment, so nothing is read twice: each entry of the
//! available ring is read once and stored until its chain is finished. A head that is offered while
//! it is in flight or is outside the table, and an index that moves by more than the queue's size,
//! are a *broken ring*: the device needs a reset, and this queue is never touched again. A *broken
//! chain* is returned with length zero.

use super::chain::{Buffers, Chain};
use super::queue_position::{PositionError, PositionSlot, QueuePosition};
use crate::GuestMemory;
use crate::guest_warn;
use crate::interrupt::Interrupt;
use crate::planted::{PlantedFault, is_planted};
use crate::turn::Turn;
use std::collections::VecDeque;
use std::num::{NonZeroU64, Wrapping};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

/// Chains that one call of [`Virtqueue::serve`] hands out, in multiples of the queue's size.
const MAX_SERVED_QUEUES: u32 = 4;

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Finished: return it to the driver, with this many bytes written to it.
    Done(u32),
    /// Not now: the host side would block. The chain stays first in line and is handed out again by
    /// the next `serve`.
    Later,
}

/// A ring that cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BrokenRing {
    #[error("available index moved by more than the queue's size, or the rings left memory")]
    Index,
    #[error("descriptor {0} was offered again before it was returned, or is outside the table")]
    Head(u16),
    #[error("a chain was dropped without being finished")]
    Dropped,
}

impl From<virtio_queue::Error> for BrokenRing {
    fn from(_: virtio_queue::Error) -> Self {
        Self::Index
    }
}

impl From<vm_memory::GuestMemoryError> for BrokenRing {
    fn from(_: vm_memory::GuestMemoryError) -> Self {
        Self::Index
    }
}

/// What a queue and its chains in flight share.
#[derive(Debug)]
struct Shared {
    memory: GuestMemory,
    /// Signalled by the driver, and by [`Virtqueue::reschedule`].
    event: Arc<EventFd>,
    /// A [`Taken`] was dropped.
    has_dropped: AtomicBool,
}

impl Shared {
    fn signal(&self) {
        // The write fails only when the counter is at its limit; an event is pending then.
        let _ = self.event.write(1);
    }
}

/// A chain in flight. It must be given back to its queue with [`Virtqueue::finish`]. To drop it is
/// a mistake of the device: the driver would wait for it for ever. The queue then panics in debug
/// builds, and is a broken ring in others. A worker that the driver resets is dropped with its
/// queues and all that it has taken, which is no mistake.
#[derive(Debug)]
#[must_use = "a chain that is taken must be finished"]
pub struct Taken {
    head: u16,
    buffers: Buffers,
    shared: Arc<Shared>,
    is_finished: bool,
}

impl Taken {
    /// The chain from its start.
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        self.buffers.chain(&self.shared.memory)
    }

    fn finish(mut self) -> (u16, Buffers) {
        self.is_finished = true;
        (self.head, std::mem::take(&mut self.buffers))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_finished {
            self.shared.has_dropped.store(true, Ordering::SeqCst);
            // The queue finds out when its worker is called. This makes sure that it is.
            self.shared.signal();
        }
    }
}

/// One ring and its event.
#[derive(Debug)]
pub struct Virtqueue {
    /// `disk root, queue 0`, for messages.
    name: String,
    ring: Queue,
    shared: Arc<Shared>,
    interrupt: Interrupt,
    /// Indirect descriptors were negotiated.
    indirect: bool,
    /// Heads that were offered and have not been taken, in order.
    offered: VecDeque<u16>,
    /// For each head that is in `offered`, in `put_back` or taken: how many were offered before it,
    /// and one.
    in_flight: Box<[Option<NonZeroU64>]>,
    /// Heads that were ever offered. 64 bits do not overflow.
    offered_heads: u64,
    /// Taken, but handed out again first.
    put_back: Option<Taken>,
    /// Lists that finished chains have left behind, for the next ones.
    spare: Vec<Buffers>,
    /// The used index when the driver was last considered for an interrupt.
    signalled_used: Wrapping<u16>,
    is_broken: bool,
    /// Filled when this is dropped.
    position: Option<PositionSlot>,
}

impl Virtqueue {
    /// A queue over `ring`, whose addresses in `memory` have been checked. `event` must be
    /// non-blocking.
    #[must_use]
    pub fn new(
        name: String,
        ring: Queue,
        event: Arc<EventFd>,
        memory: GuestMemory,
        interrupt: Interrupt,
        indirect: bool,
    ) -> Self {
        let size = usize::from(ring.size());
        Self {
            name,
            signalled_used: Wrapping(ring.next_used()),
            ring,
            shared: Arc::new(Shared { memory, event, has_dropped: AtomicBool::new(false) }),
            interrupt,
            indirect,
            offered: VecDeque::with_capacity(size),
            in_flight: vec![None; size].into_boxed_slice(),
            offered_heads: 0,
            put_back: None,
            spare: Vec::new(),
            is_broken: false,
            position: None,
        }
    }

    /// Has the queue leave its position in `slot` when it is dropped.
    pub(super) fn leave_position(&mut self, slot: PositionSlot) {
        self.position = Some(slot);
    }

    /// Continues at `position`: a new queue over the ring of one that was there. What was in flight
    /// is taken again, first.
    pub(super) fn continue_at(&mut self, position: &QueuePosition) -> Result<(), PositionError> {
        position.check(&self.ring)?;
        let next_used = Wrapping(position.next_used);
        // At most the queue's size. Every head that was offered is in flight or was returned.
        let next_available = next_used + Wrapping(position.in_flight.len() as u16);
        self.ring.set_next_used(next_used.0);
        self.ring.set_next_avail(next_available.0);
        self.signalled_used = next_used;
        for &head in &position.in_flight {
            self.offered_heads += 1;
            self.in_flight[usize::from(head)] = NonZeroU64::new(self.offered_heads);
            self.offered.push_back(head);
        }
        self.is_broken = position.is_broken;
        Ok(())
    }

    fn position(&self) -> QueuePosition {
        let mut in_flight: Vec<_> =
            (0..).zip(&self.in_flight).filter_map(|(head, at)| at.map(|at| (at, head))).collect();
        in_flight.sort_unstable();
        QueuePosition {
            next_used: self.ring.next_used(),
            in_flight: in_flight.into_iter().map(|(_, head)| head).collect(),
            is_broken: self.is_broken,
        }
    }

    /// To be waited for with [`Source::event`](crate::event_loop::Source::event). Nothing has to
    /// read it.
    #[must_use]
    pub fn queue_event(&self) -> &EventFd {
        &self.shared.event
    }

    /// Descriptors of the queue.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The next chain. `None` if there is none now: the queue's event is signalled when that
    /// changes. While the worker takes no more although there is more, the driver's notifications
    /// are suppressed where they can be.
    pub fn take(&mut self) -> Option<Taken> {
        self.try_take().unwrap_or_else(|error| {
            self.fail(error);
            None
        })
    }

    /// Takes `taken` back as the first to be taken next. At most one chain is put back at a time.
    pub fn put_back(&mut self, taken: Taken) {
        self.assert_own(&taken);
        let before = self.put_back.replace(taken);
        assert!(before.is_none(), "{}: two chains were put back", self.name);
    }

    /// Returns a chain to the driver with `written` bytes from the start of its writable buffers,
    /// and interrupts the driver if it wants that.
    pub fn finish(&mut self, taken: Taken, written: u32) {
        self.finish_many([(taken, written)]);
    }

    /// Returns several chains at once: the driver sees all of them or none, e.g. the merged receive
    /// buffers of one packet. One interrupt at most.
    pub fn finish_many(&mut self, finished: impl IntoIterator<Item = (Taken, u32)>) {
        let mut used = Wrapping(self.ring.next_used());
        for (taken, written) in finished {
            self.assert_own(&taken);
            debug_assert!(written <= taken.buffers.writable_bytes(), "{}: more written than there is", self.name);
            let written = written.min(taken.buffers.writable_bytes());
            let (head, buffers) = taken.finish();
            self.spare.push(buffers);
            self.in_flight[usize::from(head)] = None;
            if !self.is_broken {
                self.write_used(used, head, written).unwrap_or_else(|error| self.fail(error));
                used += 1;
            }
        }
        if !self.is_broken && used.0 != self.ring.next_used() {
            self.publish(used).unwrap_or_else(|error| self.fail(error));
        }
    }

    /// Has the event loop call the worker for this queue again, after the other workers had their
    /// turn.
    pub fn reschedule(&self) {
        self.shared.signal();
    }

    /// Hands each offered chain to `work`, in order, until there is none left, `work` returns
    /// [`Served::Later`], or `turn` is over. In the last case the rest is rescheduled; after
    /// `Later` the worker serves again when the host side can go on. What was read and written is
    /// charged to `turn`.
    pub fn serve(&mut self, turn: &mut Turn<'_>, mut work: impl FnMut(&mut Chain<'_>) -> Served) {
        // The driver may offer as fast as it is served, and small chains cost little of a turn.
        for _ in 0..MAX_SERVED_QUEUES * u32::from(self.ring.size()) {
            if turn.is_over() {
                break;
            }
            let Some(taken) = self.take() else { return };
            let mut chain = taken.chain();
            let before = chain.remaining();
            let served = work(&mut chain);
            turn.spend((before - chain.remaining()) as u64);
            match served {
                Served::Done(written) => self.finish(taken, written),
                Served::Later => {
                    self.put_back(taken);
                    return;
                }
            }
        }
        self.reschedule();
    }

    fn try_take(&mut self) -> Result<Option<Taken>, BrokenRing> {
        if self.is_broken || !self.ring.ready() {
            return Ok(None);
        }
        if self.shared.has_dropped.load(Ordering::SeqCst) {
            return Err(BrokenRing::Dropped);
        }
        self.ring.disable_notification(&self.shared.memory)?;
        self.read_offered()?;
        if let Some(taken) = self.put_back.take() {
            return Ok(Some(taken));
        }
        // A driver that offers broken chains as fast as they are rejected must not keep the event
        // loop.
        for _ in 0..self.ring.size() {
            let Some(head) = self.next_head()? else { return Ok(None) };
            let mut buffers = self.spare.pop().unwrap_or_default();
            let (memory, table) = (&self.shared.memory, GuestAddress(self.ring.desc_table()));
            match buffers.walk(memory, table, self.ring.size(), self.indirect, head) {
                Ok(()) => {
                    return Ok(Some(Taken { head, buffers, shared: Arc::clone(&self.shared), is_finished: false }));
                }
                Err(error) => {
                    guest_warn!("{}: chain {head} rejected: {error}", self.name);
                    self.spare.push(buffers);
                    self.in_flight[usize::from(head)] = None;
                    let used = Wrapping(self.ring.next_used());
                    self.write_used(used, head, 0)?;
                    self.publish(used + Wrapping(1))?;
                }
            }
        }
        self.reschedule();
        Ok(None)
    }

    /// The next offered head. `None` if there is none; notifications are enabled then.
    fn next_head(&mut self) -> Result<Option<u16>, BrokenRing> {
        if self.offered.is_empty() && self.ring.enable_notification(&self.shared.memory)? {
            // Offered before notifications were enabled, so no notification came for it.
            self.ring.disable_notification(&self.shared.memory)?;
            self.read_offered()?;
            if self.offered.is_empty() {
                // The index went back and forth. Look again later instead of following it.
                self.reschedule();
            }
        }
        Ok(self.offered.pop_front())
    }

    /// Reads everything that is in the available ring now.
    fn read_offered(&mut self) -> Result<(), BrokenRing> {
        for chain in self.ring.iter(&self.shared.memory)? {
            let head = chain.head_index();
            match self.in_flight.get_mut(usize::from(head)) {
                Some(in_flight) if in_flight.is_none() || is_planted(PlantedFault::RepeatedHead) => {
                    self.offered_heads += 1;
                    *in_flight = NonZeroU64::new(self.offered_heads);
                }
                _ => return Err(BrokenRing::Head(head)),
            }
            self.offered.push_back(head);
        }
        Ok(())
    }

    /// Writes entry `used` of the used ring. The driver does not see it yet.
    fn write_used(&self, used: Wrapping<u16>, head: u16, written: u32) -> Result<(), BrokenRing> {
        // virtio-queue's `add_used` publishes each entry at once.
        let written = written + u32::from(is_planted(PlantedFault::UsedLength));
        let slot = self.ring.used_ring() + 4 + 8 * u64::from(used.0 % self.ring.size());
        Ok(self.shared.memory.write_obj([u32::from(head).to_le(), written.to_le()], GuestAddress(slot))?)
    }

    /// Shows the driver all entries before `used`, and interrupts it if it wants that.
    fn publish(&mut self, used: Wrapping<u16>) -> Result<(), BrokenRing> {
        // The driver sees the entries before the index.
        self.shared.memory.store(used.0.to_le(), GuestAddress(self.ring.used_ring() + 2), Ordering::Release)?;
        self.ring.set_next_used(used.0);
        if self.wants_interrupt(used)? && !is_planted(PlantedFault::NoInterrupt) {
            self.interrupt.signal_queue();
        }
        Ok(())
    }

    /// Virtio 1.3, 2.7.7.2.
    fn wants_interrupt(&mut self, used: Wrapping<u16>) -> Result<bool, BrokenRing> {
        let (memory, available) = (&self.shared.memory, self.ring.avail_ring());
        // The used index must be visible before the driver's wish is read, or both sides could miss
        // each other.
        fence(Ordering::SeqCst);
        if self.ring.event_idx_enabled() {
            let place = available + 4 + 2 * u64::from(self.ring.size());
            let event: u16 = memory.load(GuestAddress(place), Ordering::Relaxed)?;
            let before = std::mem::replace(&mut self.signalled_used, used);
            // Whether the entry that the driver waits for is among those since the last time,
            // modulo 2^16.
            return Ok(used - Wrapping(u16::from_le(event)) - Wrapping(1) < used - before);
        }
        let flags: u16 = memory.load(GuestAddress(available), Ordering::Relaxed)?;
        Ok(u16::from_le(flags) & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0)
    }

    fn assert_own(&self, taken: &Taken) {
        assert!(Arc::ptr_eq(&taken.shared, &self.shared), "{}: a chain of another queue", self.name);
    }

    fn fail(&mut self, error: BrokenRing) {
        guest_warn!("{}: {error}; the device needs a reset", self.name);
        self.is_broken = true;
        self.interrupt.signal_needs_reset();
        debug_assert!(error != BrokenRing::Dropped, "{}: {error}", self.name);
    }
}

impl Drop for Virtqueue {
    fn drop(&mut self) {
        if let Some(slot) = &self.position {
            // Each queue has a slot of its own, so it is empty.
            let _ = slot.set(self.position());
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
