// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Untrusted tar archives as a stream of entries: old, ustar, PAX and GNU, with sparse files. Our
//! own reader, because extended attributes hold arbitrary bytes, and because every length must be
//! bounded before it is used. And a writer of such streams.
//!
//! Where readers disagree, this one follows Go's `archive/tar`: the container tools use it, so it
//! defines the meaning of an image. Links, directories and devices have no data, whatever their
//! size field; global PAX headers are ignored; PAX takes precedence over GNU long names, and those
//! over the header.

mod header;
mod input;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use input::{FileSection, TarInput, read_buffered};
pub(crate) use reader::Reader;
pub use writer::TarWriter;

/// Size of a header and of the padding unit.
pub(crate) const BLOCK: usize = 512;

/// One member of an archive. Names are raw bytes, not yet checked as paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub path: Vec<u8>,
    /// Target of a link, else empty.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky, without the type.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of the file, including holes.
    pub size: u64,
    /// Bytes of data in the archive.
    pub stored: u64,
    /// For a sparse file, the places of those bytes: offset and length, ordered, disjoint, within
    /// `size`.
    pub extents: Option<Vec<(u64, u64)>>,
    /// Full names and values, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// Offsets are bytes of the uncompressed stream.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("cannot read on at byte {offset}")]
    Read { offset: u64, source: std::io::Error },
    #[error("the archive is truncated at byte {offset}, inside {entry}")]
    Truncated { offset: u64, entry: String },
    /// Not a tar archive, or a damaged one.
    #[error("no tar header at byte {offset} (checksum mismatch)")]
    Checksum { offset: u64 },
    #[error("entry `{entry}`: {field} is out of range or malformed")]
    Field { entry: String, field: &'static str },
    #[error("malformed PAX header before byte {offset}: {detail}")]
    Pax { offset: u64, detail: &'static str },
    /// An extended header or a long name is too large, or there are too many of them.
    #[error("extended headers before byte {offset} exceed the limit")]
    ExtendedHeader { offset: u64 },
    #[error("entry `{entry}`: the map of the sparse file is malformed or too long")]
    Sparse { entry: String },
    #[error("entry `{entry}`: unknown entry type `{kind}`")]
    Kind { entry: String, kind: String },
}

/// Whether `start` is the start of an archive: a header with a valid checksum, or the zeros of an
/// empty archive.
pub(crate) fn is_tar_start(start: &[u8]) -> bool {
    start.first_chunk::<BLOCK>().is_some_and(|block| *block == [0; BLOCK] || header::Header::check(block).is_some())
}

/// Formats `bytes` for a message: one line of bounded length.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const MAX_LENGTH: usize = 120;
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= MAX_LENGTH && !text.chars().any(char::is_control) => text.to_owned(),
        _ => {
            let shown = &bytes[..bytes.len().min(MAX_LENGTH)];
            format!("{}{}", shown.escape_ascii(), if bytes.len() > MAX_LENGTH { "..." } else { "" })
        }
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
