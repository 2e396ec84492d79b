// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sparse files: split into equal chunks, each stored completely or not at all.

use super::{Output, RootDiskError};
use crate::spool::SpoolFile;
use crate::tree::Extent;

const BLOCK: u64 = 4096;
/// Chunks of one file with many extents; larger files get larger chunks.
const MAX_CHUNKS: u64 = 64 << 10;
/// Chunks of any file: a map of 4 MiB.
const MAX_MAPPED_CHUNKS: u64 = 1 << 20;
/// Extents up to which sizes of chunks are compared.
const MAX_COMPARED_EXTENTS: usize = 4096;
const MAP_ENTRY_SIZE: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    size: u64,
    /// Blocks per chunk, as a power of two: the field of an EROFS inode.
    pub bits: u32,
}

impl Chunks {
    /// Of the size with which the map and the stored chunks take the least space.
    pub(crate) fn of(size: u64, extents: &[Extent]) -> Self {
        let of = |bits| Self { size, bits };
        // The field has five bits. With the largest chunks a file of 2^63 bytes has 2^20 of them.
        let smallest = |most: u64| (0..31).find(|bits| of(*bits).count() <= most).unwrap_or(31);
        if extents.len() > MAX_COMPARED_EXTENTS {
            return of(smallest(MAX_CHUNKS));
        }
        let cost = |bits: &u32| {
            let chunks = of(*bits);
            let stored = chunks.stored_count(extents).saturating_mul(chunks.bytes());
            stored.saturating_add(MAP_ENTRY_SIZE * chunks.count())
        };
        of((smallest(MAX_MAPPED_CHUNKS)..=31).min_by_key(cost).unwrap_or(31))
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

    /// Number of chunks with data.
    fn stored_count(self, extents: &[Extent]) -> u64 {
        let (mut count, mut next) = (0, 0);
        for extent in extents.iter().filter(|extent| extent.length > 0) {
            let first = (extent.offset / self.bytes()).max(next);
            let end = (extent.offset + extent.length - 1) / self.bytes() + 1;
            count += end.saturating_sub(first);
            next = end.max(next);
        }
        count
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
        let chunks = Chunks::of_bytes(100 * BLOCK, BLOCK);
        let extents = [extent(0, 1), extent(10, 1), extent(4090, 10), extent(9 * BLOCK, 2 * BLOCK)];
        assert_eq!(chunks.stored(&extents).collect::<Vec<_>>(), [0, 1, 9, 10]);
        assert_eq!((chunks.bits, chunks.count(), chunks.stored_count(&extents)), (0, 100, 4));
        assert_eq!(Chunks::of(100 * BLOCK, &extents), chunks);
    }

    #[test]
    fn size_of_chunks_makes_map_and_data_small() {
        let cost = |size: u64, extents: &[Extent]| {
            let chunks = Chunks::of(size, extents);
            chunks.stored_count(extents) * chunks.bytes() + 4 * chunks.count()
        };
        let byte_in_a_tebibyte = cost(1 << 40, &[extent(1 << 39, 1)]);
        assert!(byte_in_a_tebibyte <= 5 << 20, "{byte_in_a_tebibyte}");
        assert_eq!(Chunks::of(i64::MAX as u64, &[]).bits, 31);
        assert!(cost(1 << 31, &[extent(0, 1 << 30)]) < (1 << 30) + 100, "two halves");
        let many: Vec<Extent> = (0..5000).map(|n| extent(n << 20, 1)).collect();
        assert!(Chunks::of(1 << 40, &many).count() <= MAX_CHUNKS);
    }
}
