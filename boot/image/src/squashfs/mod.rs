// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a tree as a squashfs 4.0 image (Linux `fs/squashfs/squashfs_fs.h`), front to back, the same bytes for the same
//! tree, nothing compressed: what a guest saves in reads it would pay in time.
//!
//! | from | what |
//! |---|---|
//! | byte 0 | superblock |
//! | byte 96 | data of files, byte behind byte, in the order of the paths |
//! | behind it | tables: inodes, directories, owners, extended attributes |
//!
//! The tables are made in memory before the first byte is written; their size is bounded by the number of entries. A file's
//! last block is as short as its end, so fragments would save nothing. Not supported by the format and left out:
//! nanoseconds, times before 1970 and after 2106, POSIX ACLs.

mod directory;
mod emit;
mod format;
mod inodes;
mod owners;
mod plan;
mod table;
mod xattr;

pub(crate) use emit::write;

#[cfg(test)]
#[path = "squashfs_tests.rs"]
mod tests;
