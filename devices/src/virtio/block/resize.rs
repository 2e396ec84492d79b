// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk that grows while the guest uses it. Runs on `main`, besides the worker and the vCPUs, which
//! read the size at each request and at each access to the configuration space. Virtio 1.3, 5.2.5.
//!
//! The file has its new size first, so that it holds what a request may write as soon as one may.

use super::super::mmio::MmioTransport;
use super::SECTOR_SIZE;
use super::disk::Disk;
use std::fs::File;
use std::io::{Result as IoResult, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A disk keeps its size.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The guest was told that nothing changes.
    #[error("it is read-only")]
    ReadOnly,
    /// The file was made smaller by another process.
    #[error("its file has {length} bytes, and the guest's disk {size}: it was made smaller")]
    Cut {
        /// Of the file, in bytes.
        length: u64,
        /// Of the disk, in bytes.
        size: u64,
    },
    /// The guest may have data behind the new end.
    #[error("{requested} bytes are less than its {size}: a disk is not made smaller")]
    Smaller {
        /// The new size.
        requested: u64,
        /// Of the disk, in bytes.
        size: u64,
    },
    /// The file is already larger, perhaps with data there.
    #[error("its file has {length} bytes, more than {requested}: a file is not made smaller")]
    Longer {
        /// The new size.
        requested: u64,
        /// Of the file, in bytes.
        length: u64,
    },
    /// The new size is not whole sectors.
    #[error("{0} bytes are not a multiple of {SECTOR_SIZE}")]
    Sectors(u64),
    /// Its size is the host's to change.
    #[error("a block device of {0} bytes is not made larger here; without a size, that of the device is taken")]
    Device(u64),
    /// A system call failed.
    #[error("cannot {step}")]
    Host {
        /// What was tried.
        step: &'static str,
        /// As the host reports it.
        source: std::io::Error,
    },
}

impl ResizeError {
    /// Whether the cause is this host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host { .. })
    }
}

/// The host's access to a disk in use.
#[derive(Clone, Debug)]
pub struct BlockHandle {
    disk: Arc<Disk>,
}

impl BlockHandle {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// Makes the disk larger, and has its driver, behind `transport`, read the capacity again. With
    /// `size` a regular file is extended to so many bytes by a hole; without it the disk has the
    /// size that the file or block device has now. Returns the size; nothing happens if it is the
    /// same.
    ///
    /// # Errors
    /// Nothing has changed, unless the file has grown.
    pub fn resize(&self, size: Option<u64>, transport: &MmioTransport) -> Result<u64, ResizeError> {
        let (disk, file) = (&*self.disk, &self.disk.first.file);
        if disk.read_only {
            return Err(ResizeError::ReadOnly);
        }
        let host = |step| move |source| ResizeError::Host { step, source };
        let (before, length) = (disk.size(), length(file).map_err(host("examine its file"))?);
        let size = size.unwrap_or(length);
        if length < before {
            return Err(ResizeError::Cut { length, size: before });
        }
        if size < before {
            return Err(ResizeError::Smaller { requested: size, size: before });
        }
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(ResizeError::Sectors(size));
        }
        if size < length {
            return Err(ResizeError::Longer { requested: size, length });
        }
        if size > length {
            if !file.metadata().map_err(host("examine its file"))?.is_file() {
                return Err(ResizeError::Device(length));
            }
            file.set_len(size).map_err(host("make its file larger"))?;
        }
        if size > before {
            transport.change_config(|| disk.size.store(size, Ordering::Release));
        }
        Ok(size)
    }
}

/// Bytes of a regular file or a block device. Its position changes, which nothing else uses.
fn length(mut file: &File) -> IoResult<u64> {
    file.seek(SeekFrom::End(0))
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
