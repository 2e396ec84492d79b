// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tar archives as a stream of entries, from hostile hands: old, ustar, PAX and GNU, with sparse files. Our own reader,
//! because extended attributes hold arbitrary bytes, and because every length must be bounded before it is believed.
//!
//! Where readers of the world disagree, we do what Go's `archive/tar` does: the container tools are written with it, so
//! it decides what an image *means*. Links, directories and devices have no data whatever their size field says; global PAX
//! headers mean nothing; PAX wins over GNU long names, which win over the header.

mod header;
mod input;
mod pax;
mod reader;
mod sparse;

pub(crate) use input::{FileSection, TarInput, read_buffered};
pub(crate) use reader::Reader;

/// Size of a header and of the padding unit.
pub(crate) const BLOCK: usize = 512;

/// One member of an archive. Names are bytes as they stand, not yet checked as paths.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    /// Target of a link; empty for the rest.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky; nothing of the type.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of the file as its reader sees it.
    pub size: u64,
    /// Bytes that follow in the archive.
    pub stored: u64,
    /// Where those bytes belong, for a sparse file: offset and length, in order, without overlap, inside `size`.
    pub extents: Option<Vec<(u64, u64)>>,
    /// Full names and values, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A point in time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// An archive that cannot be read. Offsets are bytes of the uncompressed stream.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("cannot read on at byte {offset}")]
    Read { offset: u64, source: std::io::Error },
    /// The end came inside an entry.
    #[error("the archive is truncated at byte {offset}, inside {entry}")]
    Truncated {
        offset: u64,
        /// What was being read.
        entry: String,
    },
    /// A header does not match its checksum: this is no tar, or a damaged one.
    #[error("no tar header at byte {offset} (checksum mismatch)")]
    Checksum { offset: u64 },
    /// A field holds no number, or one out of range.
    #[error("entry `{entry}`: {field} is out of range or malformed")]
    Field { entry: String, field: &'static str },
    /// A PAX header is malformed.
    #[error("malformed PAX header before byte {offset}: {detail}")]
    Pax { offset: u64, detail: &'static str },
    /// An extended header or a long name exceeds its limit, or there are too many of them.
    #[error("extended headers before byte {offset} exceed the limit")]
    ExtendedHeader { offset: u64 },
    /// The map of a sparse file contradicts itself.
    #[error("entry `{entry}`: the map of the sparse file is malformed or too long")]
    Sparse { entry: String },
    /// A type that no file system has.
    #[error("entry `{entry}`: unknown entry type `{kind}`")]
    Kind { entry: String, kind: String },
}

/// Whether `start` is the start of an archive: a header with the right checksum, or the zeros that end an empty one.
pub(crate) fn is_tar_start(start: &[u8]) -> bool {
    start.first_chunk::<BLOCK>().is_some_and(|block| *block == [0; BLOCK] || header::Header::check(block).is_some())
}

/// `bytes` for a message: one line of bounded length.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= SHOWN && !text.chars().any(char::is_control) => text.to_owned(),
        _ => {
            let shown = &bytes[..bytes.len().min(SHOWN)];
            format!("{}{}", shown.escape_ascii(), if bytes.len() > SHOWN { "..." } else { "" })
        }
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
