// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sparse files: split into equal chunks, each stored completely or not at all.

use crate::layer_files::{BLOCK, Extent};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    size: u64,
    /// Blocks per chunk, as a power of two: the field of an EROFS inode.
    bits: u32,
}

impl Chunks {
    pub(crate) fn new(size: u64, bits: u32) -> Self {
        Self { size, bits }
    }

    /// Chunks of `bytes`, a power of two and at least a block.
    pub(crate) fn of_bytes(size: u64, bytes: u64) -> Self {
        Self { size, bits: (bytes / BLOCK).ilog2() }
    }

    pub(crate) fn count(self) -> u64 {
        self.size.div_ceil(self.bytes())
    }

    pub(crate) fn bytes(self) -> u64 {
        BLOCK << self.bits
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_with_several_extents_is_stored_once() {
        let chunks = Chunks::of_bytes(100 * BLOCK, BLOCK);
        let extent = |offset, length| Extent { offset, length, position: 0 };
        let extents = [extent(0, 1), extent(10, 1), extent(4090, 10), extent(9 * BLOCK, 2 * BLOCK)];
        assert_eq!(chunks.stored(&extents).collect::<Vec<_>>(), [0, 1, 9, 10]);
        assert_eq!((chunks.bits, chunks.count()), (0, 100));
    }
}
