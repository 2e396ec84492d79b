// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One descriptor chain: walked once, each descriptor read once, checked as a whole before a device sees it. Runs on the
//! device's event loop. Virtio 1.3, 2.7.5.
//!
//! A chain is refused if it loops or is longer than the queue, leaves its table, has an empty buffer, one that is not
//! wholly in guest memory, more than 4 GiB in all, or something to read after something to write; and if an indirect
//! table was not negotiated, is nested, continued, of a wrong length, or longer than the queue.

use crate::GuestMemory;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Bytes of a descriptor in a table.
const DESCRIPTOR_SIZE: u32 = 16;

/// A chain that breaks the rules.
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
    /// Over 4 GiB in all.
    #[error("chain has more than 4 GiB")]
    TooLarge,
    /// A buffer for the device to read follows one to write.
    #[error("readable buffer after a writable one")]
    Order,
    /// See the rules for indirect tables above.
    #[error("indirect table breaks a rule")]
    Indirect,
}

/// A chain of buffers in guest memory.
#[derive(Debug)]
pub struct Chain<'m> {
    /// What the driver sent.
    pub readable: Reader<'m>,
    /// Where the answer goes.
    pub writable: Writer<'m>,
}

impl<'m> Chain<'m> {
    /// The chain that starts at `head` of the descriptor table with `size` entries at `table`.
    pub(super) fn walk(
        memory: &'m GuestMemory,
        table: GuestAddress,
        size: u16,
        indirect: bool,
        head: u16,
    ) -> Result<Self, ChainError> {
        let mut walk = Walk { memory, left: size, total: 0, readable: Vec::new(), writable: Vec::new() };
        let first = walk.descriptor(table, size, head)?;
        if first.flags() & INDIRECT == 0 {
            walk.table(table, size, first)?;
        } else {
            let entries = first.len() / DESCRIPTOR_SIZE;
            let sound = indirect && first.flags() & NEXT == 0 && first.len() % DESCRIPTOR_SIZE == 0;
            if !sound || entries == 0 || entries > u32::from(size) {
                return Err(ChainError::Indirect);
            }
            // At most `size`, which is 16 bits.
            let entries = entries as u16;
            walk.left = size;
            let table = first.addr();
            let inner = walk.descriptor(table, entries, 0)?;
            walk.table(table, entries, inner)?;
        }
        Ok(Self { readable: Reader(Buffers::new(walk.readable)), writable: Writer(Buffers::new(walk.writable)) })
    }
}

/// A walk in progress.
struct Walk<'m> {
    memory: &'m GuestMemory,
    /// Descriptors that may still come.
    left: u16,
    /// Bytes so far.
    total: u32,
    readable: Vec<VolatileSlice<'m>>,
    writable: Vec<VolatileSlice<'m>>,
}

impl<'m> Walk<'m> {
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
        let (address, length) = (descriptor.addr(), descriptor.len());
        if length == 0 {
            return Err(ChainError::Empty(address.0));
        }
        self.total = self.total.checked_add(length).ok_or(ChainError::TooLarge)?;
        let buffers = match (descriptor.flags() & WRITE != 0, self.writable.is_empty()) {
            (true, _) => &mut self.writable,
            (false, true) => &mut self.readable,
            (false, false) => return Err(ChainError::Order),
        };
        // A buffer that lies in two adjacent regions becomes two slices.
        for slice in self.memory.get_slices(address, length as usize) {
            buffers.push(slice.map_err(|_| ChainError::OutsideMemory(address.0, length))?);
        }
        Ok(())
    }
}

/// There were fewer bytes than asked for; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

/// The bytes of a chain that are left, in order.
#[derive(Clone, Debug)]
struct Buffers<'m> {
    /// In reverse, so that the front is dropped cheaply. None is empty.
    slices: Vec<VolatileSlice<'m>>,
    remaining: usize,
}

impl<'m> Buffers<'m> {
    fn new(mut slices: Vec<VolatileSlice<'m>>) -> Self {
        slices.reverse();
        let remaining = slices.iter().map(VolatileSlice::len).sum();
        Self { slices, remaining }
    }

    /// Takes the next piece, of at most `limit` bytes.
    fn piece(&mut self, limit: usize) -> Option<VolatileSlice<'m>> {
        if limit == 0 {
            return None;
        }
        let slice = self.slices.pop()?;
        let (piece, rest) = slice.split_at(limit.min(slice.len())).expect("split at or before the end of a slice");
        if !rest.is_empty() {
            self.slices.push(rest);
        }
        self.remaining -= piece.len();
        Some(piece)
    }

    fn skip(&mut self, mut count: usize) {
        while let Some(piece) = self.piece(count) {
            count -= piece.len();
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let mut front = Vec::new();
        let mut left = at;
        while let Some(piece) = self.piece(left) {
            left -= piece.len();
            front.push(piece);
        }
        std::mem::replace(self, Self::new(front))
    }
}

/// The buffers that the driver sent, read from front to back.
#[derive(Clone, Debug)]
pub struct Reader<'m>(Buffers<'m>);

impl<'m> Reader<'m> {
    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Copies the next bytes out.
    ///
    /// # Errors
    /// There are fewer than `data.len()`.
    pub fn read_exact(&mut self, mut data: &mut [u8]) -> Result<(), TooShort> {
        if self.0.remaining < data.len() {
            return Err(TooShort);
        }
        while let Some(piece) = self.0.piece(data.len()) {
            let (now, later) = data.split_at_mut(piece.len());
            piece.copy_to(now);
            data = later;
        }
        Ok(())
    }

    /// Leaves out the next `count` bytes, or all that there are.
    pub fn skip(&mut self, count: usize) {
        self.0.skip(count);
    }

    /// What is left, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.0.slices.iter().rev()
    }
}

/// The buffers for the answer, written from front to back.
#[derive(Clone, Debug)]
pub struct Writer<'m>(Buffers<'m>);

impl<'m> Writer<'m> {
    /// Bytes that there is still room for.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Copies `data` to the next bytes.
    ///
    /// # Errors
    /// There is less room; nothing was written.
    pub fn write_all(&mut self, mut data: &[u8]) -> Result<(), TooShort> {
        if self.0.remaining < data.len() {
            return Err(TooShort);
        }
        while let Some(piece) = self.0.piece(data.len()) {
            let (now, later) = data.split_at(piece.len());
            piece.copy_from(now);
            data = later;
        }
        Ok(())
    }

    /// Keeps the first `at` bytes (or all that there are) and returns the rest.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Writer<'m> {
        Writer(self.0.split_off(at))
    }

    /// Moves on by `count` bytes that were written some other way.
    pub(super) fn skip(&mut self, count: usize) {
        self.0.skip(count);
    }

    /// What is left, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.0.slices.iter().rev()
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
