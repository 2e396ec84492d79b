// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a tree as a squashfs 4.0 image (Linux `fs/squashfs/squashfs_fs.h`), front to back, with
//! the same bytes for the same tree. Nothing is compressed: decompression would cost a guest more
//! time than it saves in reads.
//!
//! | from | what |
//! |---|---|
//! | byte 0 | superblock |
//! | byte 96 | data of files, contiguous, in the order of the paths |
//! | after it | tables: inodes, directories, owners, extended attributes |
//!
//! The tables are built in memory before the first byte is written; their size is bounded by the
//! number of entries. A file's last block is stored with its actual length, so fragments would save
//! nothing. Not supported by the format and dropped: nanoseconds, times before 1970 and after 2106,
//! POSIX ACLs.

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
