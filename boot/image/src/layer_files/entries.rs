// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file `entries`: records, each with the tail of its file, and a footer.

use super::{Extent, FilePlace, LayerSizes, tail_bytes};
use crate::digest::{Digest, Hasher};
use crate::tar::{Entry, FileSection, Kind, TarInput as _, Time};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const BUF_SIZE: usize = 256 << 10;
/// Bytes of one record: paths, attributes and extents are bounded by those of the archive.
const MAX_RECORD_BYTES: u32 = 16 << 20;

/// The end of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Footer {
    pub uncompressed: U64,
    pub stored: U64,
    pub data_bytes: U64,
    /// SHA-256 of all that is before, these sizes included.
    digest: [u8; 32],
}

impl Footer {
    /// Whether `hasher`, which has seen what is before the footer, confirms it.
    pub(super) fn is_of(&self, hasher: Hasher) -> bool {
        self.digest == Self { digest: [0; 32], ..*self }.sealed(hasher).digest
    }

    fn sealed(mut self, mut hasher: Hasher) -> Self {
        hasher.update(&self.as_bytes()[..size_of::<Self>() - self.digest.len()]);
        self.digest = sha256_bytes(&hasher.finish());
        self
    }
}

fn sha256_bytes(digest: &Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digits = digest.hex().as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex is ASCII"));
    for (byte, digits) in bytes.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(digits, 16).expect("a digest consists of hex digits");
    }
    bytes
}

/// An [`Entry`] and the place of its data, as stored.
#[derive(Serialize, Deserialize)]
struct Record {
    kind: u8,
    path: Vec<u8>,
    link: Vec<u8>,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    device: (u32, u32),
    size: u64,
    /// For a regular file that is contiguous.
    position: u64,
    /// For one that is sparse.
    sparse: Option<(u32, Vec<Extent>)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

const KINDS: [Kind; 7] = [
    Kind::Regular,
    Kind::HardLink,
    Kind::Symlink,
    Kind::CharacterDevice,
    Kind::BlockDevice,
    Kind::Directory,
    Kind::Fifo,
];

/// Writes entries: for each the length of its record (four bytes, little-endian), the record in postcard's encoding, and the tail of
/// the file.
pub(super) struct EntryWriter<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    hasher: Hasher,
}

impl<'a> EntryWriter<'a> {
    /// Appends to an empty file.
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, buffer: Vec::with_capacity(BUF_SIZE), hasher: Hasher::sha256() }
    }

    /// Appends an entry; `place` and `tail` are of a regular file.
    pub(super) fn append(&mut self, entry: Entry, place: Option<FilePlace>, tail: &[u8]) -> io::Result<()> {
        let (position, sparse) = match place {
            None => (0, None),
            Some(FilePlace::Contiguous { position, .. }) => (position, None),
            Some(FilePlace::Sparse { bits, extents }) => (0, Some((bits, extents.into_vec()))),
        };
        let Entry { path, link, kind, mode, uid, gid, mtime, device, size, xattrs, .. } = entry;
        let kind = KINDS.iter().position(|known| *known == kind).expect("every kind is in the list") as u8;
        let mtime = (mtime.seconds, mtime.nanoseconds);
        let record = Record { kind, path, link, mode, uid, gid, mtime, device, size, position, sparse, xattrs };
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(&record, buffer).map_err(io::Error::other)?;
        let length = u32::try_from(self.buffer.len() - start - 4).ok().filter(|length| *length <= MAX_RECORD_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a record is too long"))?;
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(tail);
        if self.buffer.len() >= BUF_SIZE { self.flush() } else { Ok(()) }
    }

    /// Writes the footer, after which the list is complete.
    pub(super) fn finish(mut self, sizes: LayerSizes, data_bytes: u64) -> io::Result<()> {
        self.flush()?;
        let footer = Footer {
            uncompressed: sizes.uncompressed.into(),
            stored: sizes.stored.into(),
            data_bytes: data_bytes.into(),
            digest: [0; 32],
        };
        let Self { mut file, hasher, .. } = self;
        file.write_all(footer.sealed(hasher).as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        let mut file = self.file;
        file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads the entries of a complete layer, in their order.
pub(crate) struct EntryReader {
    file: FileSection,
    end: u64,
    record: Vec<u8>,
}

impl EntryReader {
    /// Reads up to the byte `end`.
    pub(crate) fn new(file: Arc<File>, end: u64) -> Self {
        Self { file: FileSection::new(file, 0, end, BUF_SIZE), end, record: Vec::new() }
    }

    /// Returns the next entry and, for a regular file, where its bytes are.
    ///
    /// # Errors
    /// The file cannot be read, or it is no list of entries (`InvalidData`).
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<(Entry, Option<FilePlace>)>> {
        let left = self.end - self.file.position();
        if left == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_RECORD_BYTES || u64::from(length) > left - 4 {
            return Err(malformed());
        }
        self.record.resize(length as usize, 0);
        self.file.read_exact(&mut self.record)?;
        let (record, rest) = postcard::take_from_bytes::<Record>(&self.record).map_err(|_| malformed())?;
        let kind = *KINDS.get(usize::from(record.kind)).ok_or_else(malformed)?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        let Record { path, link, mode, uid, gid, mtime, device, size, position, sparse, xattrs, .. } = record;
        let place = match (kind, sparse) {
            (Kind::Regular, None) => {
                let tail = self.file.position();
                if !self.file.skip(tail_bytes(size))? {
                    return Err(malformed());
                }
                Some(FilePlace::Contiguous { position, tail })
            }
            (Kind::Regular, Some((bits, extents))) => Some(FilePlace::Sparse { bits, extents: extents.into() }),
            _ => None,
        };
        let mtime = Time { seconds: mtime.0, nanoseconds: mtime.1 };
        let entry = Entry { path, link, kind, mode, uid, gid, mtime, device, size, stored: 0, extents: None, xattrs };
        Ok(Some((entry, place)))
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed entry")
}
