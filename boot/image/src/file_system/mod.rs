// SPDX-License-Identifier: Apache-2.0 OR MIT
//! File systems that are read without mounting them: root disks, and what a guest wrote into the layer above one.
//!
//! Every number on a disk may be hostile. What a reader keeps is charged to a [`Budget`] that all readers of one machine share,
//! blocks are counted, and content is bounded by the size of the file system.

use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl FileKind {
    /// The type in the upper bits of a mode.
    pub(crate) fn of_mode(mode: u16) -> Option<Self> {
        Some(match mode >> 12 {
            0o10 => Self::Regular,
            0o4 => Self::Directory,
            0o12 => Self::Symlink,
            0o2 => Self::CharDevice,
            0o6 => Self::BlockDevice,
            0o1 => Self::Fifo,
            0o14 => Self::Socket,
            _ => return None,
        })
    }

    pub(crate) fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// Major and minor number, of 12 and 20 bits, in Linux' encoding.
pub(crate) fn device_numbers(encoded: u32) -> (u32, u32) {
    (encoded >> 8 & 0xfff, encoded & 0xff | encoded >> 12 & 0xf_ff00)
}

/// A file of any type, without its names and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub kind: FileKind,
    /// The lowest 12 bits of the mode.
    pub permissions: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub links: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Major and minor number; zeroes unless it is a device.
    pub device: (u32, u32),
}

/// An extended attribute, as `getxattr` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// Bytes of a file that are stored; what lies between extents reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Distance from the start of the file.
    pub offset: u64,
    pub length: u64,
    /// In the file system.
    pub position: u64,
}

/// A name in a directory, and the number of its file.
pub(crate) type Name = (Box<[u8]>, u64);

#[derive(Debug, thiserror::Error)]
pub enum FileSystemError {
    #[error("cannot read the file system")]
    Read(#[from] io::Error),
    #[error("not {0}")]
    Magic(&'static str),
    #[error("unsupported {0} feature {1:#x}")]
    Feature(&'static str, u32),
    #[error("damaged {0}: {1}")]
    Damaged(&'static str, &'static str),
    #[error("the file system needs more than {} MiB of memory", crate::limits::MAX_MEMORY >> 20)]
    OverBudget,
}

/// What the readers have in common. A file has a number, which its hard links share.
pub(crate) trait FileSystem {
    fn root(&self) -> u64;

    fn metadata(&self, file: u64) -> Result<Metadata, FileSystemError>;

    /// Without `.` and `..`, sorted by name, each once. The caller releases [`entries_cost`].
    fn entries(&self, directory: u64) -> Result<Vec<Name>, FileSystemError>;

    /// The extended attributes of a file, sorted by name.
    fn xattrs(&self, file: u64) -> Result<Vec<Xattr>, FileSystemError>;

    fn link_target(&self, symlink: u64) -> Result<Vec<u8>, FileSystemError>;

    /// The stored bytes of a regular file, in order, up to its size. The caller releases [`extents_cost`].
    fn extents(&self, file: u64) -> Result<Vec<Extent>, FileSystemError>;

    /// Reads at a position of an extent.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()>;
}

/// What a list of extents is charged with.
pub(crate) fn extents_cost(extents: &[Extent]) -> u64 {
    extents.iter().map(|_| EXTENT_COST).sum()
}

/// A vector may have room for twice as many.
pub(crate) const EXTENT_COST: u64 = 2 * size_of::<Extent>() as u64;

/// What the entries of a directory are charged with.
pub(crate) fn entries_cost(entries: &[Name]) -> u64 {
    entries.iter().map(|(name, _)| entry_cost(name)).sum()
}

/// Besides the name and its place in a list: the same in the list of merged names.
pub(crate) fn entry_cost(name: &[u8]) -> u64 {
    name.len() as u64 + 32 + 4 * size_of::<Name>() as u64
}

/// Sorts entries by name.
///
/// # Errors
/// Two have the same name.
pub(crate) fn sorted(mut entries: Vec<Name>, file_system: &'static str) -> Result<Vec<Name>, FileSystemError> {
    entries.sort_unstable();
    match entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        true => Err(FileSystemError::Damaged(file_system, "two entries with one name")),
        false => Ok(entries),
    }
}

/// Whether a directory may have an entry of this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= crate::limits::MAX_NAME_LENGTH
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}
