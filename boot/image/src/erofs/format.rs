// SPDX-License-Identifier: Apache-2.0 OR MIT
//! On-disk structures (Linux `fs/erofs/erofs_fs.h`); names are the kernel's without their prefixes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(super) const SUPER_OFFSET: u64 = 1024;
pub(super) const SUPER_MAGIC: u32 = 0xe0f5_e1e2;
pub(super) const FEATURE_COMPAT_SB_CHKSUM: u32 = 0x1;
pub(super) const FEATURE_COMPAT_MTIME: u32 = 0x2;
pub(super) const FEATURE_INCOMPAT_CHUNKED_FILE: u32 = 0x4;

/// Inodes are addressed in units of this many bytes.
pub(super) const INODE_SLOT: u64 = 32;
/// Block address of a hole.
pub(super) const NULL_ADDR: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub magic: U32,
    /// CRC-32C from here to the end of the block, with zero in this field.
    pub checksum: U32,
    pub feature_compat: U32,
    pub blkszbits: u8,
    pub sb_extslots: u8,
    pub root_nid: U16,
    pub inos: U64,
    pub build_time: U64,
    pub build_time_nsec: U32,
    pub blocks: U32,
    pub meta_blkaddr: U32,
    pub xattr_blkaddr: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub feature_incompat: U32,
    pub available_compr_algs: U16,
    pub extra_devices: U16,
    pub devt_slotoff: U16,
    pub dirblkbits: u8,
    pub xattr_prefix_count: u8,
    pub xattr_prefix_start: U32,
    pub packed_nid: U64,
    pub reserved: [u8; 24],
}

/// Place of an inode's data, for `Inode::format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataLayout {
    FlatPlain = 0,
    FlatInline = 2,
    ChunkBased = 4,
}

/// The extended form: 64 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inode {
    /// Bit 0: extended form; bits 1 to 3: [`DataLayout`].
    pub format: U16,
    /// 0 without attributes, else 1 for the header plus 1 per 4 bytes of attributes.
    pub xattr_icount: U16,
    pub mode: U16,
    pub reserved: U16,
    pub size: U64,
    /// First block of the data, device number, or format of the chunk map.
    pub u: U32,
    pub ino: U32,
    pub uid: U32,
    pub gid: U32,
    pub mtime: U64,
    pub mtime_nsec: U32,
    pub nlink: U32,
    pub reserved2: [u8; 16],
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Dirent {
    pub nid: U64,
    pub nameoff: U16,
    pub file_type: u8,
    pub reserved: u8,
}

/// Precedes an inode's attributes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrHeader {
    pub name_filter: U32,
    pub shared_count: u8,
    pub reserved: [u8; 7],
}

/// Followed by the name without its prefix and the value, padded to 4 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub name_len: u8,
    pub name_index: u8,
    pub value_size: U16,
}

const _: () = {
    assert!(size_of::<SuperBlock>() == 128);
    assert!(size_of::<Inode>() == 64);
    assert!(size_of::<Dirent>() == 12);
    assert!(size_of::<XattrHeader>() == 12);
    assert!(size_of::<XattrEntry>() == 4);
};
