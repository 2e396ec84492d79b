// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where everything is: groups of 128 MiB, each with its bitmaps and its part of the inodes in front, some with a copy of the superblock.

use super::inode::{EXTRA_SIZE, INODE_SIZE};
use super::{BLOCK, BLOCK_SIZE, JOURNAL, LOST_AND_FOUND, Need};
use crate::limits;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const GROUP_BLOCKS: u64 = 8 * BLOCK;
const DESCRIPTOR_SIZE: u64 = 32;
const INODES_PER_BLOCK: u64 = BLOCK / INODE_SIZE as u64;
/// Blocks for an inode at least, so that the inodes of a group fit into it.
const BLOCKS_PER_INODE: u64 = 2;
/// The last group has that many for data at least.
const MIN_GROUP_DATA: u64 = 64;
/// What is free at least: 16 MiB, and an eighth of what is used.
const MIN_FREE_BLOCKS: u64 = 4096;
const MIN_FREE_INODES: u64 = 1024;
const FREE_PART: u64 = 8;
const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_SIZE: usize = 1024;
const MAGIC: u16 = 0xef53;
const VOLUME_NAME: &[u8] = b"coracle-image";
/// Extended attributes, and a journal.
const FEATURES_COMPATIBLE: u32 = 0x8 | 0x4;
/// Types in directory entries, extents.
const FEATURES_INCOMPATIBLE: u32 = 0x2 | 0x40;
/// Few copies of the superblock, large files, directories with any number of others in them, extra fields in inodes.
const FEATURES_READ_ONLY: u32 = 0x1 | 0x2 | 0x20 | 0x40;
/// Mounted with user attributes and access control lists, as `mke2fs` sets it.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
const JOURNAL_MAGIC: u32 = 0xc03b_3998;
const JOURNAL_SUPERBLOCK: u32 = 4;
/// The smallest journal that Linux takes, and that of 256 MiB and more.
const JOURNAL_BLOCKS: [u64; 2] = [1024, 4096];
const LARGE_BLOCKS: u64 = (256 << 20) / BLOCK;

#[derive(Debug)]
pub(super) struct Layout {
    blocks: u64,
    inodes_per_group: u64,
}

/// What has been given out.
pub(super) struct Used<'a> {
    pub(super) allocator: &'a Allocator<'a>,
    pub(super) inodes: u32,
    /// Directories of each group.
    pub(super) directories: &'a [u16],
}

