// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bytes of a regular file.

use crate::budget::Budget;
use crate::file_system::{Extent, FileSystem, extents_cost};
use std::io;

const BUF_SIZE: usize = 256 << 10;

/// What is stored of a file; the rest of it is zeroes.
pub(super) struct Content<'a> {
    file_system: &'a dyn FileSystem,
    extents: Vec<Extent>,
    size: u64,
    budget: &'a Budget,
}

/// An error of the machine's files, or of those that take them.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl<'a> Content<'a> {
    /// `extents` are charged to `budget`.
    pub(super) fn new(file_system: &'a dyn FileSystem, extents: Vec<Extent>, size: u64, budget: &'a Budget) -> Self {
        Self { file_system, extents, size, budget }
    }

    /// Fills `buffer` from `offset`, which may be in a hole.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let first = self.extents.partition_point(|extent| extent.offset + extent.length <= offset);
        for extent in self.extents[first..].iter().take_while(|extent| extent.offset < end) {
            let (from, to) = (extent.offset.max(offset), (extent.offset + extent.length).min(end));
            let part = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            self.file_system.read_at(part, extent.position + (from - extent.offset))?;
        }
        Ok(())
    }

    /// The first stored byte at or behind `offset`.
    fn next_stored(&self, offset: u64) -> Option<u64> {
        let index = self.extents.partition_point(|extent| extent.offset + extent.length <= offset);
        self.extents.get(index).map(|extent| extent.offset.max(offset))
    }

    /// Passes all bytes to `write`, the zeroes of holes included.
    pub(super) fn copy(&self, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), CopyError> {
        let mut buffer = vec![0; BUF_SIZE];
        let mut offset = 0;
        while offset < self.size {
            let length = (self.size - offset).min(BUF_SIZE as u64) as usize;
            self.read(&mut buffer[..length], offset).map_err(CopyError::Read)?;
            write(&buffer[..length]).map_err(CopyError::Write)?;
            offset += length as u64;
        }
        Ok(())
    }

    pub(super) fn equals(&self, other: &Self) -> io::Result<bool> {
        if self.size != other.size {
            return Ok(false);
        }
        let mut buffers = [vec![0; BUF_SIZE], vec![0; BUF_SIZE]];
        let mut offset = 0;
        while let Some(next) = self.next_stored(offset).into_iter().chain(other.next_stored(offset)).min() {
            let length = (self.size - next).min(BUF_SIZE as u64) as usize;
            let [ours, theirs] = &mut buffers;
            self.read(&mut ours[..length], next)?;
            other.read(&mut theirs[..length], next)?;
            if ours[..length] != theirs[..length] {
                return Ok(false);
            }
            offset = next + length as u64;
        }
        Ok(true)
    }
}

impl Drop for Content<'_> {
    fn drop(&mut self) {
        self.budget.release(extents_cost(&self.extents));
    }
}
