// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file of a layer, plain or compressed, which is hashed while it is read.

use crate::digest::{Digest, Hasher};
use crate::source::Blob;
use crate::tar::{FileSection, read_buffered};
use std::io::{self, BufRead, Read};

const READ_BUF_SIZE: usize = 256 << 10;

/// Reads a file once, front to back, and computes its digest.
pub(super) struct BlobReader {
    section: FileSection,
    hasher: Option<Hasher>,
    /// Bytes of the section's buffer that are hashed but not consumed.
    hashed: usize,
    pub(super) consumed: u64,
}

impl BlobReader {
    /// Reads `blob`, hashed with the algorithm of `digest` if there is one.
    pub(super) fn new(blob: &Blob, digest: Option<&Digest>) -> Self {
        Self { section: blob.section(READ_BUF_SIZE), hasher: digest.map(Digest::hasher), hashed: 0, consumed: 0 }
    }

    /// Reads the rest and returns the digest of the file.
    pub(super) fn finish(mut self) -> io::Result<Option<Digest>> {
        loop {
            let count = self.fill_buf()?.len();
            if count == 0 {
                return Ok(self.hasher.map(Hasher::finish));
            }
            self.consume(count);
        }
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.section.fill_buf()?;
        // The section refills only when it is empty, so either all of the bytes are new or none is.
        if self.hashed == 0 && !bytes.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
            self.hashed = bytes.len();
        }
        Ok(bytes)
    }

    fn consume(&mut self, count: usize) {
        self.section.consume(count);
        self.hashed -= count;
        self.consumed += count as u64;
    }
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, into)
    }
}
