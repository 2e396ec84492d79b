// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration space of the block device, and its limits. Virtio 1.3, 5.2.4 (`struct virtio_blk_config`).

use super::SECTOR_SIZE;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// Requests in flight.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Ranges in one discard or write-zeroes request.
pub(super) const RANGES_LIMIT: u32 = 16;
/// Sectors in one range of a discard: 2 GiB.
pub(super) const DISCARD_SECTORS_LIMIT: u32 = 1 << 22;
/// Sectors in one range of a write-zeroes: 32 MiB, because the host may have to write them.
pub(super) const WRITE_ZEROES_SECTORS_LIMIT: u32 = 1 << 16;

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct ConfigSpace {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    blk_size: U32,
    physical_block_exp: u8,
    alignment_offset: u8,
    min_io_size: U16,
    opt_io_size: U32,
    writeback: u8,
    unused0: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
}

impl ConfigSpace {
    /// For a disk of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self {
            capacity: (size / SECTOR_SIZE).into(),
            // Header and status take a descriptor each.
            seg_max: u32::from(QUEUE_SIZE - 2).into(),
            blk_size: (SECTOR_SIZE as u32).into(),
            num_queues: 1.into(),
            max_discard_sectors: DISCARD_SECTORS_LIMIT.into(),
            max_discard_seg: RANGES_LIMIT.into(),
            // 4 KiB: smaller holes are not punched by file systems.
            discard_sector_alignment: 8.into(),
            max_write_zeroes_sectors: WRITE_ZEROES_SECTORS_LIMIT.into(),
            max_write_zeroes_seg: RANGES_LIMIT.into(),
            write_zeroes_may_unmap: 1,
            ..Self::default()
        }
    }
}
