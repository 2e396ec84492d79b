// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disks of a machine, as clients make them larger. On `main`.
//!
//! The size of the file is changed here and not by the client: the descriptor is that of the locked
//! file which the guest uses, whatever has been renamed or mounted over its path since, and it needs
//! neither a right to open files nor a system call that `main` has not.

use super::rates::UnknownDeviceError;
use crate::config::disk::{ROOT_SERIAL, SCRATCH_SERIAL, VOLUME_SERIAL};
use devices::virtio::block::{BlockHandle, ResizeError};
use devices::virtio::mmio::MmioTransport;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error(transparent)]
    Unknown(#[from] UnknownDeviceError),
    #[error("disk {0} keeps its size: only a disk of --disk is resized")]
    Fixed(String),
    #[error("disk {serial}")]
    Resize { serial: String, source: ResizeError },
}

/// In the order in which the guest sees them.
#[derive(Debug, Default)]
pub(super) struct Disks(Vec<Disk>);

#[derive(Debug)]
struct Disk {
    serial: String,
    handle: BlockHandle,
    transport: Arc<MmioTransport>,
}

impl Disks {
    pub(super) fn add(&mut self, serial: String, handle: BlockHandle, transport: Arc<MmioTransport>) {
        self.0.push(Disk { serial, handle, transport });
    }

    /// Makes a disk of the user's larger, and returns its size. Without `size` that of its file is taken.
    pub(super) fn resize(&self, serial: &str, size: Option<u64>) -> Result<u64, DiskError> {
        let known = || self.0.iter().map(|disk| &*disk.serial);
        let found = self.0.iter().find(|disk| disk.serial == serial);
        let disk = found.ok_or_else(|| UnknownDeviceError::new("disk", serial, known()))?;
        // What coracle makes has the size of the file system in it.
        if [ROOT_SERIAL, SCRATCH_SERIAL].contains(&serial) || serial.starts_with(VOLUME_SERIAL) {
            return Err(DiskError::Fixed(serial.to_owned()));
        }
        let resized = disk.handle.resize(size, &disk.transport);
        resized.map_err(|source| DiskError::Resize { serial: serial.to_owned(), source })
    }
}
