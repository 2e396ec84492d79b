// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a file of an ISO 9660 image (ECMA-119) by its path. Names are those of Joliet, of Rock Ridge (`NM`), or plain ones, in which
//! case does not count. What the image says is checked before it is used: sizes are bounded, and nothing is followed but the
//! directories of the path.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

const SECTOR: u64 = 2048;
/// The first volume descriptor, and how many are looked at.
const DESCRIPTORS: std::ops::Range<u64> = 16..32;
const MAX_DIRECTORY_BYTES: u32 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum IsoError {
    #[error("neither an ISO 9660 image nor a VFAT file system")]
    NotIso,
    #[error("a directory of the image has {0} bytes; the maximum is {MAX_DIRECTORY_BYTES}")]
    LargeDirectory(u32),
    #[error("{0} has {1} bytes; the maximum is {2}")]
    LargeFile(String, u32, u64),
    #[error("{0} is in several extents, which is not supported")]
    Extents(String),
    #[error("the image ends before its files do")]
    Truncated(#[source] std::io::Error),
}

/// An image and its root directory.
#[derive(Debug)]
pub(super) struct Iso {
    file: File,
    root: Entry,
    is_joliet: bool,
}

/// Where a file or a directory is.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sector: u32,
    bytes: u32,
    is_directory: bool,
    has_more_extents: bool,
}

impl Iso {
    pub(super) fn open(file: File) -> Result<Self, IsoError> {
        let mut root = None;
        for number in DESCRIPTORS {
            let mut sector = [0; SECTOR as usize];
            file.read_exact_at(&mut sector, number * SECTOR).map_err(|_| IsoError::NotIso)?;
            if &sector[1..6] != b"CD001" {
                return Err(IsoError::NotIso);
            }
            // The escape sequences of UCS-2, levels 1 to 3.
            let is_joliet = matches!(&sector[88..91], b"%/@" | b"%/C" | b"%/E");
            match sector[0] {
                1 if root.is_none() => root = Some((Entry::parse(&sector[156..190]), false)),
                2 if is_joliet => root = Some((Entry::parse(&sector[156..190]), true)),
                255 => break,
                _ => {}
            }
        }
        let Some((Some(root), is_joliet)) = root else { return Err(IsoError::NotIso) };
        Ok(Self { file, root, is_joliet })
    }

    /// The content of the file at `path`, or `None` if there is none.
    pub(super) fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, IsoError> {
        let mut entry = self.root;
        for name in path.split('/') {
            if !entry.is_directory {
                return Ok(None);
            }
            match self.find(entry, name)? {
                Some(found) => entry = found,
                None => return Ok(None),
            }
        }
        if entry.is_directory {
            return Ok(None);
        }
        if entry.has_more_extents {
            return Err(IsoError::Extents(path.to_owned()));
        }
        if u64::from(entry.bytes) > max {
            return Err(IsoError::LargeFile(path.to_owned(), entry.bytes, max));
        }
        self.content(entry).map(Some)
    }

    fn content(&self, entry: Entry) -> Result<Vec<u8>, IsoError> {
        let mut content = vec![0; entry.bytes as usize];
        self.file.read_exact_at(&mut content, u64::from(entry.sector) * SECTOR).map_err(IsoError::Truncated)?;
        Ok(content)
    }

    fn find(&self, directory: Entry, name: &str) -> Result<Option<Entry>, IsoError> {
        if directory.bytes > MAX_DIRECTORY_BYTES {
            return Err(IsoError::LargeDirectory(directory.bytes));
        }
        let content = self.content(directory)?;
        // No record crosses a border of sectors; the rest of a sector is zero.
        for sector in content.chunks(SECTOR as usize) {
            let mut rest = sector;
            while let Some(&length) = rest.first().filter(|length| **length != 0) {
                let Some((record, after)) = rest.split_at_checked(length.into()) else { break };
                rest = after;
                if self.names(record).iter().any(|own| own == name) || self.is_plain(record, name) {
                    return Ok(Entry::parse(record));
                }
            }
        }
        Ok(None)
    }

    /// The names of a record in Joliet or Rock Ridge.
    fn names(&self, record: &[u8]) -> Vec<String> {
        let Some(identifier) = identifier(record) else { return Vec::new() };
        if self.is_joliet {
            let units = identifier.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            let name: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
            return vec![without_version(&name).to_owned()];
        }
        let padded = 33 + identifier.len() + (identifier.len() + 1) % 2;
        let mut entries = record.get(padded..).unwrap_or_default();
        let mut names = Vec::new();
        while let [first, second, length, _, ..] = *entries
            && length >= 4
            && usize::from(length) <= entries.len()
        {
            let (entry, after) = entries.split_at(length.into());
            if [first, second] == *b"NM" {
                names.extend(entry.get(5..).map(|name| String::from_utf8_lossy(name).into_owned()));
            }
            entries = after;
        }
        names
    }

    fn is_plain(&self, record: &[u8], name: &str) -> bool {
        let plain = identifier(record).filter(|_| !self.is_joliet).and_then(|name| std::str::from_utf8(name).ok());
        plain.is_some_and(|own| without_version(own).trim_end_matches('.').eq_ignore_ascii_case(name))
    }
}

fn identifier(record: &[u8]) -> Option<&[u8]> {
    record.get(33..33 + usize::from(*record.get(32)?))
}

fn without_version(name: &str) -> &str {
    name.split_once(';').map_or(name, |(name, _)| name)
}

impl Entry {
    /// Of a directory record, ECMA-119, 9.1.
    fn parse(record: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        let attributes = u32::from(*record.get(1)?);
        let flags = *record.get(25)?;
        Some(Self {
            sector: number(2)?.checked_add(attributes)?,
            bytes: number(10)?,
            is_directory: flags & 2 != 0,
            has_more_extents: flags & 0x80 != 0,
        })
    }
}
