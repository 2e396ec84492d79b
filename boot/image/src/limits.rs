// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bounds on what an image may demand of the host: far above published images, far below what a few
//! kilobytes of a hostile compressed archive can express.

/// An index, a manifest or a configuration, in bytes.
pub(crate) const MAX_DOCUMENT_SIZE: u64 = 4 << 20;
pub(crate) const MAX_INDEX_DEPTH: usize = 4;
/// Documents read while an index is walked.
pub(crate) const MAX_INDEX_DOCUMENTS: usize = 256;
/// Layers of one image; docker's limit is 127.
pub(crate) const MAX_LAYERS: usize = 1000;
/// Members of an archive that holds an image.
pub(crate) const MAX_ARCHIVE_MEMBERS: usize = 100_000;
/// Entries of all layers together, including replaced ones. Each costs some 200 bytes of memory.
/// (Less under test, so that a test can reach it; likewise for the other constants that depend on
/// `test`.)
pub(crate) const MAX_ENTRIES: u64 = if cfg!(test) { 20_000 } else { 2_000_000 };
/// Names visited while paths are resolved and whiteouts applied: a few per entry of a real image.
/// Without it a small archive of long links, or of whiteouts of one large directory, would take
/// hours.
pub(crate) const MAX_STEPS: u64 = if cfg!(test) { 1_000_000 } else { 100_000_000 };
/// Extents of all sparse files together, 24 bytes of memory each.
pub(crate) const MAX_SPARSE_EXTENTS: u64 = 4_000_000;
/// A path or the target of a link: Linux' `PATH_MAX`, which includes a final NUL.
pub(crate) const MAX_PATH_LENGTH: usize = 4095;
/// One name: the limit of Linux and EROFS.
pub(crate) const MAX_NAME_LENGTH: usize = 255;
/// Directories above an entry. Symbolic links can reach deeper than one path of `PATH_MAX`.
pub(crate) const MAX_DEPTH: usize = 1024;
/// Symbolic links in the resolution of one path: the limit of Linux.
pub(crate) const MAX_SYMLINKS: usize = 40;
/// Extended attributes of one entry: EROFS counts units of 4 bytes in 16 bits.
pub(crate) const MAX_XATTR_BYTES_PER_ENTRY: usize = 128 << 10;
/// Extended attributes of all entries together.
pub(crate) const MAX_XATTR_BYTES: u64 = 64 << 20;
/// Names and link targets of all entries together.
pub(crate) const MAX_NAME_BYTES: u64 = 256 << 20;
/// A PAX header or a GNU long name, in bytes.
pub(crate) const MAX_EXTENDED_HEADER_SIZE: u64 = 1 << 20;
/// Extended headers of one entry.
pub(crate) const MAX_EXTENDED_HEADERS: usize = 16;
/// Uncompressed bytes of all layers together, and bytes of the root disk.
pub(crate) const MAX_UNCOMPRESSED_BYTES: u64 = 128 << 30;
/// Uncompressed bytes of a layer without a bound on the ratio.
pub(crate) const RATIO_FREE_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// Beyond that, uncompressed bytes per compressed byte.
pub(crate) const MAX_RATIO: u64 = 200;
/// Bytes of all sparse files together, including holes: each block of 128 KiB is four bytes in a
/// list.
pub(crate) const MAX_SQUASHFS_SPARSE_BYTES: u64 = 1 << 40;
