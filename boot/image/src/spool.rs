// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One file without a name that takes the data of all files while layers are merged. What later layers replace stays in
//! it and is not copied into the root disk.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Small files are gathered to writes of this size.
const BUFFER: usize = 1 << 20;

pub(crate) struct Spool {
    file: File,
    buffer: Vec<u8>,
    /// Bytes appended, with those in the buffer.
    length: u64,
}

impl Spool {
    /// A spool on the file system of `directory`. It vanishes with its descriptor, also when the process is killed.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::open(directory, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
            Ok(file) => File::from(file),
            // Not every file system has files without names.
            Err(_) => {
                let path = directory.join("spool");
                let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
                std::fs::remove_file(&path)?;
                file
            }
        };
        Ok(Self { file, buffer: Vec::with_capacity(BUFFER), length: 0 })
    }

    /// Where the next byte will be.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER / 4 {
            self.flush()?;
            self.file.write_all(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn into_file(mut self) -> io::Result<SpoolFile> {
        self.flush()?;
        Ok(SpoolFile(self.file))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

pub(crate) struct SpoolFile(File);

impl SpoolFile {
    /// Fills `into` from `offset` on.
    pub(crate) fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}
