// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file of lines that never takes more than it may: at half of that it becomes `NAME.1`, in place of the one before, and a
//! new one begins. Written by one thread.

use std::fs::{self, File};
use std::io::{ErrorKind, Result, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// For this user only.
const FILE_MODE: u32 = 0o600;

/// A file that is written at its end.
#[derive(Debug)]
pub(crate) struct RotatedFile {
    path: PathBuf,
    file: File,
    length: u64,
    half: u64,
}

impl RotatedFile {
    /// Begins the file anew; it and its predecessor together take up to `limit` bytes, and one line more where lines are long.
    ///
    /// # Errors
    /// The host refused.
    pub(crate) fn create(path: &Path, limit: u64) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, length: 0, half: limit / 2 })
    }

    /// Writes `lines` behind what is there. What the host did not take whole is taken back, so that no line is half.
    ///
    /// # Errors
    /// The host refused; nothing was written.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<()> {
        if self.length > 0 && self.length + lines.len() as u64 > self.half {
            match fs::rename(&self.path, predecessor(&self.path)) {
                // The host had no room for the new file the last time.
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

/// What a rotated file was before.
#[must_use]
pub(crate) fn predecessor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn open(path: &Path) -> Result<File> {
    // Appending: what was taken back leaves no hole.
    let _ = fs::remove_file(path);
    File::options().append(true).create_new(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = RotatedFile::create(&path, 40).unwrap();
        for number in 100..120 {
            file.append(format!("line {number}\n").as_bytes()).unwrap();
        }
        let text = [predecessor(&path), path].map(|path| fs::read_to_string(path).unwrap()).concat();
        assert_eq!(text, "line 116\nline 117\nline 118\nline 119\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_line_longer_than_the_limit_is_kept_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = RotatedFile::create(&path, 4).unwrap();
        file.append(b"a long line\n").unwrap();
        file.append(b"another one\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"another one\n");
    }
}
