// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a finished root disk. The guest sees one disk: the bytes of all files, one after the other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A root disk, open for reading: it stays valid when the cache is cleared.
#[derive(Debug)]
pub struct RootDisk {
    parts: Vec<RootDiskPart>,
}

/// A file of a root disk.
#[derive(Debug)]
pub struct RootDiskPart {
    /// Where the file was when it was opened.
    pub path: PathBuf,
    pub file: File,
    bytes: u64,
}

impl RootDiskPart {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Self::new(path, file)
    }

    pub(crate) fn new(path: PathBuf, file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    /// Size of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl RootDisk {
    pub(crate) fn new(first: RootDiskPart, others: impl IntoIterator<Item = RootDiskPart>) -> Self {
        Self { parts: [first].into_iter().chain(others).collect() }
    }

    /// Opens the files of a root disk that is not in the cache: the first one, which a message about the disk names, and the others.
    ///
    /// # Errors
    /// One of them cannot be opened or examined; the path says which.
    pub fn open(first: PathBuf, others: impl IntoIterator<Item = PathBuf>) -> Result<Self, (PathBuf, io::Error)> {
        let open = |path: PathBuf| RootDiskPart::open(path.clone()).map_err(|error| (path, error));
        let mut parts = vec![open(first)?];
        for path in others {
            parts.push(open(path)?);
        }
        Ok(Self { parts })
    }

    /// Path of the first file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// In the order of the disk; at least one.
    #[must_use]
    pub fn parts(&self) -> &[RootDiskPart] {
        &self.parts
    }

    #[must_use]
    pub fn into_parts(self) -> Vec<RootDiskPart> {
        self.parts
    }

    /// Size of the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(RootDiskPart::bytes).sum()
    }

    /// Fills `buffer` from `offset` of the disk.
    ///
    /// # Errors
    /// A file cannot be read, or the disk ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut offset) = (buffer, offset);
        for part in &self.parts {
            let here = part.bytes.saturating_sub(offset).min(rest.len() as u64);
            if here > 0 {
                let (now, later) = rest.split_at_mut(here as usize);
                part.file.read_exact_at(now, offset)?;
                (rest, offset) = (later, part.bytes);
            }
            offset = offset.saturating_sub(part.bytes);
        }
        if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Writes the disk to `output`, by the file system where it can share or copy blocks.
    ///
    /// # Errors
    /// A file cannot be read, or `output` fails.
    pub fn copy_to(&self, mut output: &File) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| io::copy(&mut &part.file, &mut output).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(directory: &Path, contents: &[&str]) -> RootDisk {
        let paths: Vec<PathBuf> = (0..contents.len()).map(|number| directory.join(number.to_string())).collect();
        for (path, content) in paths.iter().zip(contents) {
            std::fs::write(path, content).unwrap();
        }
        RootDisk::open(paths[0].clone(), paths[1..].to_vec()).unwrap()
    }

    #[test]
    fn files_are_one_disk() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(directory.path(), &["abc", "", "de", "fghi"]);
        assert_eq!(disk.bytes(), 9);
        for start in 0..=9 {
            for end in start..=9 {
                let mut buffer = vec![0; end - start];
                disk.read_exact_at(&mut buffer, start as u64).unwrap();
                assert_eq!(buffer, &b"abcdefghi"[start..end]);
            }
            assert!(disk.read_exact_at(&mut vec![0; 10 - start], start as u64).is_err());
        }
        assert!(disk.read_exact_at(&mut [0], u64::MAX).is_err());
        let copy = tempfile::tempfile().unwrap();
        disk.copy_to(&copy).unwrap();
        let mut bytes = [0; 9];
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes, copy.metadata().unwrap().len()), (b"abcdefghi", 9));
    }
}
