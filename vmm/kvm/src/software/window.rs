// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A range of linear addresses as an instruction accesses it: translated page by page, at most once a page, and checked
//! whole before the first byte is written.

use std::ops::Range;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::layout::MAXIMUM_SIZE;
use super::state::Exception;
use super::step::{Done, Stop};
use super::walk::{Access, PAGE_SIZE, Paging, WalkError};

/// Pages that the largest operand, an XSAVE area, can touch.
const PAGES: usize = MAXIMUM_SIZE / PAGE_SIZE as usize + 1;

/// The memory operand of one instruction.
pub(super) struct Window<'a> {
    memory: &'a GuestMemoryMmap<()>,
    paging: Paging,
    linear: u64,
    access: Access,
    pages: [Option<GuestAddress>; PAGES],
}

impl<'a> Window<'a> {
    /// The bytes from `linear` on, up to [`MAXIMUM_SIZE`] of them; none is looked at yet.
    pub(super) fn new(memory: &'a GuestMemoryMmap<()>, paging: Paging, linear: u64, access: Access) -> Self {
        Self { memory, paging, linear, access, pages: [None; PAGES] }
    }

    /// Makes sure that all bytes of `range` can be accessed, or stops with the fault of the first that cannot.
    pub(super) fn require(&mut self, range: Range<usize>) -> Done {
        for (offset, length) in self.pieces(range) {
            self.slice(offset, length)?;
        }
        Ok(())
    }

    /// Loads the bytes from `offset` on.
    pub(super) fn read(&mut self, offset: usize, bytes: &mut [u8]) -> Done {
        let mut rest = bytes;
        for (offset, length) in self.pieces(offset..offset + rest.len()) {
            let (piece, after) = rest.split_at_mut(length);
            self.slice(offset, length)?.copy_to(piece);
            rest = after;
        }
        Ok(())
    }

    /// Stores `bytes` from `offset` on. Every range that an instruction writes is required first: a fault must leave no
    /// byte behind.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> Done {
        let mut rest = bytes;
        for (offset, length) in self.pieces(offset..offset + rest.len()) {
            let (piece, after) = rest.split_at(length);
            self.slice(offset, length)?.copy_from(piece);
            rest = after;
        }
        Ok(())
    }

    /// The host's view of `length` bytes at `offset`, which must lie in one page.
    pub(super) fn slice(&mut self, offset: usize, length: usize) -> Done<VolatileSlice<'a>> {
        let linear = self.linear.wrapping_add(offset as u64);
        let in_page = linear % PAGE_SIZE;
        let page = linear - in_page;
        let number = (page.wrapping_sub(self.linear - self.linear % PAGE_SIZE) / PAGE_SIZE) as usize;
        let Some(known) = self.pages.get_mut(number) else {
            return Err(Stop::Unable(format!("an operand of more than {PAGES} pages")));
        };
        let start = match *known {
            Some(start) => start,
            None => {
                let translated = self.paging.translate(self.memory, linear, self.access);
                let start = GuestAddress(translated.map_err(|error| stop(error, linear))?.0 - in_page);
                *known = Some(start);
                start
            }
        };
        let address = GuestAddress(start.0 + in_page);
        self.memory
            .get_slice(address, length)
            .map_err(|_| Stop::Unable(format!("its operand at guest-physical {:#x} is not in memory", address.0)))
    }

    /// `range` cut at page boundaries: offset and length of each piece.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> + use<> {
        let linear = self.linear;
        let mut offset = range.start;
        std::iter::from_fn(move || {
            let in_page = linear.wrapping_add(offset as u64) % PAGE_SIZE;
            let length = range.end.saturating_sub(offset).min((PAGE_SIZE - in_page) as usize);
            let piece = (offset, length);
            offset += length;
            (length != 0).then_some(piece)
        })
    }
}

/// What a walk's failure at `linear` means for the instruction.
fn stop(error: WalkError, linear: u64) -> Stop {
    match error {
        WalkError::Fault(code) => Stop::Fault(Exception::page_fault(linear, code)),
        WalkError::NotCanonical => Stop::Fault(Exception::GENERAL_PROTECTION),
        WalkError::Contended => Stop::Retry,
        WalkError::TableOutside(table) => Stop::Unable(format!(
            "the page table entry at guest-physical {:#x}, which maps {linear:#x}, is not in memory",
            table.0
        )),
        WalkError::Mode => Stop::Unable("paging outside long mode".into()),
    }
}
