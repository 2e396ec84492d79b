// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One descriptor chain: walked once, each descriptor read once, checked as a whole before a device
//! sees it. Runs on the device's event loop. Virtio 1.3, 2.7.5.
//!
//! A chain is rejected if it loops or is longer than the queue, leaves its table, has an empty
//! buffer, a buffer that is not wholly in guest memory, 4 GiB or more in all, or a readable buffer
//! after a writable one. An indirect table is rejected if it was not negotiated, is nested,
//! continued, of a wrong length, or longer than the queue.

use crate::GuestMemory;
use crate::planted::{PlantedFault, is_planted};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Bytes of a descriptor in a table.
const DESCRIPTOR_SIZE: u32 = 16;

/// A chain that violates the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A descriptor index is not in the table.
    #[error("descriptor {0} is outside its table")]
    Index(u16),
    /// It loops, or has more descriptors than the queue.
    #[error("chain is longer than its queue")]
    TooLong,
    /// A buffer of length zero.
    #[error("buffer at {0:#x} is empty")]
    Empty(u64),
    /// A buffer or table is not wholly in guest memory.
    #[error("{1:#x} bytes at {0:#x} are not in memory")]
    OutsideMemory(u64, u32),
    /// 4 GiB or more in all.
    #[error("chain has 4 GiB or more")]
    TooLarge,
    /// A buffer for the device to read follows one to write.
    #[error("readable buffer after a writable one")]
    Order,
    /// See the rules for indirect tables above.
    #[error("invalid indirect table")]
    Indirect,
}

/// Guest memory that was checked: wholly inside one region.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: GuestAddress,
    length: u32,
}

/// The buffers of a chain as plain data, so that a chain can stay in flight while its worker does
/// other things. Its list is used again for another chain.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The readable segments come first.
    segments: Vec<Segment>,
    readable_segments: usize,
    readable_bytes: u32,
    writable_bytes: u32,
}

impl Buffers {
    /// Takes in the chain that starts at `head` of the descriptor table with `size` entries at
    /// `table`. Buffers that were here before are replaced; after an error there are none.
    pub(super) fn walk(
        &mut self,
        memory: &GuestMemory,
        table: GuestAddress,
        size: u16,
        indirect: bool,
        head: u16,
    ) -> Result<(), ChainError> {
        self.clear();
        let walked = Walk { memory, left: size, buffers: self }.walk(table, size, indirect, head);
        walked.inspect_err(|_| self.clear())
    }

    fn clear(&mut self) {
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        *self = Self { segments, ..Self::default() };
    }

    /// The chain from its start.
    pub(super) fn chain<'t>(&'t self, memory: &'t GuestMemory) -> Chain<'t> {
        let (readable, writable) = self.segments.split_at(self.readable_segments);
        let cursor = |segments, bytes: u32| Cursor { memory, segments, offset: 0, remaining: bytes as usize };
        Chain {
            readable: Reader(cursor(readable, self.readable_bytes)),
            writable: Writer(cursor(writable, self.writable_bytes)),
        }
    }

    /// Bytes that the device may write.
    pub(super) fn writable_bytes(&self) -> u32 {
        self.writable_bytes
    }
}

/// A walk in progress.
struct Walk<'m, 'b> {
    memory: &'m GuestMemory,
    /// Descriptors that may still come.
    left: u16,
    buffers: &'b mut Buffers,
}

impl Walk<'_, '_> {
    fn walk(&mut self, table: GuestAddress, size: u16, indirect: bool, head: u16) -> Result<(), ChainError> {
        let first = self.descriptor(table, size, head)?;
        if first.flags() & INDIRECT == 0 {
            return self.table(table, size, first);
        }
        let entries = first.len() / DESCRIPTOR_SIZE;
        let is_last = first.flags() & NEXT == 0 || is_planted(PlantedFault::IndirectNext);
        let is_valid = indirect && is_last && first.len() % DESCRIPTOR_SIZE == 0;
        if !is_valid || entries == 0 || entries > u32::from(size) {
            return Err(ChainError::Indirect);
        }
        // At most `size`, which is 16 bits.
        let entries = entries as u16;
        self.left = size;
        let inner = self.descriptor(first.addr(), entries, 0)?;
        self.table(first.addr(), entries, inner)
    }

    /// The one read of descriptor `index`.
    fn descriptor(&mut self, table: GuestAddress, size: u16, index: u16) -> Result<Descriptor, ChainError> {
        self.left = self.left.checked_sub(1).ok_or(ChainError::TooLong)?;
        if index >= size {
            return Err(ChainError::Index(index));
        }
        let outside = ChainError::OutsideMemory(table.0, u32::from(size) * DESCRIPTOR_SIZE);
        let address = table.0.checked_add(u64::from(index) * u64::from(DESCRIPTOR_SIZE)).ok_or(outside)?;
        self.memory.read_obj(GuestAddress(address)).map_err(|_| outside)
    }

    /// Follows the chain within one table, from a descriptor that was read.
    fn table(&mut self, table: GuestAddress, size: u16, mut descriptor: Descriptor) -> Result<(), ChainError> {
        loop {
            if descriptor.flags() & INDIRECT != 0 {
                return Err(ChainError::Indirect);
            }
            self.buffer(descriptor)?;
            if descriptor.flags() & NEXT == 0 {
                return Ok(());
            }
            descriptor = self.descriptor(table, size, descriptor.next())?;
        }
    }

