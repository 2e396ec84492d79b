// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tree that maps the blocks of a file to those of the file system.

use super::inode::Map;
use super::{BLOCK_SIZE, Ext4Error};

const MAGIC: u16 = 0xf30a;
const ENTRY_SIZE: usize = 12;
/// Entries that an inode has place for.
const ROOT_ENTRIES: usize = 4;
const NODE_ENTRIES: usize = BLOCK_SIZE / ENTRY_SIZE - 1;
/// An extent has at most that many.
const MAX_BLOCKS: u64 = 0x8000;

/// Blocks that follow each other in the file and in the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of the first one in the file.
    pub(super) block: u64,
    /// Its number in the file system.
    pub(super) start: u64,
    pub(super) count: u64,
}

#[derive(Debug, Default)]
pub(super) struct ExtentTree {
    runs: Vec<Run>,
}

/// At most as many blocks as the tree of a file needs whose `blocks` lie in `extents`.
pub(super) fn max_blocks(extents: u64, blocks: u64) -> u64 {
    // A group of blocks divides them, and so does the length of an extent.
    let runs = extents + blocks / 8192 + 2;
    let leaves = if runs > ROOT_ENTRIES as u64 { runs.div_ceil(NODE_ENTRIES as u64) } else { 0 };
    leaves + leaves / 16 + u64::from(leaves > ROOT_ENTRIES as u64)
}

impl ExtentTree {
    pub(super) fn push(&mut self, run: Run) {
        if let Some(last) = self.runs.last_mut()
            && last.block + last.count == run.block
            && last.start + last.count == run.start
            && last.count + run.count <= MAX_BLOCKS
        {
            last.count += run.count;
            return;
        }
        let mut left = run;
        while left.count > 0 {
            let count = left.count.min(MAX_BLOCKS);
            self.runs.push(Run { count, ..left });
            left = Run { block: left.block + count, start: left.start + count, count: left.count - count };
        }
    }

    /// `write` stores a node of a block and returns its number.
    pub(super) fn write(self, write: &mut dyn FnMut(&[u8]) -> Result<u64, Ext4Error>) -> Result<Map, Ext4Error> {
        let mut blocks: u64 = self.runs.iter().map(|run| run.count).sum();
        let mut entries: Vec<[u8; ENTRY_SIZE]> = self.runs.iter().map(extent).collect();
        let mut depth = 0;
        while entries.len() > ROOT_ENTRIES {
            let mut above = Vec::new();
            for part in entries.chunks(NODE_ENTRIES) {
                let mut node = vec![0; BLOCK_SIZE];
                fill(&mut node, part, NODE_ENTRIES, depth);
                let block = write(&node)?;
                let mut entry = [0; ENTRY_SIZE];
                entry[..4].copy_from_slice(&part[0][..4]);
                entry[4..8].copy_from_slice(&(block as u32).to_le_bytes());
                above.push(entry);
                blocks += 1;
            }
            entries = above;
            depth += 1;
        }
        let mut root = [0; 60];
        fill(&mut root, &entries, ROOT_ENTRIES, depth);
        Ok(Map::extents(root, blocks))
    }
}

fn extent(run: &Run) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    entry[..4].copy_from_slice(&(run.block as u32).to_le_bytes());
    entry[4..6].copy_from_slice(&(run.count as u16).to_le_bytes());
    entry[8..].copy_from_slice(&(run.start as u32).to_le_bytes());
    entry
}

fn fill(node: &mut [u8], entries: &[[u8; ENTRY_SIZE]], max: usize, depth: u16) {
    for (at, value) in [MAGIC, entries.len() as u16, max as u16, depth].into_iter().enumerate() {
        node[2 * at..2 * at + 2].copy_from_slice(&value.to_le_bytes());
    }
    for (place, entry) in node[ENTRY_SIZE..].chunks_exact_mut(ENTRY_SIZE).zip(entries) {
        place.copy_from_slice(entry);
    }
}
