// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The block device over a raw file or a host block device, or several of them as one read-only disk. Its worker runs on an event loop of its
//! own (`disk-N`), because file I/O blocks. Virtio 1.3, 5.2.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | both | requests: header, data, status byte |
//!
//! A request is acknowledged when it is done, never before; without the feature FLUSH a write is
//! done when it is durable. A flush that failed fails until the machine ends, because the host's
//! kernel forgets which pages it could not write.
//!
//! Not supported: several queues, geometry, secure erase, zones, a cache mode that the driver can
//! switch, disk formats other than raw (they are never probed), and a disk that becomes smaller.

mod config;
mod device;
mod disk;
mod lock;
mod request;
mod resize;
mod worker;

pub use device::{Block, BlockConfig, BlockError, DiskFile, KIND};
pub use disk::DiskCounters;
pub use resize::{BlockHandle, ResizeError};

/// Unit of addresses and capacities, independent of the host's block size.
pub(crate) const SECTOR_SIZE: u64 = 512;
/// Bytes of the answer to "get id".
pub(crate) const ID_SIZE: usize = 20;

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
