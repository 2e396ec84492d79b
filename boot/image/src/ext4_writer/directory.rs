// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories: a list of entries in blocks, without an index, which the kernel makes where it adds to a large one.

use super::BLOCK_SIZE;
use crate::file_system::{FileKind, Name};
use crate::limits;

const HEADER_SIZE: usize = 8;
/// Of an entry with the longest name.
const MAX_ENTRY_SIZE: usize = HEADER_SIZE + limits::MAX_NAME_LENGTH.next_multiple_of(4);

pub(super) struct DirectoryBlocks {
    bytes: Vec<u8>,
    /// Where the last entry begins.
    last: usize,
}

impl DirectoryBlocks {
    pub(super) fn new(own: u32, parent: u32) -> Self {
        let mut this = Self { bytes: Vec::new(), last: 0 };
        this.push(b".", own, FileKind::Directory);
        this.push(b"..", parent, FileKind::Directory);
        this
    }

    /// At most as many blocks as these names and two more entries need.
    pub(super) fn needed(entries: &[Name]) -> u64 {
        let bytes: usize = entries.iter().map(|(name, _)| size(name)).sum();
        (bytes + 3 * MAX_ENTRY_SIZE).div_ceil(BLOCK_SIZE - MAX_ENTRY_SIZE) as u64
    }

    pub(super) fn push(&mut self, name: &[u8], inode: u32, kind: FileKind) {
        let size = size(name);
        if self.bytes.len() % BLOCK_SIZE + size > BLOCK_SIZE {
            self.end_block();
        }
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(&inode.to_le_bytes());
        self.bytes.extend_from_slice(&(size as u16).to_le_bytes());
        self.bytes.extend_from_slice(&[name.len() as u8, number(kind)]);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.last + size, 0);
    }

    /// The last entry of a block reaches to its end.
    fn end_block(&mut self) {
        let end = self.bytes.len().next_multiple_of(BLOCK_SIZE);
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
            self.bytes[self.last + 4..self.last + 6].copy_from_slice(&((end - self.last) as u16).to_le_bytes());
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.bytes
    }
}

fn size(name: &[u8]) -> usize {
    HEADER_SIZE + name.len().next_multiple_of(4)
}

/// The type in an entry.
fn number(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
    }
}
