// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Takes the state from a machine whose processes have stopped. On `main`, while the vCPUs are paused. The machine runs on afterwards,
//! whether that succeeded or not.

use super::document::{Part, SavedMachine, SnapshotDocument};
use crate::host::lost_memory;
use crate::host::sparse_file::{self, BLOCK_SIZE, is_zero};
use crate::host::system_error::{Cannot as _, SystemError};
use crate::machine::build::Machine;
use crate::machine::supervisor::SupervisorState;
use crate::machine::threads::VcpuThreads;
use crate::state::kept::KeptImage;
use devices::virtio::mmio::{self, TransportState};
use guest_protocol::protocol;
use kvm::{GuestMemory, StateError};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::SystemTime;
use vm_memory::{Bytes as _, GuestMemoryBackend as _, GuestMemoryRegion as _, MemoryRegionAddress};

/// What a machine was started from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) machine: String,
    /// A configuration document, with its version.
    pub(crate) request: Map<String, Value>,
    /// Where relative paths of the request begin.
    pub(crate) directory: PathBuf,
    /// As it was when the machine was started; `None` without one.
    pub(crate) image: Option<KeptImage>,
}

/// The disks of a machine, as far as a snapshot needs them.
#[derive(Debug, Default)]
pub(in crate::machine) struct Savable {
    pub(in crate::machine) scratch: Option<File>,
    /// Serial of a disk that can be saved neither by a copy nor by a digest.
    pub(in crate::machine) other_disk: Option<String>,
}

/// The machine runs on after each of them but the last.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error("a machine without an image cannot be saved (--rootfs)")]
    NoImage,
    #[error("a machine with the disk {0} cannot be saved: only the image and the writable layer can")]
    Disk(String),
    #[error("a machine with the device {0} cannot be saved")]
    Device(String),
    #[error("a vCPU waits for a device that hangs")]
    Hangs,
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Transport(#[from] mmio::SaveError),
    #[error(transparent)]
    Write(#[from] SystemError),
    #[error("the machine cannot run on after it was saved")]
    Broken(#[source] mmio::RestoreError),
}

/// The files of a snapshot, empty.
#[derive(Debug)]
pub(in crate::machine) struct SnapshotFiles {
    pub(in crate::machine) state: File,
    pub(in crate::machine) memory: File,
    pub(in crate::machine) scratch: File,
}

impl Machine {
    /// Whether all that the machine has can be saved.
    pub(in crate::machine) fn check_savable(&self, source: &Source) -> Result<(), SaveError> {
        if source.image.is_none() {
            return Err(SaveError::NoImage);
        }
        if let Some(serial) = &self.savable.other_disk {
            return Err(SaveError::Disk(serial.clone()));
        }
        let mut identities = self.transports.iter().map(|transport| transport.identity());
        match identities.find(|identity| !identity.kind.savable) {
            Some(identity) => Err(SaveError::Device(identity.name.clone())),
            None => Ok(()),
        }
    }

    /// Writes a snapshot to `files`, without the digests. The vCPUs are paused.
    pub(in crate::machine) fn save(
        &self,
        threads: &VcpuThreads,
        supervisor: SupervisorState,
        source: &Source,
        mut files: SnapshotFiles,
    ) -> Result<(), SaveError> {
        let mut saved = Vec::with_capacity(self.transports.len());
        let outcome = self.take_state(threads, supervisor, &mut saved);
        let outcome = outcome.and_then(|state| self.write(state, source, &mut files));
        for (transport, state) in self.transports.iter().zip(&saved) {
            transport.restore(state).map_err(SaveError::Broken)?;
        }
        outcome
    }

    /// The state of the machine besides its memory and disks. The vCPUs are paused. The devices whose states are in `transports`
    /// afterwards are not served any more.
    pub(in crate::machine) fn take_state(
        &self,
        threads: &VcpuThreads,
        supervisor: SupervisorState,
        transports: &mut Vec<TransportState>,
    ) -> Result<SavedMachine, SaveError> {
        // Completes the accesses of the vCPUs, which may be to the devices. The states come later: devices raise interrupts.
        threads.save()?;
        for transport in &self.transports {
            transports.push(transport.save()?);
        }
        Ok(SavedMachine {
            vcpus: threads.save()?,
            vm: self.vm.save()?,
            serial: self.serial.save(),
            transports: transports.clone(),
            supervisor,
            streams: self.ports.counts(),
        })
    }

    fn write(&self, state: SavedMachine, source: &Source, files: &mut SnapshotFiles) -> Result<(), SaveError> {
        let image = source.image.clone().ok_or(SaveError::NoImage)?;
        let memory = write_memory(self.vm.memory(), &files.memory).cannot("write the memory of the machine")?;
        let scratch = match &self.savable.scratch {
            None => None,
            Some(disk) => Some(write_scratch(disk, &files.scratch).cannot("copy the scratch disk")?),
        };
        let part = |bytes| Part { bytes, sha256: String::new() };
        let document = SnapshotDocument {
            coracle: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: protocol::VERSION,
            created: SystemTime::now(),
            machine: source.machine.clone(),
            request: source.request.clone(),
            directory: source.directory.clone(),
            image,
            memory: part(memory),
            scratch: scratch.map(part),
            state,
        };
        Ok(files.state.write_all(&document.to_bytes()).cannot("write the state of the machine")?)
    }
}

/// Copies the scratch disk to an empty file. Returns the size.
pub(in crate::machine) fn write_scratch(disk: &File, file: &File) -> io::Result<u64> {
    let bytes = disk.metadata()?.len();
    sparse_file::copy(disk, file, bytes)?;
    Ok(bytes)
}

/// Writes what is not zero, one range after the other. Returns the size.
pub(in crate::machine) fn write_memory(memory: &GuestMemory, file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; BLOCK_SIZE];
    let mut start = 0;
    file.set_len(memory.iter().map(|region| region.len()).sum())?;
    for region in memory.iter() {
        for offset in (0..region.len()).step_by(BLOCK_SIZE) {
            let block = &mut buffer[..BLOCK_SIZE.min((region.len() - offset) as usize)];
            region.read_slice(block, MemoryRegionAddress(offset)).map_err(io::Error::other)?;
            if !is_zero(block) {
                file.write_all_at(block, start + offset)?;
            }
        }
        start += region.len();
    }
    lost_memory::check()?;
    Ok(start)
}
