// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a tree as an uncompressed EROFS image (Linux `fs/erofs/erofs_fs.h` and
//! `Documentation/filesystems/erofs.rst`), front to back, the same bytes for the same tree:
//!
//! | from | what |
//! |---|---|
//! | byte 1024 | superblock |
//! | after it | inodes, each with its extended attributes and its tail, directory or sparse map if that fits |
//! | next block | full blocks of large directories |
//! | next block | symlinks that do not fit behind their inode |
//! | next block | the layers whose data follows, one in a line: diff id and bytes. Only for the digest, which thereby covers the whole disk |
//! | next block | not written here: the data of these layers, one after the other, which other images share |
//!
//! A directory's inode is followed by those of its files, then by its subdirectories in the same
//! way. A path look-up or an `ls -l` then touches adjacent inodes, because a guest's kernel reads
//! such metadata one 4-KiB block at a time.

mod crc32c;
mod directory;
mod emit;
mod format;
mod plan;
mod read;
mod xattr;

pub(crate) use emit::write;
pub(crate) use read::Erofs;

/// Block size; the guest's page size.
const BLOCK: u64 = crate::layer_files::BLOCK;

#[cfg(test)]
#[path = "erofs_tests.rs"]
mod tests;