    fn buffer(&mut self, descriptor: Descriptor) -> Result<(), ChainError> {
        let (mut address, length) = (descriptor.addr(), descriptor.len());
        let buffers = &mut *self.buffers;
        if length == 0 && !is_planted(PlantedFault::EmptyBuffer) {
            return Err(ChainError::Empty(address.0));
        }
        let total = buffers.readable_bytes + buffers.writable_bytes;
        total.checked_add(length).ok_or(ChainError::TooLarge)?;
        let is_writable = descriptor.flags() & WRITE != 0;
        if is_writable {
            buffers.writable_bytes += length;
        } else if buffers.writable_bytes == 0 || is_planted(PlantedFault::BufferOrder) {
            buffers.readable_bytes += length;
        } else {
            return Err(ChainError::Order);
        }
        // A buffer that lies in two adjacent regions becomes two segments.
        for slice in self.memory.get_slices(address, length as usize) {
            let slice = slice.map_err(|_| ChainError::OutsideMemory(descriptor.addr().0, length))?;
            // No longer than the buffer, which is 32 bits.
            buffers.segments.push(Segment { address, length: slice.len() as u32 });
            // Inside memory, so it does not overflow.
            address.0 += slice.len() as u64;
        }
        if !is_writable {
            buffers.readable_segments = buffers.segments.len();
        }
        Ok(())
    }
}

/// A chain of buffers in guest memory, seen from its start.
#[derive(Clone, Debug)]
pub struct Chain<'t> {
    /// What the driver sent.
    pub readable: Reader<'t>,
    /// Space for the answer.
    pub writable: Writer<'t>,
}

impl Chain<'_> {
    /// Bytes that were neither read nor written.
    pub(super) fn remaining(&self) -> usize {
        self.readable.remaining() + self.writable.remaining()
    }
}

/// Fewer bytes remain than were asked for; none was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

/// A position in some segments. Cheap to clone.
#[derive(Clone, Debug)]
struct Cursor<'t> {
    memory: &'t GuestMemory,
    /// From the current one on.
    segments: &'t [Segment],
    /// Bytes of the current segment that are behind the position.
    offset: usize,
    /// Bytes until the end, which may be before that of the segments.
    remaining: usize,
}

impl<'t> Cursor<'t> {
    /// Takes the next contiguous bytes, at most `limit`.
    fn next_slice(&mut self, limit: usize) -> Option<VolatileSlice<'t>> {
        let limit = limit.min(self.remaining);
        let segment = self.segments.first().filter(|_| limit > 0)?;
        let left = segment.length as usize - self.offset;
        let length = left.min(limit);
        let address = GuestAddress(segment.address.0 + self.offset as u64);
        if length == left {
            (self.segments, self.offset) = (&self.segments[1..], 0);
        } else {
            self.offset += length;
        }
        self.remaining -= length;
        Some(self.memory.get_slice(address, length).expect("segments were checked, and memory stays"))
    }

    fn skip(&mut self, mut count: usize) {
        while let Some(slice) = self.next_slice(count) {
            count -= slice.len();
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let mut rest = self.clone();
        rest.skip(at);
        self.remaining -= rest.remaining;
        rest
    }

    fn slices(&self) -> impl Iterator<Item = VolatileSlice<'t>> + use<'t> {
        let mut cursor = self.clone();
        std::iter::from_fn(move || cursor.next_slice(usize::MAX))
    }
}

/// The buffers that the driver sent, read from front to back.
#[derive(Clone, Debug)]
pub struct Reader<'t>(Cursor<'t>);

impl<'t> Reader<'t> {
    /// Bytes that remain.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Pieces of memory in which the bytes that remain are, at most.
    pub(super) fn pieces(&self) -> usize {
        self.0.segments.len()
    }

    /// Copies the next bytes out.
    ///
    /// # Errors
    /// There are fewer than `data.len()`.
    pub fn read_exact(&mut self, mut data: &mut [u8]) -> Result<(), TooShort> {
        if self.0.remaining < data.len() {
            return Err(TooShort);
        }
        while let Some(slice) = self.0.next_slice(data.len()) {
            let (now, later) = data.split_at_mut(slice.len());
            slice.copy_to(now);
            data = later;
        }
        Ok(())
    }

    /// Passes over the next `count` bytes, or all that there are.
    pub fn skip(&mut self, count: usize) {
        self.0.skip(count);
    }

    /// Keeps the first `at` bytes (or all that there are) and returns the rest.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Reader<'t> {
        Reader(self.0.split_off(at))
    }

    /// The bytes that remain, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = VolatileSlice<'t>> + use<'t> {
        self.0.slices()
    }
}

/// The buffers for the answer, written from front to back.
#[derive(Clone, Debug)]
pub struct Writer<'t>(Cursor<'t>);

impl<'t> Writer<'t> {
    /// Bytes that can still be written.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Copies `data` to the next bytes.
    ///
    /// # Errors
    /// There is less space; nothing was written.
    pub fn write_all(&mut self, mut data: &[u8]) -> Result<(), TooShort> {
        if self.0.remaining < data.len() {
            return Err(TooShort);
        }
        while let Some(slice) = self.0.next_slice(data.len()) {
            let (now, later) = data.split_at(slice.len());
            slice.copy_from(now);
            data = later;
        }
        Ok(())
    }

    /// Passes over the next `count` bytes, or all that there are.
    pub fn skip(&mut self, count: usize) {
        self.0.skip(count);
    }

    /// Keeps the first `at` bytes (or all that there are) and returns the rest.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Writer<'t> {
        Writer(self.0.split_off(at))
    }

    /// The bytes that remain, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = VolatileSlice<'t>> + use<'t> {
        self.0.slices()
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
