// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file `data`, written once and front to back. Chunks of a file that are all zeros are not stored, so that a log of a large user
//! ID, gigabytes of nothing, costs nothing; zeros within a stored chunk are holes of the host's file, if they are many.

use super::{BLOCK, Extent, FilePlace, WriteLayerError, chunk_bits, tail_bytes};
use crate::budget::Budget;
use crate::limits;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const WRITE_BUF_SIZE: usize = 1 << 20;
/// Zeros that are skipped instead of written.
const MIN_SKIP: u64 = 64 << 10;

pub(super) struct DataWriter<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    start: u64,
}

impl<'a> DataWriter<'a> {
    /// Writes to an empty file.
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, buffer: Vec::with_capacity(WRITE_BUF_SIZE), start: 0 }
    }

    /// Position of the next byte.
    fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(WRITE_BUF_SIZE - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            rest = later;
            if self.buffer.len() == WRITE_BUF_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Continues at `position`, with zeros before it.
    fn skip_to(&mut self, position: u64) -> io::Result<()> {
        static ZEROS: [u8; MIN_SKIP as usize] = [0; MIN_SKIP as usize];
        let skipped = position - self.position();
        if skipped < MIN_SKIP {
            return self.append(&ZEROS[..skipped as usize]);
        }
        self.flush()?;
        self.start = position;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.start)?;
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Returns the size of the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        // Zeros at the end.
        self.file.set_len(self.start)?;
        Ok(self.start)
    }
}

/// Writes one file, whose bytes come in their order.
pub(super) struct FileWriter<'a, 'b> {
    data: &'a mut DataWriter<'b>,
    budget: &'a Budget,
    size: u64,
    bits: u32,
    /// Bytes of the file that go to `data`.
    end: u64,
    /// The last chunk with data, and its position.
    chunk: Option<(u64, u64)>,
    extents: Vec<Extent>,
    tail: Vec<u8>,
}

impl<'a, 'b> FileWriter<'a, 'b> {
    pub(super) fn new(data: &'a mut DataWriter<'b>, budget: &'a Budget, size: u64) -> Self {
        let end = size - tail_bytes(size);
        let (bits, extents, tail) = (chunk_bits(size), Vec::new(), Vec::new());
        Self { data, budget, size, bits, end, chunk: None, extents, tail }
    }

    fn chunk_bytes(&self) -> u64 {
        BLOCK << self.bits
    }

    /// Takes bytes of the file, at growing offsets. What is left out is zero.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteLayerError> {
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min((BLOCK - offset % BLOCK) as usize));
            if offset >= self.end {
                self.tail.resize((offset - self.end) as usize, 0);
                self.tail.extend_from_slice(piece);
            } else if !is_zero(piece) {
                self.store(offset, piece)?;
            }
            (offset, rest) = (offset + piece.len() as u64, later);
        }
        Ok(())
    }

    fn store(&mut self, offset: u64, piece: &[u8]) -> Result<(), WriteLayerError> {
        let number = offset / self.chunk_bytes();
        let position = match self.chunk {
            Some((current, position)) if current == number => position,
            _ => self.begin_chunk(number)?,
        };
        self.data.skip_to(position + offset % self.chunk_bytes()).map_err(WriteLayerError::Data)?;
        self.data.append(piece).map_err(WriteLayerError::Data)
    }

    fn begin_chunk(&mut self, number: u64) -> Result<u64, WriteLayerError> {
        self.end_chunk()?;
        let position = self.data.position();
        self.chunk = Some((number, position));
        let offset = number * self.chunk_bytes();
        let length = self.chunk_bytes().min(self.end - offset);
        if position + length > limits::MAX_UNCOMPRESSED_BYTES {
            return Err(WriteLayerError::TooLarge);
        }
        match self.extents.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => {
                self.budget.charge(2 * size_of::<Extent>() as u64)?;
                self.extents.push(Extent { offset, length, position });
            }
        }
        Ok(position)
    }

    /// Fills the current chunk up with zeros, to whole blocks.
    fn end_chunk(&mut self) -> Result<(), WriteLayerError> {
        let Some((number, position)) = self.chunk else { return Ok(()) };
        let length = self.chunk_bytes().min(self.end - number * self.chunk_bytes());
        self.data.skip_to(position + length.next_multiple_of(BLOCK)).map_err(WriteLayerError::Data)
    }

    /// Returns where the file is, and its tail if that belongs to its entry.
    pub(super) fn finish(mut self) -> Result<(FilePlace, Vec<u8>), WriteLayerError> {
        let first = self.data.position();
        // A small file of zeros is stored: not every kernel has sparse files in EROFS.
        if self.extents.is_empty() && (1..limits::HOLE_BYTES).contains(&self.end) {
            self.begin_chunk(0)?;
        }
        self.tail.resize((self.size - self.end) as usize, 0);
        let position = match &*self.extents {
            [] if self.end == 0 => Some(first),
            [all] if all.length == self.end => Some(all.position),
            _ => None,
        };
        self.budget.release(2 * size_of_val(&*self.extents) as u64);
        if let Some(position) = position {
            self.end_chunk()?;
            return Ok((FilePlace::Contiguous { position, tail: 0 }, self.tail));
        }
        let tail = std::mem::take(&mut self.tail);
        let start = std::mem::replace(&mut self.end, self.size);
        let is_begun = self.chunk.is_some_and(|(number, _)| number == start / self.chunk_bytes());
        if is_begun && let Some(last) = self.extents.last_mut() {
            last.length += tail.len() as u64;
        }
        if !is_zero(&tail) {
            self.store(start, &tail)?;
        }
        self.end_chunk()?;
        Ok((FilePlace::Sparse { bits: self.bits, extents: self.extents.into() }, Vec::new()))
    }
}

/// Written so that the compiler uses vector instructions.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}
