// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bounds on what an image may demand of the host: far above published images, far below what a few
//! kilobytes of a hostile compressed archive can express.

/// An index, a manifest or a configuration, in bytes.
pub(crate) const MAX_DOCUMENT_SIZE: u64 = 4 << 20;
/// How many indexes may be inside one another.
pub const MAX_INDEX_DEPTH: usize = 4;
/// Entries of one index or manifest.
pub(crate) const MAX_DESCRIPTORS: usize = 20_000;
/// Memory that one image may make this process keep, in bytes: see `budget.rs`.
pub(crate) const MAX_MEMORY: u64 = if cfg!(test) { 12 << 20 } else { 96 << 20 };
/// Memory for each byte of a configuration: an empty string in a list has three bytes there.
pub(crate) const MEMORY_PER_DOCUMENT_BYTE: u64 = 16;
/// Documents read while an index is walked.
pub(crate) const MAX_INDEX_DOCUMENTS: usize = 256;
/// Documents of all images of an archive that is loaded, and their bytes.
pub(crate) const MAX_CONTAINED_DOCUMENTS: usize = 4096;
pub(crate) const MAX_CONTAINED_DOCUMENT_BYTES: u64 = 256 << 20;
/// Layers of one image; docker's limit is 127.
pub(crate) const MAX_LAYERS: usize = 1000;
/// Entries of all layers together, including replaced ones. This bounds the time; `MAX_MEMORY` bounds
/// the memory.
/// (Less under test, so that a test can reach it; likewise for the other constants that depend on
/// `test`.)
pub(crate) const MAX_ENTRIES: u64 = if cfg!(test) { 20_000 } else { 2_000_000 };
/// Names visited while paths are resolved and whiteouts applied: a few per entry of a real image.
/// Without it a small archive of long links, or of whiteouts of one large directory, would take
/// hours.
pub(crate) const MAX_STEPS: u64 = if cfg!(test) { 1_000_000 } else { 100_000_000 };
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
/// A PAX header or a GNU long name, in bytes.
pub(crate) const MAX_EXTENDED_HEADER_SIZE: u64 = 1 << 20;
/// Extended headers of one entry.
pub(crate) const MAX_EXTENDED_HEADERS: usize = 16;
/// Uncompressed bytes of all layers together, and bytes of the root disk.
pub(crate) const MAX_UNCOMPRESSED_BYTES: u64 = 128 << 30;
/// Uncompressed bytes of all layers without a bound on the ratio: it takes seconds to skip them.
pub(crate) const UNCOMPRESSED_FREE_BYTES: u64 = if cfg!(test) { 16 << 20 } else { 16 << 30 };
/// Bytes that are stored of all layers, and of the root disk, without a bound on the ratio.
pub(crate) const RATIO_FREE_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// Beyond that, bytes per byte of the layers' files.
pub(crate) const MAX_RATIO: u64 = 200;
/// Bytes of all sparse files together, including holes: each block of 128 KiB is four bytes in a
/// list.
pub(crate) const MAX_SQUASHFS_SPARSE_BYTES: u64 = 1 << 40;
/// A shorter run of zeros in a file is stored.
pub(crate) const HOLE_BYTES: u64 = 64 << 10;
/// Window of a zstd frame. The decoder's buffer is twice as large.
pub(crate) const MAX_ZSTD_WINDOW: u64 = 32 << 20;
