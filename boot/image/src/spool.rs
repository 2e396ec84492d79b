// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An O_TMPFILE file for what is unpacked or packed on the way.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Small files are collected into writes of this size.
const WRITE_BUF_SIZE: usize = 1 << 20;

pub(crate) struct Spool {
    file: File,
    buffer: Vec<u8>,
    /// Bytes appended, including those in the buffer.
    length: u64,
}

impl Spool {
    /// Creates a spool on the file system of `directory`. It is freed with its descriptor, even if
    /// the process is killed.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::open(directory, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
            Ok(file) => File::from(file),
            // Not every file system has O_TMPFILE.
            Err(_) => {
                let path = directory.join("spool");
                let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
                std::fs::remove_file(&path)?;
                file
            }
        };
        Ok(Self { file, buffer: Vec::with_capacity(WRITE_BUF_SIZE), length: 0 })
    }

    /// Offset of the next byte.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > WRITE_BUF_SIZE {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BUF_SIZE / 4 {
            self.flush()?;
            self.file.write_all(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn into_file(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.file)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
