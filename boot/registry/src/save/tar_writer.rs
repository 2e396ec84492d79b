// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tar archives of regular files (POSIX ustar), the same bytes for the same content: owner 0, time 0.
//! A name too long for the header gets a PAX record, a size too large for it GNU's binary form, which
//! every reader of container tools takes.

use std::io::{self, Write};

const BLOCK_SIZE: usize = 512;
const MAX_NAME_LENGTH: usize = 100;
/// What eleven octal digits hold.
const MAX_OCTAL_SIZE: u64 = (1 << 33) - 1;

pub(super) struct TarWriter<W> {
    output: W,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output }
    }

    /// Begins a file; [`Self::write`] its `size` bytes, then [`Self::end`] it.
    pub(super) fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        if name.len() > MAX_NAME_LENGTH {
            let record = pax_record("path", name);
            self.output.write_all(&header("pax", b'x', record.len() as u64))?;
            self.output.write_all(record.as_bytes())?;
            self.end(record.len() as u64)?;
        }
        let mut end = name.len().min(MAX_NAME_LENGTH);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        self.output.write_all(&header(&name[..end], b'0', size))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// Fills the last block of a file of `size` bytes.
    pub(super) fn end(&mut self, size: u64) -> io::Result<()> {
        let used = (size % BLOCK_SIZE as u64) as usize;
        self.output.write_all(&[0; BLOCK_SIZE][..(BLOCK_SIZE - used) % BLOCK_SIZE])
    }

    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        self.begin(name, size)?;
        self.write(content)?;
        self.end(size)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.output.write_all(&[0; 2 * BLOCK_SIZE])?;
        self.output.flush()
    }
}

fn header(name: &str, kind: u8, size: u64) -> [u8; BLOCK_SIZE] {
    let mut header = [0; BLOCK_SIZE];
    let mut set = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, name.as_bytes());
    set(100, b"0000644\x000000000\x000000000\0");
    if size <= MAX_OCTAL_SIZE {
        set(124, format!("{size:011o}\0").as_bytes());
    } else {
        set(124, &[0x80, 0, 0, 0]);
        set(128, &size.to_be_bytes());
    }
    set(136, b"00000000000\0        ");
    set(156, &[kind]);
    set(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    loop {
        let record = format!("{length}{rest}");
        if record.len() == length {
            return record;
        }
        length = record.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for length in [1, 85, 86, 87, 88, 89, 90, 91, 985, 990] {
            let record = pax_record("path", &"n".repeat(length));
            assert_eq!(record.split(' ').next().unwrap().parse(), Ok(record.len()));
        }
    }

    #[test]
    fn large_sizes_are_binary() {
        assert_eq!(&header("x", b'0', MAX_OCTAL_SIZE)[124..136], b"77777777777\0");
        assert_eq!(&header("x", b'0', 1 << 33)[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
