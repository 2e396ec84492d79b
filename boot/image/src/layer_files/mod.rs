// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A converted layer: the two files that every root disk with this layer shares.
//!
//! | file | holds |
//! |---|---|
//! | `data` | the bytes of regular files in blocks of 4 KiB, in the order of the archive |
//! | `entries` | the entries of the archive in their order, each with the place of its data; at the end the sizes and a digest |
//!
//! A layer is converted once, whatever images have it. `data` is a part of their root disks as it is, so the host's page cache holds
//! it once for all machines. Nothing here depends on other layers: what a whiteout hides, or a link means, is decided when the entries
//! are [merged](crate::tree::Merge).

mod data;
mod entries;
mod write;

pub(crate) use entries::EntryReader;
pub use write::WriteLayerError;
pub(crate) use write::write_layer;

use crate::digest::{Digest, Hasher};
use crate::limits;
use entries::Footer;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use zerocopy::{FromZeros as _, IntoBytes as _};

pub(crate) const DATA: &str = "data";
pub(crate) const ENTRIES: &str = "entries";
/// Unit of `data`.
pub(crate) const BLOCK: u64 = 4096;
/// A longer tail of a file is stored in `data`. A file system can store a tail with the inode, which saves a block and, for a short
/// file, a request of the guest; but it spreads the inodes, which are read one block at a time.
const MAX_TAIL: u64 = 1024;

/// What a layer amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerSizes {
    /// Bytes of the archive.
    pub uncompressed: u64,
    /// The same without long runs of zeros.
    pub stored: u64,
}

/// Place of a regular file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilePlace {
    /// All bytes but the [tail](tail_bytes) are in `data` from this position on.
    Contiguous { position: u64, tail: u64 },
    /// Chunks of `BLOCK << bits` bytes are in `data` if they are not all zeros, one after the other; only the last one of a file is
    /// shorter. Neighbours are one extent.
    Sparse { bits: u32, extents: Box<[Extent]> },
}

/// Bytes of a file that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Extent {
    /// Counted from the start of the file; a multiple of the chunk's size.
    pub offset: u64,
    pub length: u64,
    /// In `data`.
    pub position: u64,
}

/// Bytes at the end of a contiguous file that are with its entry and not in `data`.
pub(crate) fn tail_bytes(size: u64) -> u64 {
    let tail = size % BLOCK;
    if tail <= MAX_TAIL { tail } else { 0 }
}

/// Blocks per chunk of a sparse file, as a power of two: the field of an EROFS inode, which has five bits. With the largest chunks a
/// file of 2^63 bytes has 2^20 of them.
fn chunk_bits(size: u64) -> u32 {
    const MAX_CHUNKS: u64 = 64 << 10;
    let smallest = (limits::HOLE_BYTES / BLOCK).ilog2();
    (smallest..31).find(|bits| size.div_ceil(BLOCK << bits) <= MAX_CHUNKS).unwrap_or(31)
}

/// A converted layer, open for reading.
#[derive(Debug)]
pub(crate) struct LayerFiles {
    pub diff_id: Digest,
    data: File,
    entries: Arc<File>,
    /// Where the entries end.
    end: u64,
    footer: Footer,
}

impl LayerFiles {
    /// Checks both files as far as is cheap: all of `entries`, and the size of `data`. `None` if they are no complete layer.
    pub(crate) fn open(diff_id: Digest, data: File, entries: File) -> io::Result<Option<Self>> {
        let length = entries.metadata()?.len();
        let Some(end) = length.checked_sub(size_of::<Footer>() as u64) else { return Ok(None) };
        let mut footer = Footer::new_zeroed();
        entries.read_exact_at(footer.as_mut_bytes(), end)?;
        let this = Self { diff_id, data, entries: Arc::new(entries), end, footer };
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 1 << 18];
        let mut offset = 0;
        while offset < end {
            let now = (end - offset).min(buffer.len() as u64) as usize;
            this.entries.read_exact_at(&mut buffer[..now], offset)?;
            hasher.update(&buffer[..now]);
            offset += now as u64;
        }
        let is_complete = footer.is_of(hasher) && this.data.metadata()?.len() == this.data_bytes();
        Ok(is_complete.then_some(this))
    }

    pub(crate) fn sizes(&self) -> LayerSizes {
        LayerSizes { uncompressed: self.footer.uncompressed.get(), stored: self.footer.stored.get() }
    }

    /// Another descriptor of `data`.
    pub(crate) fn data(&self) -> io::Result<File> {
        self.data.try_clone()
    }

    /// Size of `data`.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.footer.data_bytes.get()
    }

    pub(crate) fn entries(&self) -> EntryReader {
        EntryReader::new(self.entries.clone(), self.end)
    }

    /// Reads from `offset` of a file of `size` bytes, up to its end at most.
    pub(crate) fn read_file(&self, place: &FilePlace, size: u64, into: &mut [u8], offset: u64) -> io::Result<()> {
        match place {
            FilePlace::Contiguous { position, tail } => {
                let tail_start = size - tail_bytes(size);
                let in_data = tail_start.saturating_sub(offset).min(into.len() as u64) as usize;
                let (data, rest) = into.split_at_mut(in_data);
                self.data.read_exact_at(data, position + offset)?;
                if rest.is_empty() {
                    Ok(())
                } else {
                    self.read_tail(*tail + (offset + in_data as u64 - tail_start), rest)
                }
            }
            FilePlace::Sparse { extents, .. } => {
                into.fill(0);
                let end = offset + into.len() as u64;
                let first = extents.partition_point(|extent| extent.offset + extent.length <= offset);
                for extent in extents[first..].iter().take_while(|extent| extent.offset < end) {
                    let (from, to) = (extent.offset.max(offset), (extent.offset + extent.length).min(end));
                    let part = &mut into[(from - offset) as usize..(to - offset) as usize];
                    self.data.read_exact_at(part, extent.position + (from - extent.offset))?;
                }
                Ok(())
            }
        }
    }

    /// Reads the tail of a file, or the rest of it.
    pub(crate) fn read_tail(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.entries.read_exact_at(into, position)
    }
}

#[cfg(test)]
mod layer_files_tests;
