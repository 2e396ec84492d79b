// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file that is hashed while it is read, such as that of a layer.

use crate::digest::{Digest, Hasher};
use crate::tar::{FileSection, read_buffered};
use std::io::{self, BufRead, Read};

/// Reads a file once, front to back, and computes its digest.
pub(crate) struct HashedFile {
    section: FileSection,
    hasher: Option<Hasher>,
    /// Bytes of the section's buffer that are hashed but not consumed.
    hashed: usize,
    pub(crate) consumed: u64,
}

impl HashedFile {
    /// Reads `section`, hashed with the algorithm of `digest` if there is one.
    pub(crate) fn new(section: FileSection, digest: Option<&Digest>) -> Self {
        Self { section, hasher: digest.map(Digest::hasher), hashed: 0, consumed: 0 }
    }

    /// Reads the rest and returns the digest of the file.
    pub(crate) fn finish(mut self) -> io::Result<Option<Digest>> {
        loop {
            let count = self.fill_buf()?.len();
            if count == 0 {
                return Ok(self.hasher.map(Hasher::finish));
            }
            self.consume(count);
        }
    }
}

impl BufRead for HashedFile {
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

impl Read for HashedFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, into)
    }
}
