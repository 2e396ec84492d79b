// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extended attributes, in a block that files with the same ones share.

use super::{BLOCK, BLOCK_SIZE};
use crate::file_system::Xattr;
use crate::tree::xattr_namespace;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Memory of a block in the table.
pub(super) const COST: u64 = BLOCK + 128;
const MAGIC: u32 = 0xea02_0000;
const HEADER_SIZE: usize = 32;
const ENTRY_HEADER_SIZE: usize = 16;
/// What Linux lets share a block.
const MAX_REFERENCES: u32 = 1024;
/// Versions of access control lists, of `getxattr` and on the disk.
const LIST_VERSION: u32 = 2;
const DISK_VERSION: u32 = 1;
/// Tags of entries for a user or a group with a number.
const NAMED: [u16; 2] = [2, 8];

type Block = Box<[u8; BLOCK_SIZE]>;

/// Blocks by their content: the number of the last one, and how many files have that.
#[derive(Debug, Default)]
pub(super) struct XattrBlocks(BTreeMap<Block, (u64, u32)>);

impl XattrBlocks {
    /// The number of a block with this content, for one more file. None if there is no place for it.
    pub(super) fn place(
        &mut self,
        content: Block,
        file: &File,
        allocate: impl FnOnce() -> Option<u64>,
    ) -> io::Result<Option<u64>> {
        let there = self.0.get_mut(&content);
        if let Some((block, references)) = there
            && *references < MAX_REFERENCES
        {
            *references += 1;
            return Ok(Some(*block));
        }
        let Some(block) = allocate() else { return Ok(None) };
        file.write_all_at(&content[..], block * BLOCK)?;
        if let Some((full, references)) = self.0.insert(content, (block, 1)) {
            write_references(file, full, references)?;
        }
        Ok(Some(block))
    }

    /// Writes how many files have each block.
    pub(super) fn finish(&self, file: &File) -> io::Result<()> {
        self.0.values().try_for_each(|(block, references)| write_references(file, *block, *references))
    }
}

fn write_references(file: &File, block: u64, references: u32) -> io::Result<()> {
    file.write_all_at(&references.to_le_bytes(), block * BLOCK + 4)
}

/// A block with these attributes, without the number of its files. None if they do not fit, or one is of another kind than ext4 has.
pub(super) fn encode(xattrs: &[Xattr]) -> Option<Block> {
    let mut entries = Vec::new();
    for Xattr { name, value } in xattrs {
        let (index, name) = xattr_namespace(name)?;
        let value = if matches!(index, 2 | 3) { access_control_list(value)? } else { value.clone() };
        entries.push((index, name.len(), name, value));
    }
    entries.sort();
    let mut block = Box::new([0; BLOCK_SIZE]);
    let (mut at, mut end, mut hash) = (HEADER_SIZE, BLOCK_SIZE, 0_u32);
    for (index, length, name, value) in entries {
        let next = at + (ENTRY_HEADER_SIZE + length).next_multiple_of(4);
        end = end.checked_sub(value.len().next_multiple_of(4))?;
        // Four zeroes end the list.
        if next + 4 > end {
            return None;
        }
        block[end..end + value.len()].copy_from_slice(&value);
        let of_entry = entry_hash(name, &block[end..end + value.len().next_multiple_of(4)]);
        let entry = &mut block[at..next];
        entry[0] = length as u8;
        entry[1] = index;
        entry[2..4].copy_from_slice(&(if value.is_empty() { 0 } else { end as u16 }).to_le_bytes());
        entry[8..12].copy_from_slice(&(value.len() as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&of_entry.to_le_bytes());
        entry[ENTRY_HEADER_SIZE..ENTRY_HEADER_SIZE + length].copy_from_slice(name);
        hash = hash.rotate_left(16) ^ of_entry;
        at = next;
    }
    // The header: blocks are one, and a hash by which Linux finds blocks to share.
    for (at, value) in [(0, MAGIC), (8, 1), (12, hash)] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Some(block)
}

/// Linux' `ext4_xattr_hash_entry`; `value` is filled with zeroes to whole words.
fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let of_name = name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    let words = value.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    words.fold(of_name, |hash, word| hash.rotate_left(16) ^ word)
}

/// Converts a list of `getxattr` to that of the disk, in which only named users and groups have a number.
fn access_control_list(list: &[u8]) -> Option<Vec<u8>> {
    let rest = list.strip_prefix(&LIST_VERSION.to_le_bytes())?;
    let mut disk = DISK_VERSION.to_le_bytes().to_vec();
    for entry in rest.chunks(8) {
        let (tag, _) = entry.split_first_chunk::<2>().filter(|_| entry.len() == 8)?;
        let length = if NAMED.contains(&u16::from_le_bytes(*tag)) { 8 } else { 4 };
        disk.extend_from_slice(&entry[..length]);
    }
    Some(disk)
}
