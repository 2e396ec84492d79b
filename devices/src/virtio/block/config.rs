// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration space of the block device, and its limits. Virtio 1.3, 5.2.4 (`struct
//! virtio_blk_config`).

use super::SECTOR_SIZE;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// Requests in flight.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Bytes of one data buffer.
pub(super) const MAX_SEGMENT_BYTES: u32 = 128 << 10;
/// Data buffers of one request: header and status take a descriptor each.
pub(super) const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of data in one request: what a driver can send within the two limits above. Larger
/// requests are made of buffers that overlap, or ignore the limits; they fail.
pub(super) const MAX_REQUEST_BYTES: u64 = MAX_SEGMENT_BYTES as u64 * MAX_SEGMENTS as u64;
/// Ranges in one discard or write-zeroes request.
pub(super) const MAX_RANGES: usize = 16;
/// Sectors in one range of a discard: 2 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// Sectors in one range of a write-zeroes: 32 MiB, because the host may have to write them.
pub(super) const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 16;
/// Bytes of the smallest discard that is worth sending, and its alignment: file systems punch no
/// smaller holes.
const MIN_DISCARD_ALIGNMENT: u64 = 4096;

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
    /// For a disk of `size` bytes whose host device allocates in units of `alignment` bytes.
    pub(super) fn new(size: u64, alignment: u64) -> Self {
        Self {
            capacity: (size / SECTOR_SIZE).into(),
            size_max: MAX_SEGMENT_BYTES.into(),
            seg_max: MAX_SEGMENTS.into(),
            blk_size: (SECTOR_SIZE as u32).into(),
            num_queues: 1.into(),
            max_discard_sectors: MAX_DISCARD_SECTORS.into(),
            max_discard_seg: (MAX_RANGES as u32).into(),
            discard_sector_alignment: ((alignment.max(MIN_DISCARD_ALIGNMENT) / SECTOR_SIZE) as u32).into(),
            max_write_zeroes_sectors: MAX_WRITE_ZEROES_SECTORS.into(),
            max_write_zeroes_seg: (MAX_RANGES as u32).into(),
            write_zeroes_may_unmap: 1,
            ..Self::default()
        }
    }
}
