// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Input of a tar reader: a stream, or a part of a file, which skips data without reading it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// A stream that can skip bytes.
pub(crate) trait TarInput: BufRead {
    /// Skips `count` bytes. Returns false if the stream ends before.
    fn skip(&mut self, mut count: u64) -> io::Result<bool> {
        while count > 0 {
            let available = self.fill_buf()?.len() as u64;
            if available == 0 {
                return Ok(false);
            }
            let skipped = available.min(count);
            self.consume(skipped as usize);
            count -= skipped;
        }
        Ok(true)
    }
}

impl TarInput for &[u8] {}

impl<R: Read> TarInput for BufReader<R> {}

/// `Read::read` for types with a buffer of their own.
pub(crate) fn read_buffered(from: &mut impl BufRead, into: &mut [u8]) -> io::Result<usize> {
    let available = from.fill_buf()?;
    let count = available.len().min(into.len());
    into[..count].copy_from_slice(&available[..count]);
    from.consume(count);
    Ok(count)
}

/// A part of a file, read at explicit offsets, so that several can be open on one descriptor.
pub(crate) struct FileSection {
    file: Arc<File>,
    /// Offset of the buffer's first byte in the file.
    offset: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl FileSection {
    /// `length` bytes of `file` from `offset`, read `buffer` bytes at a time.
    pub(crate) fn new(file: Arc<File>, offset: u64, length: u64, buffer: usize) -> Self {
        let end = offset.saturating_add(length);
        Self { file, offset, end, buffer: Vec::with_capacity(buffer), used: 0 }
    }

    /// Offset of the next byte in the file.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.used as u64
    }
}

impl BufRead for FileSection {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.buffer.len() {
            self.offset += self.used as u64;
            self.used = 0;
            let length = (self.end - self.offset).min(self.buffer.capacity() as u64) as usize;
            self.buffer.resize(length, 0);
            let count = loop {
                match self.file.read_at(&mut self.buffer, self.offset) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            self.buffer.truncate(*count.as_ref().unwrap_or(&0));
            count?;
        }
        Ok(&self.buffer[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.buffer.len());
    }
}

impl Read for FileSection {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, into)
    }
}

impl TarInput for FileSection {
    fn skip(&mut self, count: u64) -> io::Result<bool> {
        let position = self.position();
        if count > self.end - position {
            return Ok(false);
        }
        let buffered = (self.buffer.len() - self.used) as u64;
        if count <= buffered {
            self.consume(count as usize);
        } else {
            self.buffer.clear();
            self.used = 0;
            self.offset = position + count;
        }
        Ok(true)
    }
}
