// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads an ext4 file system that coracle made with `mke2fs` and that a guest wrote since: inodes, directories, extents, extended
//! attributes, and the journal of one that was not unmounted. Nothing is written.
//!
//! The number of blocks that are read is bounded by what the file occupies on the host, so that blocks that lead to each other end in
//! an error. The content of all files is bounded by the size of the file system, so that no two files are one large block.

mod directory;
#[cfg(test)]
mod ext4_tests;
mod extent;
mod inode;
mod journal;
mod xattr;

use crate::budget::Budget;
use crate::file_system::{Extent, FileSystem, FileSystemError, Metadata, Name, Xattr};
use journal::Journal;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const FILE_SYSTEM: &str = "ext4 file system";
/// The only size that `mke2fs` is asked for.
const BLOCK_SIZE: usize = 4096;
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_SIZE: usize = 1024;
const MAGIC: u16 = 0xef53;
const ROOT: u64 = 2;

/// Incompatible features: file types in directories, extents, 64-bit block numbers, flexible groups. No other one is read.
const KNOWN_FEATURES: u32 = 0x2 | FEATURE_RECOVER | 0x40 | FEATURE_64BIT | 0x200;
const FEATURE_64BIT: u32 = 0x80;
/// The journal holds what has to be written to its place.
const FEATURE_RECOVER: u32 = 0x4;
/// An inode of 256 bytes may occupy no more on the host, has at most one block of attributes, and is read a few times.
const BYTES_PER_READ: u64 = 64;
const MIN_READS: u64 = 4096;
/// How often the content of a file is read.
const READS_OF_CONTENT: u64 = 4;

/// An ext4 file system in a file.
#[derive(Debug)]
pub(crate) struct Ext4 {
    file: File,
    geometry: Geometry,
    journal: Journal,
    budget: Arc<Budget>,
    reads_left: AtomicU64,
    bytes_left: AtomicU64,
}

/// What the superblock tells.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    blocks: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: u16,
    descriptor_size: u16,
    has_64bit: bool,
    needs_recovery: bool,
    journal_inode: u32,
}

fn damaged(what: &'static str) -> FileSystemError {
    FileSystemError::Damaged(FILE_SYSTEM, what)
}

impl Geometry {
    fn parse(block: &[u8], file_size: u64) -> Result<Self, FileSystemError> {
        if u16_at(block, 56)? != MAGIC {
            return Err(FileSystemError::Magic("an ext4 file system"));
        }
        let features = u32_at(block, 96)?;
        if features & !KNOWN_FEATURES != 0 {
            return Err(FileSystemError::Feature("ext4", features & !KNOWN_FEATURES));
        }
        let has_64bit = features & FEATURE_64BIT != 0;
        let high = if has_64bit { u32_at(block, 0x150)? } else { 0 };
        let this = Self {
            blocks: wide(high, u32_at(block, 4)?),
            inodes: u32_at(block, 0)?,
            inodes_per_group: u32_at(block, 40)?,
            inode_size: u16_at(block, 88)?,
            descriptor_size: if has_64bit { u16_at(block, 254)? } else { 32 },
            has_64bit,
            needs_recovery: features & FEATURE_RECOVER != 0,
            journal_inode: u32_at(block, 224)?,
        };
        let is_sound = u32_at(block, 24)? == 2
            && u32_at(block, 20)? == 0
            && this.blocks <= file_size / BLOCK_SIZE as u64
            && this.inodes_per_group > 0
            && matches!(this.inode_size, 256 | 512 | 1024)
            && matches!(this.descriptor_size, 32 | 64)
            && this.descriptor_size >= if has_64bit { 64 } else { 32 };
        if is_sound { Ok(this) } else { Err(damaged("superblock")) }
    }
}

impl Ext4 {
    /// Reads the superblock of `file`, which must not be changed meanwhile, and the journal where it has to be replayed.
    pub(crate) fn open(file: File, budget: Arc<Budget>) -> Result<Self, FileSystemError> {
        let metadata = file.metadata()?;
        let mut block = [0; SUPERBLOCK_SIZE];
        match file.read_exact_at(&mut block, SUPERBLOCK) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            read => read?,
        }
        let geometry = Geometry::parse(&block, metadata.len())?;
        let mut this = Self {
            file,
            geometry,
            journal: Journal::default(),
            budget,
            reads_left: AtomicU64::new((metadata.blocks() * 512 / BYTES_PER_READ).max(MIN_READS)),
            bytes_left: AtomicU64::new(geometry.blocks.saturating_mul(BLOCK_SIZE as u64 * READS_OF_CONTENT)),
        };
        if geometry.needs_recovery {
            this.journal = this.read_journal(geometry.journal_inode)?;
            this.read_at(&mut block, SUPERBLOCK)?;
            this.geometry = Geometry::parse(&block, metadata.len())?;
        }
        Ok(this)
    }

    fn charge(&self, bytes: u64) -> Result<(), FileSystemError> {
        self.budget.charge(bytes).map_err(|_| FileSystemError::OverBudget)
    }

    fn read_block(&self, number: u64) -> Result<Box<[u8; BLOCK_SIZE]>, FileSystemError> {
        if number == 0 || number >= self.geometry.blocks {
            return Err(damaged("block number out of range"));
        }
        count(&self.reads_left, 1).ok_or_else(|| damaged("more blocks than it occupies"))?;
        let mut block = Box::new([0; BLOCK_SIZE]);
        self.read_at(&mut block[..], number * BLOCK_SIZE as u64)?;
        Ok(block)
    }
}

fn count(left: &AtomicU64, used: u64) -> Option<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(used)).ok().map(drop)
}

impl FileSystem for Ext4 {
    fn root(&self) -> u64 {
        ROOT
    }

    fn metadata(&self, file: u64) -> Result<Metadata, FileSystemError> {
        Ok(self.inode(file)?.metadata)
    }

    fn entries(&self, directory: u64) -> Result<Vec<Name>, FileSystemError> {
        self.read_directory(&self.inode(directory)?)
    }

    fn xattrs(&self, file: u64) -> Result<Vec<Xattr>, FileSystemError> {
        self.read_attributes(&self.inode(file)?)
    }

    fn link_target(&self, symlink: u64) -> Result<Vec<u8>, FileSystemError> {
        self.read_link(&self.inode(symlink)?)
    }

    fn extents(&self, file: u64) -> Result<Vec<Extent>, FileSystemError> {
        let extents = self.read_extents(&self.inode(file)?)?;
        let bytes = extents.iter().fold(0_u64, |sum, extent| sum.saturating_add(extent.length));
        count(&self.bytes_left, bytes).ok_or_else(|| damaged("its files are larger than it is"))?;
        Ok(extents)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)?;
        self.journal.replay(&self.file, buffer, position)
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], FileSystemError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(damaged("field out of range"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, FileSystemError> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, FileSystemError> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
