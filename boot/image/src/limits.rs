// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bounds on what an image may ask of the host. Generous against every image that people publish, small against what a
//! hostile one can write into a few kilobytes of compressed archive.

/// An index, a manifest or a configuration, in bytes.
pub(crate) const DOCUMENT_BYTES: u64 = 4 << 20;
pub(crate) const INDEX_DEPTH: usize = 4;
/// Documents read while an index is walked.
pub(crate) const INDEX_DOCUMENTS: usize = 256;
/// Layers of one image; docker stops at 127.
pub(crate) const LAYERS: usize = 1000;
/// Members of an archive that holds an image.
pub(crate) const ARCHIVE_MEMBERS: usize = 100_000;
/// Entries of all layers together: what is overwritten later counts too. Each costs some 200 bytes of memory.
/// (Less under test, so that reaching it takes no minute; the same goes for the other constants that depend on `test`.)
pub(crate) const ENTRIES: u64 = if cfg!(test) { 20_000 } else { 2_000_000 };
/// Names looked up while all paths are followed, and names looked at by whiteouts: a few for each entry of a real image.
/// Without it a small archive of long links, or of whiteouts of one large directory, would keep us busy for hours.
pub(crate) const STEPS: u64 = if cfg!(test) { 1_000_000 } else { 100_000_000 };
/// Extents of all sparse files together, 24 bytes of memory each.
pub(crate) const SPARSE_EXTENTS: u64 = 4_000_000;
/// A path or the target of a link, as Linux limits it (`PATH_MAX` with its final NUL).
pub(crate) const PATH_BYTES: usize = 4095;
/// One name, as Linux and EROFS limit it.
pub(crate) const NAME_BYTES: usize = 255;
/// Directories above an entry. Deeper than `PATH_MAX` allows in one path is reachable through symbolic links.
pub(crate) const DEPTH: usize = 1024;
/// Symbolic links followed while one path is resolved, as Linux limits it.
pub(crate) const SYMLINKS: usize = 40;
/// Extended attributes of one entry: EROFS counts them in 16 bits of 4 bytes.
pub(crate) const XATTR_BYTES_PER_ENTRY: usize = 128 << 10;
/// Extended attributes of all entries together.
pub(crate) const XATTR_BYTES: u64 = 64 << 20;
/// Names and link targets of all entries together.
pub(crate) const NAME_BYTES_TOTAL: u64 = 256 << 20;
/// A PAX header or a GNU long name, in bytes.
pub(crate) const EXTENDED_HEADER_BYTES: u64 = 1 << 20;
/// Extended headers in front of one entry.
pub(crate) const EXTENDED_HEADERS: usize = 16;
/// Uncompressed bytes of all layers together, and bytes of the root disk.
pub(crate) const UNCOMPRESSED_BYTES: u64 = 128 << 30;
/// Uncompressed bytes of a layer that no ratio restricts.
pub(crate) const RATIO_FREE_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// Beyond that, uncompressed bytes for one compressed byte.
pub(crate) const RATIO: u64 = 200;
/// Most bytes of all sparse files, holes counted: each block of 128 KiB is four bytes in a list.
pub(crate) const SQUASHFS_SPARSE_BYTES: u64 = 1 << 40;
