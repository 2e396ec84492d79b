// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a [`RotatedFile`](super::rotated_file::RotatedFile) line by line while it is written, from its predecessor on and through every
//! rotation. Used by the verbs and by clients of the control socket that follow a log.

use super::rotated_file::predecessor;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Result, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const READ_SIZE: usize = 64 << 10;

/// A position in a rotated file.
#[derive(Debug)]
pub(crate) struct RotatedReader {
    path: PathBuf,
    file: Option<File>,
    /// Bytes from `begin` on were read and not taken yet.
    buffer: Vec<u8>,
    begin: usize,
    /// End of the next line, if it was read.
    end: Option<usize>,
    fell_behind: bool,
}

impl RotatedReader {
    /// Starts with the oldest line.
    #[must_use]
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, buffer: Vec::new(), begin: 0, end: None, fell_behind: false }
    }

    /// Starts with the next line to be written.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn at_end(path: &Path) -> Result<Self> {
        let mut reader = Self { file: open(path)?, ..Self::new(path) };
        if let Some(file) = &mut reader.file {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(reader)
    }

    /// The next complete line with its end, without taking it; none if there is none yet.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn peek(&mut self) -> Result<Option<&[u8]>> {
        while self.end.is_none() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(self.peek_read())
    }

    /// The same, without reading the file.
    #[must_use]
    pub(crate) fn peek_read(&self) -> Option<&[u8]> {
        self.end.map(|end| &self.buffer[self.begin..end])
    }

    /// Takes the line that [`peek`](Self::peek) returned.
    pub(crate) fn take(&mut self) {
        if let Some(end) = self.end {
            self.begin = end;
            self.find_end(end);
        }
    }

    /// Whether the file was rotated twice between two reads, so that lines may be missing.
    #[must_use]
    pub(crate) fn fell_behind(&self) -> bool {
        self.fell_behind
    }

    /// Looks for the end of the next line from `start` on; there is none before.
    fn find_end(&mut self, start: usize) {
        let length = self.buffer[start..].iter().position(|byte| *byte == b'\n');
        self.end = length.map(|length| start + length + 1);
    }

    /// Reads more if no complete line is left. Returns whether there was more.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        if self.end.is_some() {
            return Ok(true);
        }
        let begin = std::mem::take(&mut self.begin);
        self.buffer.drain(..begin);
        let start = self.read_more()?;
        if let Some(start) = start {
            self.find_end(start);
        }
        Ok(start.is_some())
    }

    /// Returns the position in the buffer of what was read, if there was more.
    fn read_more(&mut self) -> Result<Option<usize>> {
        loop {
            let before = self.buffer.len();
            if let Some(file) = &mut self.file {
                file.take(READ_SIZE as u64).read_to_end(&mut self.buffer)?;
                if self.buffer.len() > before {
                    return Ok(Some(before));
                }
            }
            let Some(next) = self.next_file()? else { return Ok(None) };
            // More may have been written between the last read and the rotation.
            if let Some(mut last) = self.file.replace(next) {
                last.read_to_end(&mut self.buffer)?;
            }
            // An incomplete line of the old file is dropped.
            self.buffer.truncate(self.buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            if !self.buffer.is_empty() {
                return Ok(Some(before));
            }
        }
    }

    /// The file after the current one, if there is one.
    fn next_file(&mut self) -> Result<Option<File>> {
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let Some(file) = &self.file else {
            return Ok(open(&predecessor(&self.path))?.or(open(&self.path)?));
        };
        let own = identity(file)?;
        let Some(newest) = open(&self.path)? else { return Ok(None) };
        if identity(&newest)? == own {
            return Ok(None);
        }
        match open(&predecessor(&self.path))? {
            // A complete file was written and rotated meanwhile.
            Some(middle) if identity(&middle)? != own => {
                self.fell_behind = true;
                Ok(Some(middle))
            }
            _ => Ok(Some(newest)),
        }
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotated_file::RotatedFile;
    use super::*;

    fn rest(reader: &mut RotatedReader) -> String {
        let mut text = String::new();
        while let Some(line) = reader.peek().unwrap() {
            text.push_str(std::str::from_utf8(line).unwrap());
            reader.take();
        }
        text
    }

    #[test]
    fn lines_are_read_from_the_oldest_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut reader = RotatedReader::new(&path);
        assert_eq!(rest(&mut reader), "");
        let mut file = RotatedFile::create(&path, 40).unwrap();
        file.append(b"one\n").unwrap();
        assert_eq!(rest(&mut reader), "one\n");
        file.append(b"no end").unwrap();
        assert_eq!(rest(&mut reader), "");
        file.append(b", or so\n").unwrap();
        assert_eq!(rest(&mut reader), "no end, or so\n");
        let mut late = RotatedReader::at_end(&path).unwrap();
        file.append(b"late\n").unwrap();
        assert_eq!(rest(&mut late), "late\n");
    }

    #[test]
    fn a_line_cut_by_a_rotation_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\ntorn").unwrap();
        let mut reader = RotatedReader::new(&path);
        assert_eq!(rest(&mut reader), "one\n");
        std::fs::rename(&path, predecessor(&path)).unwrap();
        std::fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(rest(&mut reader), "a\nb\n");
    }

    #[test]
    fn no_line_is_lost_by_one_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatedFile::create(&path, 40).unwrap();
        let mut reader = RotatedReader::new(&path);
        let mut append = |numbers: std::ops::Range<u32>| {
            numbers
                .map(|number| format!("line {number}\n"))
                .inspect(|line| file.append(line.as_bytes()).unwrap())
                .collect::<String>()
        };
        // Two lines per file: after four, the reader is one file behind.
        for begin in (100..200).step_by(4) {
            let written = append(begin..begin + 4);
            assert_eq!(rest(&mut reader), written);
        }
        assert!(reader.fell_behind(), "as far as it can tell");
        append(200..220);
        assert_eq!(rest(&mut reader), "line 216\nline 217\nline 218\nline 219\n");
        let mut other = RotatedReader::new(&path);
        assert_eq!(rest(&mut other), "line 216\nline 217\nline 218\nline 219\n");
        assert!(!other.fell_behind());
    }
}
