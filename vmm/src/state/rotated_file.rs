// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file of lines with a limit: at half of it the file is renamed to `NAME.1`, which replaces the previous one, and a new file begins.
//! Written by one thread.

use std::fs::{self, File};
use std::io::{ErrorKind, Result, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE_MODE: u32 = 0o600;

#[derive(Debug)]
pub(crate) struct RotatedFile {
    path: PathBuf,
    file: File,
    length: u64,
    half: u64,
}

impl RotatedFile {
    /// Replaces the file at `path`. It and its predecessor take up to `limit` bytes together, more only for a line above half of that.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(crate) fn create(path: &Path, limit: u64) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, length: 0, half: limit / 2 })
    }

    /// Appends `lines`. A partial write is truncated, so that no line is incomplete.
    ///
    /// # Errors
    /// Nothing was written.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<()> {
        if self.length > 0 && self.length + lines.len() as u64 > self.half {
            match fs::rename(&self.path, predecessor(&self.path)) {
                // The new file could not be created the last time.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
            (self.file, self.length) = (open(&self.path)?, 0);
        }
        let written = self.file.write_all(lines);
        match &written {
            Ok(()) => self.length += lines.len() as u64,
            Err(_) => drop(self.file.set_len(self.length)),
        }
        written
    }
}

/// Path of the previous file.
#[must_use]
pub(crate) fn predecessor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn open(path: &Path) -> Result<File> {
    // O_APPEND: after a truncation the next write leaves no hole.
    let _ = fs::remove_file(path);
    File::options().append(true).create_new(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_within_the_limit_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatedFile::create(&path, 40).unwrap();
        for number in 100..120 {
            file.append(format!("line {number}\n").as_bytes()).unwrap();
        }
        let text = [predecessor(&path), path].map(|path| fs::read_to_string(path).unwrap()).concat();
        assert_eq!(text, "line 116\nline 117\nline 118\nline 119\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_line_above_the_limit_is_kept_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatedFile::create(&path, 4).unwrap();
        file.append(b"a long line\n").unwrap();
        file.append(b"another one\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"another one\n");
    }
}
