// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One block request: read from the chain once, checked against the disk, before anything is done. Pure, apart from
//! reading the guest's memory. Virtio 1.3, 5.2.6.

use super::super::chain::{Chain, Reader, Writer};
use super::config::{DISCARD_SECTORS_LIMIT, RANGES_LIMIT, WRITE_ZEROES_SECTORS_LIMIT};
use super::{ID_SIZE, SECTOR_SIZE};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Flag of a write-zeroes range: the space may be given back.
const UNMAP: u32 = 1;

/// The status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoError = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// Against what a request is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Size of the disk in bytes.
    pub(super) size: u64,
    pub(super) read_only: bool,
    /// The driver accepted discards.
    pub(super) discard: bool,
    /// The driver accepted writing zeroes.
    pub(super) write_zeroes: bool,
}

/// What the driver asks for. Offsets are in bytes, ranges lie within the disk.
#[derive(Debug)]
pub(super) enum Operation<'m> {
    Read { offset: u64, data: Writer<'m> },
    Write { offset: u64, data: Reader<'m> },
    Flush,
    GetId { data: Writer<'m> },
    Discard(Vec<Range>),
    WriteZeroes(Vec<Range>),
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) unmap: bool,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
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

/// A request, or the status with which it is refused, and where the status goes.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) operation: Result<Operation<'m>, Status>,
    pub(super) status: Writer<'m>,
}

impl<'m> Request<'m> {
    /// Takes `chain` apart. `None` if it has no room for a status: there is nobody to answer.
    pub(super) fn parse(chain: &Chain<'m>, limits: Limits) -> Option<Self> {
        let (data_in, mut data_out) = (chain.readable.clone(), chain.writable.clone());
        let status = data_out.split_off(data_out.remaining().checked_sub(1)?);
        Some(Self { operation: parse_operation(data_in, data_out, limits), status })
    }
}

fn parse_operation<'m>(mut sent: Reader<'m>, room: Writer<'m>, limits: Limits) -> Result<Operation<'m>, Status> {
    let mut header = Header::new_zeroed();
    sent.read_exact(header.as_mut_bytes()).map_err(|_| Status::IoError)?;
    let sector = header.sector.get();
    match header.kind.get() {
        VIRTIO_BLK_T_IN => {
            let offset = limits.check(sector, room.remaining() as u64)?;
            if sent.remaining() == 0 { Ok(Operation::Read { offset, data: room }) } else { Err(Status::IoError) }
        }
        VIRTIO_BLK_T_OUT => {
            limits.check_writable()?;
            let offset = limits.check(sector, sent.remaining() as u64)?;
            if room.remaining() == 0 { Ok(Operation::Write { offset, data: sent }) } else { Err(Status::IoError) }
        }
        VIRTIO_BLK_T_FLUSH if sent.remaining() == 0 && room.remaining() == 0 => Ok(Operation::Flush),
        VIRTIO_BLK_T_GET_ID if room.remaining() >= ID_SIZE => Ok(Operation::GetId { data: room }),
        VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_GET_ID => Err(Status::IoError),
        VIRTIO_BLK_T_DISCARD => {
            limits.check_writable()?;
            if !limits.discard {
                return Err(Status::Unsupported);
            }
            parse_ranges(sent, limits, DISCARD_SECTORS_LIMIT, 0).map(Operation::Discard)
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            limits.check_writable()?;
            if !limits.write_zeroes {
                return Err(Status::Unsupported);
            }
            parse_ranges(sent, limits, WRITE_ZEROES_SECTORS_LIMIT, UNMAP).map(Operation::WriteZeroes)
        }
        _ => Err(Status::Unsupported),
    }
}

/// All ranges of a request; nothing is done unless all of them are right.
fn parse_ranges(
    mut sent: Reader<'_>,
    limits: Limits,
    sectors_limit: u32,
    known_flags: u32,
) -> Result<Vec<Range>, Status> {
    let size = size_of::<RawRange>();
    let count = sent.remaining() / size;
    if count == 0 || count > RANGES_LIMIT as usize || !sent.remaining().is_multiple_of(size) {
        return Err(Status::IoError);
    }
    let mut ranges = Vec::with_capacity(count);
    let mut raw = RawRange::new_zeroed();
    while sent.read_exact(raw.as_mut_bytes()).is_ok() {
        let (sectors, flags) = (raw.sectors.get(), raw.flags.get());
        if flags & !known_flags != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > sectors_limit {
            return Err(Status::IoError);
        }
        let length = u64::from(sectors) * SECTOR_SIZE;
        let offset = limits.check(raw.sector.get(), length)?;
        if length > 0 {
            ranges.push(Range { offset, length, unmap: flags & UNMAP != 0 });
        }
    }
    Ok(ranges)
}

impl Limits {
    /// The offset of `length` bytes from `sector` on, if they are whole sectors of the disk.
    fn check(self, sector: u64, length: u64) -> Result<u64, Status> {
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Status::IoError)?;
        let end = offset.checked_add(length).ok_or(Status::IoError)?;
        if end <= self.size && length.is_multiple_of(SECTOR_SIZE) { Ok(offset) } else { Err(Status::IoError) }
    }

    fn check_writable(self) -> Result<(), Status> {
        if self.read_only { Err(Status::IoError) } else { Ok(()) }
    }
}
