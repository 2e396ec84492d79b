// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes tar archives (POSIX pax), the same bytes for the same entries. What a ustar header has no place for becomes PAX records:
//! long names, fractions of a second, large numbers, extended attributes.

use super::{BLOCK, Entry, Kind, Time};
use std::io::{self, Write};

const MAX_NAME_LENGTH: usize = 100;
const ZEROES: [u8; BLOCK] = [0; BLOCK];

/// An archive that is being written.
pub struct TarWriter<W> {
    output: W,
}

impl<W: Write> TarWriter<W> {
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Begins a file of owner 0 and time 0; [`Self::write`] its `size` bytes, then [`Self::end`] it.
    ///
    /// # Errors
    /// The output fails, as in all methods.
    pub fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.entry(&Entry::regular(name.into(), size))
    }

    /// Begins an entry. A regular file is followed by its bytes and [`Self::end`].
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut records = Vec::new();
        let header = header(entry, &mut records);
        if !records.is_empty() {
            let size = records.len() as u64;
            self.output.write_all(&checked(fields(&Entry::regular(b"pax".to_vec(), size), b'x', &mut Vec::new())))?;
            self.output.write_all(&records)?;
            self.end(size)?;
        }
        self.output.write_all(&header)
    }

    /// # Errors
    /// See [`Self::begin`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// Fills the last block of a file of `size` bytes.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn end(&mut self, size: u64) -> io::Result<()> {
        let used = (size % BLOCK as u64) as usize;
        self.output.write_all(&ZEROES[..(BLOCK - used) % BLOCK])
    }

    /// A whole file.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        self.begin(name, size)?;
        self.write(content)?;
        self.end(size)
    }

    /// Writes the end of the archive, and returns the output.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[ZEROES, ZEROES].concat())?;
        self.output.flush()?;
        Ok(self.output)
    }
}

impl Entry {
    /// A regular file of owner 0 and time 0.
    #[must_use]
    pub fn regular(path: Vec<u8>, size: u64) -> Self {
        Self {
            path,
            link: Vec::new(),
            kind: Kind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            device: (0, 0),
            size,
            stored: size,
            extents: None,
            xattrs: Vec::new(),
        }
    }
}

fn header(entry: &Entry, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let kind = match entry.kind {
        Kind::Regular => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharacterDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    let header = fields(entry, kind, records);
    for (name, value) in &entry.xattrs {
        record(records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    checked(header)
}

/// A header without its checksum. What does not fit is added to `records`.
fn fields(entry: &Entry, kind: u8, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut header = ZEROES;
    let mut set = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let mut text = |at, key: &[u8], value: &[u8]| {
        if value.len() > MAX_NAME_LENGTH {
            record(records, key, value);
        }
        set(at, &value[..value.len().min(MAX_NAME_LENGTH)]);
    };
    text(0, b"path", &entry.path);
    text(157, b"linkpath", &entry.link);
    let mut number = |at, digits: usize, key: &[u8], value: u64| {
        let fits = value < 1 << (3 * digits);
        if !fits {
            record(records, key, value.to_string().as_bytes());
        }
        set(at, format!("{:0digits$o}\0", if fits { value } else { 0 }).as_bytes());
    };
    number(100, 7, b"", entry.mode.into());
    number(108, 7, b"uid", entry.uid.into());
    number(116, 7, b"gid", entry.gid.into());
    number(124, 11, b"size", if entry.kind == Kind::Regular { entry.size } else { 0 });
    number(329, 7, b"", entry.device.0.into());
    number(337, 7, b"", entry.device.1.into());
    let Time { seconds, nanoseconds } = entry.mtime;
    let whole = u64::try_from(seconds).unwrap_or_default();
    if nanoseconds == 0 && seconds >= 0 {
        number(136, 11, b"mtime", whole);
    } else {
        number(136, 11, b"", whole & ((1 << 33) - 1));
        record(records, b"mtime", decimal_time(entry.mtime).as_bytes());
    }
    set(156, &[kind]);
    set(257, b"ustar\x0000");
    header
}

/// Seconds with a fraction, which of a negative time counts down.
fn decimal_time(Time { seconds, nanoseconds }: Time) -> String {
    let (sign, seconds, nanoseconds) = match (seconds, nanoseconds) {
        (0.., _) => ("", seconds.unsigned_abs(), nanoseconds),
        (_, 0) => ("-", seconds.unsigned_abs(), 0),
        (_, _) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{nanoseconds:09}"),
    }
}

/// Fills in the checksum.
fn checked(mut header: [u8; BLOCK]) -> [u8; BLOCK] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Adds `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    for part in [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
