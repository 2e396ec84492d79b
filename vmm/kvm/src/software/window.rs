// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory operand of an instruction: a range of linear addresses, each page translated once,
//! and all of it checked before the first byte is written.

use super::step::{StepError, StepResult};
use super::vcpu_state::Exception;
use super::walk::{Access, PAGE_SIZE, Paging, WalkError};
use super::xsave_layout::MAX_AREA_SIZE;
use std::ops::Range;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Pages of the largest operand, an XSAVE area.
const MAX_PAGES: usize = MAX_AREA_SIZE / PAGE_SIZE as usize + 1;

/// The memory operand of one instruction.
pub(super) struct Window<'a> {
    memory: &'a GuestMemoryMmap<()>,
    paging: Paging,
    linear: u64,
    access: Access,
    pages: [Option<GuestAddress>; MAX_PAGES],
}

impl<'a> Window<'a> {
    /// The bytes from `linear` on, up to [`MAX_AREA_SIZE`]. Nothing is accessed yet.
    pub(super) fn new(memory: &'a GuestMemoryMmap<()>, paging: Paging, linear: u64, access: Access) -> Self {
        Self { memory, paging, linear, access, pages: [None; MAX_PAGES] }
    }

    /// Checks that all bytes of `range` can be accessed, and stops with the fault of the first that
    /// cannot.
    pub(super) fn require(&mut self, range: Range<usize>) -> StepResult {
        for (offset, length) in self.split_by_page(range) {
            self.slice(offset, length)?;
        }
        Ok(())
    }

    /// Loads the bytes from `offset` on.
    pub(super) fn read(&mut self, offset: usize, bytes: &mut [u8]) -> StepResult {
        let mut rest = bytes;
        for (offset, length) in self.split_by_page(offset..offset + rest.len()) {
            let (part, after) = rest.split_at_mut(length);
            self.slice(offset, length)?.copy_to(part);
            rest = after;
        }
        Ok(())
    }

    /// Stores `bytes` from `offset` on. The caller has called [`require`](Self::require) for every
    /// range that the instruction writes: after a fault no byte is written.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> StepResult {
        let mut rest = bytes;
        for (offset, length) in self.split_by_page(offset..offset + rest.len()) {
            let (part, after) = rest.split_at(length);
            self.slice(offset, length)?.copy_from(part);
            rest = after;
        }
        Ok(())
    }

    /// The host's mapping of `length` bytes at `offset`, which must be within one page.
    pub(super) fn slice(&mut self, offset: usize, length: usize) -> StepResult<VolatileSlice<'a>> {
        let linear = self.linear.wrapping_add(offset as u64);
        let in_page = linear % PAGE_SIZE;
        let page = linear - in_page;
        let number = (page.wrapping_sub(self.linear - self.linear % PAGE_SIZE) / PAGE_SIZE) as usize;
        let Some(known) = self.pages.get_mut(number) else {
            return Err(StepError::Unsupported(format!("its operand has more than {MAX_PAGES} pages")));
        };
        let start = match *known {
            Some(start) => start,
            None => {
                let translated = self.paging.translate(self.memory, linear, self.access);
                let start = GuestAddress(translated.map_err(|error| step_error(error, linear))?.0 - in_page);
                *known = Some(start);
                start
            }
        };
        let address = GuestAddress(start.0 + in_page);
        self.memory.get_slice(address, length).map_err(|_| {
            StepError::Unsupported(format!("its operand at guest-physical {:#x} is not in memory", address.0))
        })
    }

    /// `range` split at page boundaries: offset and length of each part.
    fn split_by_page(&self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> + use<> {
        let linear = self.linear;
        let mut offset = range.start;
        std::iter::from_fn(move || {
            let in_page = linear.wrapping_add(offset as u64) % PAGE_SIZE;
            let length = range.end.saturating_sub(offset).min((PAGE_SIZE - in_page) as usize);
            let part = (offset, length);
            offset += length;
            (length != 0).then_some(part)
        })
    }
}

/// The outcome of an instruction whose page walk failed at `linear`.
fn step_error(error: WalkError, linear: u64) -> StepError {
    match error {
        WalkError::Fault(code) => StepError::Fault(Exception::page_fault(linear, code)),
        WalkError::NotCanonical => StepError::Fault(Exception::GENERAL_PROTECTION),
        WalkError::Contended => StepError::Retry,
        WalkError::TableOutside(table) => StepError::Unsupported(format!(
            "the page table entry at guest-physical {:#x}, which maps {linear:#x}, is not in memory",
            table.0
        )),
        WalkError::Mode => StepError::Unsupported("paging outside long mode".into()),
    }
}