impl Layout {
    /// None above the bound on root disks.
    pub(super) fn of(need: &Need) -> Option<Self> {
        let journal = JOURNAL_BLOCKS[usize::from(need.blocks >= LARGE_BLOCKS)];
        let inodes = need.inodes + u64::from(LOST_AND_FOUND);
        let inodes = inodes + inodes / FREE_PART + MIN_FREE_INODES;
        let data = need.blocks + journal;
        let data = (data + data / FREE_PART + MIN_FREE_BLOCKS).max(inodes * BLOCKS_PER_INODE);
        let mut blocks = data;
        loop {
            if blocks > limits::MAX_UNCOMPRESSED_BYTES / BLOCK {
                return None;
            }
            let inodes_per_group = inodes.div_ceil(blocks.div_ceil(GROUP_BLOCKS)).next_multiple_of(INODES_PER_BLOCK);
            let layout = Self { blocks, inodes_per_group };
            let last = layout.groups() - 1;
            let missing_in_last = (layout.overhead(last) + MIN_GROUP_DATA).saturating_sub(layout.group_blocks(last));
            let overhead: u64 = (0..layout.groups()).map(|group| layout.overhead(group)).sum();
            match (data + overhead).saturating_sub(blocks).max(missing_in_last) {
                0 => return Some(layout),
                missing => blocks += missing,
            }
        }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn groups(&self) -> u64 {
        self.blocks.div_ceil(GROUP_BLOCKS)
    }

    pub(super) fn journal_blocks(&self) -> u64 {
        JOURNAL_BLOCKS[usize::from(self.blocks >= LARGE_BLOCKS)]
    }

    pub(super) fn group_of(&self, inode: u32) -> usize {
        ((u64::from(inode) - 1) / self.inodes_per_group) as usize
    }

    /// Where an inode is in the file.
    pub(super) fn position(&self, inode: u32) -> u64 {
        let index = (u64::from(inode) - 1) % self.inodes_per_group;
        self.inode_table(self.group_of(inode) as u64) * BLOCK + index * INODE_SIZE as u64
    }

    fn inodes(&self) -> u64 {
        self.groups() * self.inodes_per_group
    }

    fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.groups() * DESCRIPTOR_SIZE).div_ceil(BLOCK)
    }

    /// Blocks of a group that are not for data.
    fn overhead(&self, group: u64) -> u64 {
        self.inode_table(group) + self.inodes_per_group / INODES_PER_BLOCK - group * GROUP_BLOCKS
    }

    fn block_bitmap(&self, group: u64) -> u64 {
        group * GROUP_BLOCKS + if has_superblock(group) { 1 + self.descriptor_blocks() } else { 0 }
    }

    fn inode_table(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 2
    }

    /// Writes superblocks, descriptors and bitmaps.
    pub(super) fn write(&self, file: &File, used: &Used<'_>, uuid: [u8; 16], journal: &[u8; 60]) -> io::Result<()> {
        let mut descriptors = vec![0; (self.descriptor_blocks() * BLOCK) as usize];
        let (mut free_blocks, mut free_inodes) = (0, 0);
        for (group, descriptor) in (0..self.groups()).zip(descriptors.chunks_exact_mut(DESCRIPTOR_SIZE as usize)) {
            let used_blocks = self.overhead(group) + used.allocator.used_in(group);
            let first = group * self.inodes_per_group;
            let used_inodes = u64::from(used.inodes).saturating_sub(first).min(self.inodes_per_group);
            write_bitmap(file, self.block_bitmap(group), used_blocks, self.group_blocks(group))?;
            write_bitmap(file, self.block_bitmap(group) + 1, used_inodes, self.inodes_per_group)?;
            let free = (self.group_blocks(group) - used_blocks, self.inodes_per_group - used_inodes);
            free_blocks += free.0;
            free_inodes += free.1;
            let directories = used.directories[group as usize];
            for (at, block) in
                [(0, self.block_bitmap(group)), (4, self.block_bitmap(group) + 1), (8, self.inode_table(group))]
            {
                descriptor[at..at + 4].copy_from_slice(&(block as u32).to_le_bytes());
            }
            for (at, count) in [(12, free.0 as u16), (14, free.1 as u16), (16, directories)] {
                descriptor[at..at + 2].copy_from_slice(&count.to_le_bytes());
            }
        }
        for group in (0..self.groups()).filter(|group| has_superblock(*group)) {
            let superblock = self.superblock(group, (free_blocks, free_inodes), uuid, journal);
            let start = group * GROUP_BLOCKS * BLOCK;
            file.write_all_at(&superblock, start + if group == 0 { SUPERBLOCK_OFFSET } else { 0 })?;
            file.write_all_at(&descriptors, start + BLOCK)?;
        }
        Ok(())
    }

    fn superblock(&self, group: u64, free: (u64, u64), uuid: [u8; 16], journal: &[u8; 60]) -> [u8; SUPERBLOCK_SIZE] {
        let mut block = [0; SUPERBLOCK_SIZE];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let journal_size = self.journal_blocks() * BLOCK;
        let block_bits = BLOCK.ilog2() - 10;
        for (at, value) in [
            (0, self.inodes() as u32),
            (4, self.blocks as u32),
            (12, free.0 as u32),
            (16, free.1 as u32),
            (24, block_bits),
            (28, block_bits),
            (32, GROUP_BLOCKS as u32),
            (36, GROUP_BLOCKS as u32),
            (40, self.inodes_per_group as u32),
            // Revision, first inode of a file, features.
            (76, 1),
            (84, LOST_AND_FOUND),
            (92, FEATURES_COMPATIBLE),
            (96, FEATURES_INCOMPATIBLE),
            (100, FEATURES_READ_ONLY),
            (224, JOURNAL),
            (256, MOUNT_OPTIONS),
            (268 + 60, (journal_size >> 32) as u32),
            (268 + 64, journal_size as u32),
        ] {
            put(at, &value.to_le_bytes());
        }
        for (at, value) in [
            // No check after a number of mounts.
            (54, u16::MAX),
            (56, MAGIC),
            // Clean; errors are ignored, as by default.
            (58, 1),
            (60, 1),
            (88, INODE_SIZE as u16),
            (90, group as u16),
            (348, EXTRA_SIZE),
            (350, EXTRA_SIZE),
        ] {
            put(at, &value.to_le_bytes());
        }
        put(104, &uuid);
        put(120, VOLUME_NAME);
        // The copy of the journal's map is one of an inode's.
        put(253, &[1]);
        put(268, journal);
        block
    }
}

