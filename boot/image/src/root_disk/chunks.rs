// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sparse files: split into equal chunks, each stored completely or not at all.

use super::{Output, RootDiskError};
use crate::spool::SpoolFile;
use crate::tree::Extent;

/// Smallest chunk.
const BLOCK: u64 = 4096;
/// Chunks of one file where their size is variable; larger files get larger chunks.
const MAX_CHUNKS: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    size: u64,
    /// Blocks per chunk, as a power of two: the field of an EROFS inode.
    pub bits: u32,
}

impl Chunks {
    pub(crate) fn of(size: u64) -> Self {
        // The field has five bits. With the largest chunks a file of 2^63 bytes has 2^20 of them.
        let bits = (0..31).find(|bits| size.div_ceil(BLOCK << bits) <= MAX_CHUNKS).unwrap_or(31);
        Self { size, bits }
    }

    /// Chunks of `bytes`, a power of two and at least a block.
    pub(crate) fn of_bytes(size: u64, bytes: u64) -> Self {
        Self { size, bits: (bytes / BLOCK).ilog2() }
    }

    pub(crate) fn count(self) -> u64 {
        self.size.div_ceil(self.bytes())
    }

    fn bytes(self) -> u64 {
        BLOCK << self.bits
    }

    /// Blocks of `chunk` if it is stored. The last chunk ends with the file.
    pub(crate) fn blocks(self, chunk: u64) -> u64 {
        self.length(chunk).div_ceil(BLOCK)
    }

    /// Bytes of `chunk`. The last chunk ends with the file.
    pub(crate) fn length(self, chunk: u64) -> u64 {
        (self.size - chunk * self.bytes()).min(self.bytes())
    }

    /// The chunks with data, in order.
    pub(crate) fn stored(self, extents: &[Extent]) -> impl Iterator<Item = u64> {
        let mut next = 0;
        extents.iter().filter(|extent| extent.length > 0).flat_map(move |extent| {
            let first = (extent.offset / self.bytes()).max(next);
            let end = (extent.offset + extent.length - 1) / self.bytes() + 1;
            next = end.max(next);
            first..end
        })
    }

    /// Appends the stored chunks to `output`, each with `length(chunk)` bytes and zeros where it
    /// has no data. Only the last chunk of a file is shorter.
    pub(crate) fn copy(
        self,
        extents: &[Extent],
        spool: &SpoolFile,
        output: &mut Output<'_>,
        length: impl Fn(u64) -> u64,
    ) -> Result<(), RootDiskError> {
        // The current extent; it may span several chunks.
        let mut current = 0;
        for chunk in self.stored(extents) {
            let start = output.position();
            let (first, length) = (chunk * self.bytes(), length(chunk));
            while let Some(extent) = extents.get(current).filter(|extent| extent.offset < first + length) {
                let skipped = first.saturating_sub(extent.offset);
                output.zeros_to(start + (extent.offset + skipped - first))?;
                let now = (extent.length - skipped).min(start + length - output.position());
                spool.copy(extent.spooled + skipped, now, output)?;
                if skipped + now < extent.length {
                    break;
                }
                current += 1;
            }
            output.zeros_to(start + length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length, spooled: 0 }
    }

    #[test]
    fn chunk_with_several_extents_is_stored_once() {
        let chunks = Chunks::of(100 * BLOCK);
        let extents = [extent(0, 1), extent(10, 1), extent(4090, 10), extent(9 * BLOCK, 2 * BLOCK)];
        assert_eq!(chunks.stored(&extents).collect::<Vec<_>>(), [0, 1, 9, 10]);
        assert_eq!((chunks.bits, chunks.count()), (0, 100));
    }

    #[test]
    fn huge_file_gets_large_chunks() {
        let chunks = Chunks::of((1 << 40) + 1);
        assert_eq!((chunks.bits, chunks.count()), (13, (1 << 15) + 1));
        assert_eq!(chunks.blocks(chunks.count() - 1), 1);
        assert_eq!(Chunks::of(i64::MAX as u64).count(), 1 << 20);
    }
}
