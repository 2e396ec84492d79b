// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One block request: read from the chain once, checked against the disk before anything is done.
//! Plain data, so that it can be executed in steps. Pure, apart from reading the guest's memory.
//! Virtio 1.3, 5.2.6.

use super::super::chain::{Chain, Reader};
use super::config::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_REQUEST_BYTES, MAX_WRITE_ZEROES_SECTORS};
use super::{ID_SIZE, SECTOR_SIZE};
use crate::planted::{PlantedFault, is_planted};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Flag of a write-zeroes range: the host may deallocate the space.
const UNMAP: u32 = 1;

/// The status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoError = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// What a request is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Size of the disk in bytes when the request was read.
    pub(super) size: u64,
    pub(super) read_only: bool,
    /// The driver accepted discards.
    pub(super) discard: bool,
    /// The driver accepted writing zeroes.
    pub(super) write_zeroes: bool,
}

/// A valid request. Offsets and lengths are in bytes and lie within the disk.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Into the writable buffers.
    Read {
        offset: u64,
        length: u64,
    },
    /// From the readable buffers, after the header.
    Write {
        offset: u64,
        length: u64,
    },
    Flush,
    GetId,
    Discard(Ranges),
    WriteZeroes(Ranges),
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) unmap: bool,
}

/// The ranges of one request, none of them empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    list: [Range; MAX_RANGES],
    count: usize,
}

impl Ranges {
    fn bytes(&self) -> u64 {
        self.list[..self.count].iter().map(|range| range.length).sum()
    }

    /// What comes after the first `done` bytes of all ranges, up to the next multiple of `limit` on
    /// the disk: steps begin and end between the blocks of the host. Empty at the end of the
    /// ranges.
    pub(super) fn step(&self, mut done: u64, limit: u64) -> Range {
        for range in &self.list[..self.count] {
            if done < range.length {
                let offset = range.offset + done;
                let length = (range.length - done).min(limit - offset % limit);
                return Range { offset, length, ..*range };
            }
            done -= range.length;
        }
        Range::default()
    }
}

/// The header of a request (`struct virtio_blk_req`).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawRange {
    sector: U64,
    sectors: U32,
    flags: U32,
}

impl Operation {
    /// Bytes of data to move, discard or write zeroes to.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Read { length, .. } | Self::Write { length, .. } => *length,
            Self::Discard(ranges) | Self::WriteZeroes(ranges) => ranges.bytes(),
            Self::Flush | Self::GetId => 0,
        }
    }

    /// The request in `chain`, or the status with which it is rejected. The last writable byte, of
    /// which there must be one, is for the status.
    pub(super) fn parse(chain: Chain<'_>, limits: Limits) -> Result<Self, Status> {
        let (mut data, space) = (chain.readable, chain.writable.remaining() as u64 - 1);
        let mut header = Header::new_zeroed();
        data.read_exact(header.as_mut_bytes()).map_err(|_| Status::IoError)?;
        let (sector, length) = (header.sector.get(), data.remaining() as u64);
        match header.kind.get() {
            VIRTIO_BLK_T_IN => {
                let offset = limits.check_data(sector, space)?;
                if length == 0 { Ok(Self::Read { offset, length: space }) } else { Err(Status::IoError) }
            }
            VIRTIO_BLK_T_OUT => {
                limits.check_writable()?;
                let offset = limits.check_data(sector, length)?;
                if space == 0 { Ok(Self::Write { offset, length }) } else { Err(Status::IoError) }
            }
            VIRTIO_BLK_T_FLUSH if length == 0 && space == 0 => Ok(Self::Flush),
            VIRTIO_BLK_T_GET_ID if space >= ID_SIZE as u64 => Ok(Self::GetId),
            VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_GET_ID => Err(Status::IoError),
            VIRTIO_BLK_T_DISCARD => {
                limits.check_writable()?;
                if !limits.discard {
                    return Err(Status::Unsupported);
                }
                parse_ranges(data, limits, MAX_DISCARD_SECTORS, 0).map(Self::Discard)
            }
            VIRTIO_BLK_T_WRITE_ZEROES => {
                limits.check_writable()?;
                if !limits.write_zeroes {
                    return Err(Status::Unsupported);
                }
                parse_ranges(data, limits, MAX_WRITE_ZEROES_SECTORS, UNMAP).map(Self::WriteZeroes)
            }
            _ => Err(Status::Unsupported),
        }
    }
}

/// All ranges of a request; nothing is done unless all of them are valid.
fn parse_ranges(mut data: Reader<'_>, limits: Limits, max_sectors: u32, known_flags: u32) -> Result<Ranges, Status> {
    let size = size_of::<RawRange>();
    let count = data.remaining() / size;
    if count == 0 || count > MAX_RANGES || !data.remaining().is_multiple_of(size) {
        return Err(Status::IoError);
    }
    let mut ranges = Ranges::default();
    let mut raw = RawRange::new_zeroed();
    while data.read_exact(raw.as_mut_bytes()).is_ok() {
        let (sectors, flags) = (raw.sectors.get(), raw.flags.get());
        if flags & !known_flags != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > max_sectors {
            return Err(Status::IoError);
        }
        let length = u64::from(sectors) * SECTOR_SIZE;
        let offset = limits.check(raw.sector.get(), length)?;
        if length > 0 {
            ranges.list[ranges.count] = Range { offset, length, unmap: flags & UNMAP != 0 };
            ranges.count += 1;
        }
    }
    Ok(ranges)
}

impl Limits {
    /// The offset of `length` bytes from `sector` on, if they are whole sectors of the disk.
    fn check(self, sector: u64, length: u64) -> Result<u64, Status> {
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Status::IoError)?;
        let end = offset.checked_add(length).ok_or(Status::IoError)?;
        let is_inside = end <= self.size || is_planted(PlantedFault::SectorRange);
        if is_inside && length.is_multiple_of(SECTOR_SIZE) { Ok(offset) } else { Err(Status::IoError) }
    }

    /// The same for data in the request's buffers.
    fn check_data(self, sector: u64, length: u64) -> Result<u64, Status> {
        if length > MAX_REQUEST_BYTES { Err(Status::IoError) } else { self.check(sector, length) }
    }

    fn check_writable(self) -> Result<(), Status> {
        if self.read_only { Err(Status::IoError) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_all_ranges_once_and_end_at_multiples() {
        let mut ranges = Ranges { count: 2, ..Ranges::default() };
        ranges.list[0] = Range { offset: 7, length: 6, unmap: true };
        ranges.list[1] = Range { offset: 0, length: 2, unmap: false };
        let mut steps: Vec<Range> = Vec::new();
        while steps.iter().map(|step| step.length).sum::<u64>() < ranges.bytes() {
            steps.push(ranges.step(steps.iter().map(|step| step.length).sum(), 4));
        }
        let range = |offset, length, unmap| Range { offset, length, unmap };
        assert_eq!(steps, [range(7, 1, true), range(8, 4, true), range(12, 1, true), range(0, 2, false)]);
    }
}
