// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a kept machine that has ended, for the verbs that read them.

use super::failure::{FailsAs as _, Failure};
use crate::config::root_format::RootFormatChoice;
use crate::host::directories::Directories;
use crate::host::system_error::Cannot as _;
use crate::state::end::EndReason;
use crate::state::kept::{KeptDocument, KeptMachines};
use crate::state::machines::MachineInfo;
use oci_image::{MachineTree, RootFormat, TreeError};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::File;
use std::path::Path;

/// What an error of [`MachineTree`] is about.
#[derive(Debug, thiserror::Error)]
#[error("{name}")]
struct FilesError {
    name: String,
    source: TreeError,
}

/// A machine that has ended, with what it was made from.
pub(crate) struct Ended {
    pub(crate) tree: MachineTree,
    pub(crate) document: KeptDocument,
}

/// Opens root disk and layer of `machine` below `base`. No start uses the layer while this process has it open.
///
/// # Errors
/// It runs, nothing is kept of it, or its files are damaged.
pub(crate) fn open(base: &Path, machine: &MachineInfo) -> Result<Ended, Failure> {
    let name = &machine.name;
    let kept = KeptMachines::of(base, &Directories::from_environment()).fails_as(EndReason::HostError)?;
    if !machine.has_ended() {
        let error = format!("{name} is {}: stop it first", machine.state());
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let document = kept.read(name).fails_as(EndReason::ConfigError)?;
    let files = kept.open(name);
    let opened =
        |path: &Path| File::open(path).cannot(format!("open {}", path.display())).fails_as(EndReason::HostError);
    let (root, layer) = (opened(&files.root())?, opened(&files.layer())?);
    // A machine locks its disks.
    if fcntl_lock(&layer, FlockOperation::NonBlockingLockShared).is_err() {
        let error = format!("{name}: its layer is in use by another process");
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let format = match document.image.format {
        RootFormatChoice::Squashfs => RootFormat::Squashfs,
        RootFormatChoice::Erofs | RootFormatChoice::Auto => RootFormat::Erofs,
    };
    let tree = MachineTree::open(root, format, layer, document.request.system);
    Ok(Ended { tree: tree.map_err(|error| failed(machine, error))?, document })
}

/// A failure that names the machine.
pub(crate) fn failed(machine: &MachineInfo, source: TreeError) -> Failure {
    let reason = if source.is_host() { EndReason::HostError } else { EndReason::ImageError };
    Failure::new(reason, FilesError { name: machine.name.clone(), source })
}
