// SPDX-License-Identifier: Apache-2.0 OR MIT
//! On-disk structures (Linux `fs/squashfs/squashfs_fs.h`); names are the kernel's without their
//! prefixes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(super) const MAGIC: u32 = 0x7371_7368;
/// Size of a file's blocks, the default of `mksquashfs`.
pub(super) const BLOCK: u64 = 128 << 10;
/// The kernel requires this decompressor, although it is never called. It is on by default.
pub(super) const ZLIB_COMPRESSION: u16 = 1;
/// An uncompressed block in a file's list; the length is in the bits below.
pub(super) const UNCOMPRESSED_BLOCK: u32 = 1 << 24;
/// An uncompressed block of a table.
pub(super) const UNCOMPRESSED_METADATA: u16 = 1 << 15;
/// Size of a table's blocks.
pub(super) const METADATA: usize = 8192;
/// A table that does not exist.
pub(super) const INVALID_TABLE: u64 = u64::MAX;
/// No fragment, no attributes.
pub(super) const INVALID: u32 = u32::MAX;

// Inodes, directories, data, fragments, attributes, owners are not compressed; there are no
// fragments.
pub(super) const FLAGS: u16 = 0x1 | 0x2 | 0x8 | 0x10 | 0x100 | 0x800;
pub(super) const NO_XATTRS: u16 = 0x200;

/// Types in directories. [`EXTENDED`] is added for an extended inode.
pub(super) const DIR: u16 = 1;
pub(super) const REG: u16 = 2;
pub(super) const SYMLINK: u16 = 3;
pub(super) const BLKDEV: u16 = 4;
pub(super) const CHRDEV: u16 = 5;
pub(super) const FIFO: u16 = 6;
pub(super) const EXTENDED: u16 = 7;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub magic: U32,
    pub inodes: U32,
    pub mkfs_time: U32,
    pub block_size: U32,
    pub fragments: U32,
    pub compression: U16,
    pub block_log: U16,
    pub flags: U16,
    pub no_ids: U16,
    pub major: U16,
    pub minor: U16,
    pub root_inode: U64,
    pub bytes_used: U64,
    pub id_table_start: U64,
    pub xattr_id_table_start: U64,
    pub inode_table_start: U64,
    pub directory_table_start: U64,
    pub fragment_table_start: U64,
    pub lookup_table_start: U64,
}
const _: () = assert!(size_of::<SuperBlock>() == 96);

/// Start of every inode.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InodeHeader {
    pub inode_type: U16,
    pub mode: U16,
    pub uid: U16,
    pub guid: U16,
    pub mtime: U32,
    pub inode_number: U32,
}

/// `squashfs_ldir_inode`, without an index.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirInode {
    pub nlink: U32,
    pub file_size: U32,
    pub start_block: U32,
    pub parent_inode: U32,
    pub i_count: U16,
    pub offset: U16,
    pub xattr: U32,
}

/// `squashfs_lreg_inode`; the list of its blocks follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RegInode {
    pub start_block: U64,
    pub file_size: U64,
    /// Number of bytes in holes.
    pub sparse: U64,
    pub nlink: U32,
    pub fragment: U32,
    pub offset: U32,
    pub xattr: U32,
}

/// Precedes up to 256 names whose inodes start in one block of the table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirHeader {
    /// The number of names minus one.
    pub count: U32,
    pub start_block: U32,
    /// Base of the entries' numbers.
    pub inode_number: U32,
}

/// This header stands before each name.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirEntry {
    pub offset: U16,
    /// Signed offset from the header's.
    pub inode_number: U16,
    pub inode_type: U16,
    /// The length of the name minus one.
    pub size: U16,
}

/// A set of attributes, shared by all inodes with equal ones.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrId {
    pub xattr: U64,
    pub count: U32,
    pub size: U32,
}

/// At the superblock's `xattr_id_table_start`, followed by the places of the table's blocks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrIdTable {
    pub xattr_table_start: U64,
    pub xattr_ids: U32,
    pub unused: U32,
}