fn has_superblock(group: u64) -> bool {
    let is_power = |base: u64| {
        std::iter::successors(Some(base), |power| power.checked_mul(base))
            .take_while(|power| *power <= group)
            .any(|power| power == group)
    };
    group < 2 || [3, 5, 7].into_iter().any(is_power)
}

/// Sets the first `used` bits of a bitmap of one block, and those above `count`.
fn write_bitmap(file: &File, block: u64, used: u64, count: u64) -> io::Result<()> {
    let mut bitmap = [0; BLOCK_SIZE];
    for (byte, first) in bitmap.iter_mut().zip((0..).step_by(8)) {
        for bit in 0..8 {
            if first + bit < used || first + bit >= count {
                *byte |= 1 << bit;
            }
        }
    }
    file.write_all_at(&bitmap, block * BLOCK)
}

/// The first block of an empty journal (`include/linux/jbd2.h`), whose numbers are big-endian.
pub(super) fn journal_superblock(blocks: u64, uuid: [u8; 16]) -> [u8; 1024] {
    let mut block = [0; 1024];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let fields =
        [(0, JOURNAL_MAGIC), (4, JOURNAL_SUPERBLOCK), (12, BLOCK as u32), (16, blocks as u32), (20, 1), (24, 1)];
    for (at, value) in fields {
        put(at, &value.to_be_bytes());
    }
    put(48, &uuid);
    put(64, &1_u32.to_be_bytes());
    block
}

/// Gives out the blocks for data from the first one on.
pub(super) struct Allocator<'a> {
    layout: &'a Layout,
    group: u64,
    /// Blocks of the group that are taken.
    used: u64,
    taken: u64,
}

impl<'a> Allocator<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, group: 0, used: 0, taken: 0 }
    }

    /// The start of `count` blocks that follow each other, or of fewer, with their number. None if all are taken.
    pub(super) fn take(&mut self, count: u64) -> Option<(u64, u64)> {
        loop {
            if self.group == self.layout.groups() {
                return None;
            }
            let overhead = self.layout.overhead(self.group);
            let left = self.layout.group_blocks(self.group) - overhead - self.used;
            if left == 0 {
                self.group += 1;
                self.used = 0;
                continue;
            }
            let start = self.group * GROUP_BLOCKS + overhead + self.used;
            let count = count.min(left);
            self.used += count;
            self.taken += count;
            return Some((start, count));
        }
    }

    pub(super) fn one(&mut self) -> Option<u64> {
        self.take(1).map(|(start, _)| start)
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn used_in(&self, group: u64) -> u64 {
        match group.cmp(&self.group) {
            std::cmp::Ordering::Less => self.layout.group_blocks(group) - self.layout.overhead(group),
            std::cmp::Ordering::Equal => self.used,
            std::cmp::Ordering::Greater => 0,
        }
    }
}
