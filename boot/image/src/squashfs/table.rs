// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A table of the image: a stream of bytes in blocks of 8 KiB, each preceded by its length.

use super::format::{METADATA, UNCOMPRESSED_METADATA};

/// Size of a full block on the disk.
const STORED_BLOCK_SIZE: usize = 2 + METADATA;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the form on the disk.
    stored: Vec<u8>,
    /// Without the two bytes of each block's length.
    length: usize,
}

impl Table {
    /// Reference to the next byte: offset of its block in the table, and offset in the block.
    pub(super) fn reference(&self) -> u64 {
        let (block, offset) = (self.length / METADATA, self.length % METADATA);
        ((block * STORED_BLOCK_SIZE) as u64) << 16 | offset as u64
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = self.length % METADATA;
            if filled == 0 {
                self.stored.extend_from_slice(&[0; 2]);
            }
            let (now, later) = bytes.split_at(bytes.len().min(METADATA - filled));
            let start = self.stored.len() - filled - 2;
            self.stored.extend_from_slice(now);
            let header = UNCOMPRESSED_METADATA | (filled + now.len()) as u16;
            self.stored[start..start + 2].copy_from_slice(&header.to_le_bytes());
            self.length += now.len();
            bytes = later;
        }
    }

    /// In the form on the disk.
    pub(super) fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// Offsets of the blocks on the disk, if the table starts at `start`.
    pub(super) fn blocks(&self, start: u64) -> impl Iterator<Item = u64> {
        (0..self.length.div_ceil(METADATA)).map(move |block| start + (block * STORED_BLOCK_SIZE) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_full_and_references_point_into_them() {
        let mut table = Table::default();
        assert_eq!((table.reference(), table.stored()), (0, &[][..]));
        table.push(&[1; METADATA - 1]);
        assert_eq!(table.reference(), METADATA as u64 - 1);
        table.push(&[2; 1]);
        assert_eq!(table.reference(), (STORED_BLOCK_SIZE as u64) << 16);
        table.push(&[3; 5]);
        assert_eq!(table.reference(), (STORED_BLOCK_SIZE as u64) << 16 | 5);
        assert_eq!(table.stored().len(), 2 + METADATA + 2 + 5);
        assert_eq!(
            (&table.stored()[..2], &table.stored()[STORED_BLOCK_SIZE..STORED_BLOCK_SIZE + 2]),
            (&[0, 0xa0][..], &[5, 0x80][..])
        );
        assert_eq!(table.blocks(100).collect::<Vec<_>>(), [100, 100 + STORED_BLOCK_SIZE as u64]);
    }
}
