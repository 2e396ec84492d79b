// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tar archive as a table of its members. Only headers are read and data is skipped by seeking,
//! so that a start from the cache does not read a gigabyte.

use super::{Blob, SourceError, open_regular};
use crate::budget::Budget;
use crate::decompress::{UnpackError, known_compression, unpack as unpack_archive};
use crate::limits;
use crate::tar::{FileSection, Kind, Reader};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For headers; the data between them is mostly longer.
const READ_BUF_SIZE: usize = 4096;
/// Memory of a member in the table, which is at most half full after it grew.
const MEMBER_BYTES: usize = 4 * (size_of::<Vec<u8>>() + size_of::<Member>());

pub(crate) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
}

enum Member {
    Data {
        offset: u64,
        length: u64,
    },
    /// Old docker archives share layers through links: the normalised name of another member.
    Link(Vec<u8>),
}

impl Archive {
    /// Opens `path` and reads the headers of all members. The last one with a name counts.
    pub(super) fn open(path: &Path, scratch: &Path, budget: &Budget) -> Result<Self, SourceError> {
        let (file, length) = open_regular(path)?;
        Self::of(file, length, path, scratch, budget)
    }

    /// Reads the headers of `file`, which is named `path` in messages.
    pub(super) fn of(
        file: File,
        length: u64,
        path: &Path,
        scratch: &Path,
        budget: &Budget,
    ) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Archive { path: path.to_owned(), source };
        let plain = plain(file, length, path, scratch)?;
        let file = plain.file.clone();
        let mut reader = Reader::new(plain.section(READ_BUF_SIZE));
        let mut members = HashMap::new();
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let Some(name) = normalised(b"", &entry.path) else { continue };
            let directory = name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |slash| &name[..slash]);
            let member = match entry.kind {
                Kind::Regular if entry.extents.is_none() => {
                    Member::Data { offset: reader.input().position(), length: entry.size }
                }
                Kind::Symlink => match normalised(directory, &entry.link) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                Kind::HardLink => match normalised(b"", &entry.link) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            let target = if let Member::Link(target) = &member { target.len() } else { 0 };
            budget.charge_allocation(MEMBER_BYTES + name.len() + target)?;
            members.insert(name, member);
        }
        Ok(Self { path: path.to_owned(), file, members })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    pub(super) fn member(&self, name: &str) -> Option<Blob> {
        let mut name = normalised(b"", name.as_bytes())?;
        for _ in 0..limits::MAX_SYMLINKS {
            match self.members.get(&name)? {
                Member::Data { offset, length } => {
                    return Some(Blob { file: self.file.clone(), offset: *offset, length: *length });
                }
                Member::Link(target) => name = target.clone(),
            }
        }
        None
    }
}

/// `file`, which is named `path` in messages, or what it unpacks to, in a file without a name in `scratch`.
pub(super) fn plain(file: File, length: u64, path: &Path, scratch: &Path) -> Result<Blob, SourceError> {
    let file = Arc::new(file);
    let mut section = FileSection::new(file.clone(), 0, length, READ_BUF_SIZE);
    if section.fill_buf().ok().and_then(known_compression).is_none() {
        return Ok(Blob { file, offset: 0, length });
    }
    let unpack = |source| SourceError::Unpack { path: path.to_owned(), source };
    let file = Arc::new(unpack_archive(section, scratch).map_err(unpack)?);
    let length = file.metadata().map_err(|error| unpack(UnpackError::Write(error)))?.len();
    Ok(Blob { file, offset: 0, length })
}

/// Resolves `path` in `directory`, without dots and double slashes. `None` if it leaves the
/// archive.
fn normalised(directory: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in directory.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_names_stay_inside_the_archive() {
        assert_eq!(normalised(b"", b"./index.json").unwrap(), b"index.json");
        assert_eq!(normalised(b"abc", b"../def//layer.tar").unwrap(), b"def/layer.tar");
        assert_eq!(normalised(b"abc", b"../../etc/passwd"), None);
    }
}
