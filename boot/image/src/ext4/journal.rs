// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The journal of a file system that was not unmounted (Linux `fs/jbd2/recovery.c`): which blocks have a newer content there. The
//! journal itself stays as it is, and the guest's kernel replays it at the next start.

use super::{BLOCK_SIZE, Ext4, damaged};
use crate::file_system::{Extent, FileSystemError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Begins every block of the journal that is not a copy of a block. Numbers in a journal are big-endian.
const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK: [u32; 2] = [3, 4];
const REVOKE: u32 = 5;

const HEADER_SIZE: usize = 12;
const FEATURE_REVOKE: u32 = 0x1;
const FEATURE_64BIT: u32 = 0x2;
/// The copy begins with zeroes in place of the magic number.
const FLAG_ESCAPED: u16 = 0x1;
/// No UUID follows.
const FLAG_SAME_UUID: u16 = 0x2;
const FLAG_LAST: u16 = 0x8;
const UUID_SIZE: usize = 16;
/// Memory of a block in a map, which may be half empty.
const BLOCK_COST: u64 = 96;

/// Blocks of the file system whose newest content is in the journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    blocks: BTreeMap<u64, Copy>,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    /// Offset of the copy in the layer's disk, in bytes.
    position: u64,
    is_escaped: bool,
}

/// The fields of the journal's superblock.
pub(super) struct Log {
    extents: Vec<Extent>,
    first: u32,
    length: u32,
    pub(super) start: u32,
    sequence: u32,
    has_64bit: bool,
}

