// SPDX-License-Identifier: Apache-2.0 OR MIT
//! On-disk structures (Linux `fs/squashfs/squashfs_fs.h`); names are the kernel's without their prefixes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(super) const MAGIC: u32 = 0x7371_7368;
/// Bytes of a block of a file; the usual size.
pub(super) const BLOCK: u64 = 128 << 10;
/// The decompressor that a kernel must have, although it is never called: the one that is on by default.
pub(super) const ZLIB_COMPRESSION: u16 = 1;
/// A block in a file's list that is stored as it is; the length is in the bits below.
pub(super) const UNCOMPRESSED_BLOCK: u32 = 1 << 24;
/// A block of a table that is stored as it is.
pub(super) const UNCOMPRESSED_METADATA: u16 = 1 << 15;
/// Bytes of a table's block.
pub(super) const METADATA: usize = 8192;
/// A table that is not there.
pub(super) const INVALID_TABLE: u64 = u64::MAX;
/// No fragment, no attributes.
pub(super) const INVALID: u32 = u32::MAX;

// Inodes, directories, data, fragments, attributes, owners are not compressed; there are no fragments.
pub(super) const FLAGS: u16 = 0x1 | 0x2 | 0x8 | 0x10 | 0x100 | 0x800;
pub(super) const NO_XATTRS: u16 = 0x200;

/// Types in directories; that of an extended inode is [`EXTENDED`] more.
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

/// What every inode begins with.
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

/// `squashfs_ldir_inode`, with no index behind it.
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
    /// Bytes that holes save.
    pub sparse: U64,
    pub nlink: U32,
    pub fragment: U32,
    pub offset: U32,
    pub xattr: U32,
}

/// In front of up to 256 names whose inodes begin in one block of the table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirHeader {
    /// Less one.
    pub count: U32,
    pub start_block: U32,
    /// What the numbers of the entries count from.
    pub inode_number: U32,
}

/// One name, which follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DirEntry {
    pub offset: U16,
    /// Signed, from the header's.
    pub inode_number: U16,
    pub inode_type: U16,
    /// Less one.
    pub size: U16,
}

/// The attributes of an inode, which share them with others that have the same.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrId {
    pub xattr: U64,
    pub count: U32,
    pub size: U32,
}

/// What the superblock's `xattr_id_table_start` leads to; the places of the table's blocks follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrIdTable {
    pub xattr_table_start: U64,
    pub xattr_ids: U32,
    pub unused: U32,
}
