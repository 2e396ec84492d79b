// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads an ext4 file system that coracle made with `mke2fs` and that a guest wrote since: inodes, directories, extents, extended
//! attributes. Nothing is written, and nothing is mounted.
//!
//! Every number on the disk may be hostile. Memory is charged to one budget for the whole reading, and the number of blocks that are
//! read is bounded by what the file occupies on the host, so that blocks that lead to each other end in an error. A file system whose
//! journal has to be replayed is rejected: the guest's kernel does that at the next start.

mod directory;
#[cfg(test)]
mod ext4_tests;
mod extent;
mod inode;
mod walk;
mod xattr;

use crate::budget::Budget;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};

pub use extent::Extent;
pub use inode::{FileKind, Inode};
pub use walk::Node;
pub use xattr::Xattr;

/// The only size that `mke2fs` is asked for.
const BLOCK_SIZE: usize = 4096;
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;

/// Incompatible features: file types in directories, extents, 64-bit block numbers, flexible groups. No other one is read.
const KNOWN_FEATURES: u32 = 0x2 | 0x40 | FEATURE_64BIT | 0x200;
const FEATURE_64BIT: u32 = 0x80;
/// The journal holds what has to be written to its place.
const FEATURE_RECOVER: u32 = 0x4;
/// An inode of 256 bytes may occupy no more on the host, and has at most one block of attributes.
const BYTES_PER_READ: u64 = 256;
const MIN_READS: u64 = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    #[error("cannot read the file system")]
    Read(#[from] io::Error),
    #[error("not an ext4 file system")]
    NoMagic,
    #[error("unsupported ext4 feature {0:#x}")]
    Feature(u32),
    #[error("the file system was not unmounted: its journal has to be replayed")]
    NeedsRecovery,
    #[error("damaged ext4 file system: {0}")]
    Damaged(&'static str),
    #[error("not in the file system: {0}")]
    Missing(String),
    #[error("the file system needs more than {} MiB of memory", crate::limits::MAX_MEMORY >> 20)]
    OverBudget,
}

/// An ext4 file system in a file.
#[derive(Debug)]
pub struct Ext4 {
    file: File,
    blocks: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: u16,
    descriptor_size: u16,
    has_64bit: bool,
    budget: Budget,
    reads_left: AtomicU64,
}

impl Ext4 {
    /// Reads the superblock of `file`, which must not be changed meanwhile.
    ///
    /// # Errors
    /// It is not an ext4 file system as coracle makes them, or it was not unmounted.
    pub fn open(file: File) -> Result<Self, Ext4Error> {
        let metadata = file.metadata()?;
        if metadata.len() < 2 * BLOCK_SIZE as u64 {
            return Err(Ext4Error::NoMagic);
        }
        let mut block = [0; 1024];
        file.read_exact_at(&mut block, SUPERBLOCK)?;
        if u16_at(&block, 56)? != MAGIC {
            return Err(Ext4Error::NoMagic);
        }
        let features = u32_at(&block, 96)?;
        if features & FEATURE_RECOVER != 0 {
            return Err(Ext4Error::NeedsRecovery);
        }
        if features & !KNOWN_FEATURES != 0 {
            return Err(Ext4Error::Feature(features & !KNOWN_FEATURES));
        }
        let has_64bit = features & FEATURE_64BIT != 0;
        let high = if has_64bit { u32_at(&block, 0x150)? } else { 0 };
        let this = Self {
            blocks: wide(high, u32_at(&block, 4)?),
            inodes: u32_at(&block, 0)?,
            inodes_per_group: u32_at(&block, 40)?,
            inode_size: u16_at(&block, 88)?,
            descriptor_size: if has_64bit { u16_at(&block, 254)? } else { 32 },
            has_64bit,
            budget: Budget::default(),
            reads_left: AtomicU64::new((metadata.blocks() * 512 / BYTES_PER_READ).max(MIN_READS)),
            file,
        };
        let is_sound = u32_at(&block, 24)? == 2
            && u32_at(&block, 20)? == 0
            && this.blocks <= metadata.len() / BLOCK_SIZE as u64
            && this.inodes_per_group > 0
            && matches!(this.inode_size, 256 | 512 | 1024)
            && matches!(this.descriptor_size, 32 | 64)
            && this.descriptor_size >= if has_64bit { 64 } else { 32 };
        if is_sound { Ok(this) } else { Err(Ext4Error::Damaged("superblock")) }
    }

    /// The file that the positions of extents count in.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn charge(&self, bytes: usize) -> Result<(), Ext4Error> {
        self.budget.charge_allocation(bytes).map_err(|_| Ext4Error::OverBudget)
    }

    fn count_read(&self) -> Result<(), Ext4Error> {
        let counted = self.reads_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        counted.map(drop).map_err(|_| Ext4Error::Damaged("more blocks than it occupies"))
    }

    fn read_block(&self, number: u64) -> Result<Box<[u8; BLOCK_SIZE]>, Ext4Error> {
        if number == 0 || number >= self.blocks {
            return Err(Ext4Error::Damaged("block number out of range"));
        }
        self.count_read()?;
        let mut block = Box::new([0; BLOCK_SIZE]);
        self.file.read_exact_at(&mut block[..], number * BLOCK_SIZE as u64)?;
        Ok(block)
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Ext4Error> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Ext4Error::Damaged("field out of range"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Ext4Error> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Ext4Error> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