impl Journal {
    /// Replaces what `buffer` holds of blocks in the journal.
    pub(super) fn replay(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let size = BLOCK_SIZE as u64;
        let end = position + buffer.len() as u64;
        for (number, copy) in self.blocks.range(position / size..end.div_ceil(size)) {
            let mut block = [0; BLOCK_SIZE];
            file.read_exact_at(&mut block, copy.position)?;
            if copy.is_escaped {
                block[..4].copy_from_slice(&MAGIC.to_be_bytes());
            }
            let start = number * size;
            let (from, to) = (start.max(position), (start + size).min(end));
            buffer[(from - position) as usize..(to - position) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

impl Ext4 {
    /// Reads what the journal, which is the file `inode`, holds of complete transactions.
    pub(super) fn read_journal(&self, inode: u32) -> Result<Journal, FileSystemError> {
        let Some(log) = self.read_log(inode)? else { return Ok(Journal::default()) };
        let mut journal = Journal::default();
        let mut revoked: BTreeMap<u64, u32> = BTreeMap::new();
        // Blocks of transactions that are complete, in their order.
        let mut copies: Vec<(u32, u64, Copy)> = Vec::new();
        let (mut pending, mut pending_revoked) = (Vec::new(), Vec::new());
        let (mut place, mut sequence) = (log.start, log.sequence);
        let mut left = log.length;
        while let Some(rest) = left.checked_sub(1) {
            left = rest;
            let block = self.read_log_block(&log, place)?;
            place = log.after(place);
            if be32(&block, 0)? != MAGIC || be32(&block, 8)? != sequence {
                break;
            }
            match be32(&block, 4)? {
                DESCRIPTOR => {
                    for (number, is_escaped) in tags(&block, log.has_64bit)? {
                        let Some(rest) = left.checked_sub(1) else { break };
                        left = rest;
                        self.charge(2 * BLOCK_COST)?;
                        pending.push((sequence, number, Copy { position: log.position(place)?, is_escaped }));
                        place = log.after(place);
                    }
                }
                REVOKE => {
                    for number in revoked_blocks(&block, log.has_64bit)? {
                        self.charge(2 * BLOCK_COST)?;
                        pending_revoked.push((number, sequence));
                    }
                }
                COMMIT => {
                    copies.append(&mut pending);
                    revoked.extend(pending_revoked.drain(..));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        for (sequence, number, copy) in copies {
            let is_revoked = revoked.get(&number).is_some_and(|revoked| !is_later(sequence, *revoked));
            if number >= self.geometry.blocks {
                return Err(damaged("a block of the journal is out of range"));
            }
            if !is_revoked {
                journal.blocks.insert(number, copy);
            }
        }
        Ok(journal)
    }

    /// None if the journal is empty.
    pub(super) fn read_log(&self, inode: u32) -> Result<Option<Log>, FileSystemError> {
        let extents = self.read_extents(&self.inode(u64::from(inode))?)?;
        let mut log = Log { extents, first: 1, length: 1, start: 0, sequence: 0, has_64bit: false };
        let block = self.read_log_block(&log, 0)?;
        let features = if be32(&block, 4)? == SUPERBLOCK[1] { be32(&block, 40)? } else { 0 };
        if features & !(FEATURE_REVOKE | FEATURE_64BIT) != 0 {
            return Err(FileSystemError::Feature("journal", features));
        }
        log.has_64bit = features & FEATURE_64BIT != 0;
        [log.length, log.first, log.sequence, log.start] =
            [be32(&block, 16)?, be32(&block, 20)?, be32(&block, 24)?, be32(&block, 28)?];
        let is_sound = be32(&block, 0)? == MAGIC
            && SUPERBLOCK.contains(&be32(&block, 4)?)
            && be32(&block, 12)? == BLOCK_SIZE as u32
            && (1..log.length).contains(&log.first)
            && u64::from(log.length) <= self.geometry.blocks
            && (log.start == 0 || (log.first..log.length).contains(&log.start));
        match (is_sound, log.start) {
            (false, _) => Err(damaged("superblock of the journal")),
            (true, 0) => Ok(None),
            (true, _) => Ok(Some(log)),
        }
    }

    fn read_log_block(&self, log: &Log, place: u32) -> Result<[u8; BLOCK_SIZE], FileSystemError> {
        let mut block = [0; BLOCK_SIZE];
        self.file.read_exact_at(&mut block, log.position(place)?)?;
        Ok(block)
    }
}

impl Log {
    fn after(&self, place: u32) -> u32 {
        if place + 1 < self.length { place + 1 } else { self.first }
    }

    /// Where block `place` of the journal is in the file.
    pub(super) fn position(&self, place: u32) -> Result<u64, FileSystemError> {
        let offset = u64::from(place) * BLOCK_SIZE as u64;
        let behind = self.extents.partition_point(|extent| extent.offset <= offset);
        let extent = behind.checked_sub(1).map(|index| self.extents[index]);
        let extent = extent.filter(|extent| offset + BLOCK_SIZE as u64 <= extent.offset + extent.length);
        let extent = extent.ok_or_else(|| damaged("a hole in the journal"))?;
        Ok(extent.position + (offset - extent.offset))
    }
}

/// The blocks whose copies follow a descriptor, and whether each is escaped.
fn tags(block: &[u8], has_64bit: bool) -> Result<Vec<(u64, bool)>, FileSystemError> {
    let size = if has_64bit { 12 } else { 8 };
    let mut tags = Vec::new();
    let mut at = HEADER_SIZE;
    while at + size <= block.len() {
        let flags = be32(block, at + 4)? as u16;
        let high = if has_64bit { be32(block, at + 8)? } else { 0 };
        tags.push((super::wide(high, be32(block, at)?), flags & FLAG_ESCAPED != 0));
        if flags & FLAG_LAST != 0 {
            break;
        }
        at += size + if flags & FLAG_SAME_UUID == 0 { UUID_SIZE } else { 0 };
    }
    Ok(tags)
}

fn revoked_blocks(block: &[u8], has_64bit: bool) -> Result<Vec<u64>, FileSystemError> {
    let size = if has_64bit { 8 } else { 4 };
    let used = be32(block, HEADER_SIZE)? as usize;
    let list = block.get(HEADER_SIZE + 4..used).ok_or_else(|| damaged("list of revoked blocks"))?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(list.chunks_exact(size).map(number).collect())
}

/// Sequence numbers wrap around.
fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, FileSystemError> {
    super::bytes_at(bytes, at).map(u32::from_be_bytes)
}
