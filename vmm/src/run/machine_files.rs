// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a machine, for the verbs that read them. Of a kept machine that has ended they are read where they are. Of one that
//! runs the writable layer is copied first, at one moment, to a file without a name.

use super::failure::{FailsAs as _, Failure};
use super::root_disk;
use crate::api::client::Client;
use crate::api::server::Layer;
use crate::config::request::Request;
use crate::config::root_format::RootFormatChoice;
use crate::host::directories::Directories;
use crate::host::system_error::Cannot as _;
use crate::host::tmpfile::tmpfile;
use crate::machine::LayerReport;
use crate::state::end::EndReason;
use crate::state::kept::{KeptDocument, KeptImage, KeptMachine, KeptMachines};
use crate::state::machines::MachineInfo;
use oci_image::{MachineTree, RootDisk, RootFormat, TreeError};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("{name}")]
struct FilesError {
    name: String,
    source: Box<dyn Error + Send + Sync>,
}

/// The root disk of a running machine is gone.
#[derive(Debug, thiserror::Error)]
#[error("the root disk of its image is not in the cache any more")]
struct NoRootDiskError;

/// The files of a machine, with what it was made from.
pub(crate) struct MachineFiles {
    pub(crate) tree: MachineTree,
    pub(crate) request: Request,
    /// Relative paths of the request begin there.
    pub(crate) directory: PathBuf,
    pub(crate) image: KeptImage,
}

/// Opens root disk and layer of `machine` below `base`. No start uses the layer of one that has ended while this process has it
/// open. The vCPUs of one that runs are held for the moment of the copy with `pauses`.
///
/// # Errors
/// The machine has no layer on a disk, nothing is kept of one that has ended, its guest does not answer, or its files are damaged.
pub(crate) fn open(base: &Path, machine: &MachineInfo, pauses: bool) -> Result<MachineFiles, Failure> {
    let directories = Directories::from_environment();
    match machine.has_ended() {
        true => open_ended(base, machine, &directories),
        false => open_running(base, machine, &directories, pauses),
    }
}

fn open_ended(base: &Path, machine: &MachineInfo, directories: &Directories) -> Result<MachineFiles, Failure> {
    let name = &machine.name;
    let kept = KeptMachines::of(base, directories).fails_as(EndReason::HostError)?;
    let KeptDocument { request, directory, image, .. } = kept.read(name).fails_as(EndReason::ConfigError)?;
    let files = kept.open(name);
    let (root, layer) = (root_disk::open_kept(&files)?, open_layer(name, &files)?);
    Ok(MachineFiles { tree: tree(machine, root, layer, &request, &image)?, request, directory, image })
}

/// Opens the layer of the machine `name`, which has ended. No start uses it as long as this process has it open.
pub(super) fn open_layer(name: &str, files: &KeptMachine) -> Result<File, Failure> {
    let layer = open_file(&files.layer())?;
    // A machine locks its disks.
    if fcntl_lock(&layer, FlockOperation::NonBlockingLockShared).is_err() {
        let error = format!("{name}: its layer is in use by another process");
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    Ok(layer)
}

/// Copies the layer of a machine that runs, at one moment, to the empty file `layer`.
pub(super) fn copy_layer(machine: &MachineInfo, layer: &File, pauses: bool) -> Result<LayerReport, Failure> {
    let error = |error| of_machine(machine, EndReason::HostError, error);
    let mut client = Client::connect(&machine.path).map_err(error)?;
    client.request_with_files("/v1/layer", &Layer { pause: pauses }, &[layer.as_fd()]).map_err(error)
}

fn open_running(
    base: &Path,
    machine: &MachineInfo,
    directories: &Directories,
    pauses: bool,
) -> Result<MachineFiles, Failure> {
    let name = &machine.name;
    let kept = KeptMachines::of(base, directories).ok().filter(|kept| kept.contains(name));
    // Beside the layer, so that the copy can share its blocks.
    let place = kept.as_ref().map_or_else(|| directories.large_temporary(), |kept| kept.path(name));
    let made = tmpfile(&place).cannot(format!("make a copy of the layer in {}", place.display()));
    let layer = made.fails_as(EndReason::HostError)?;
    let LayerReport { request, directory, image } = copy_layer(machine, &layer, pauses)?;
    let document = serde_json::to_vec(&request).fails_as(EndReason::InternalError)?;
    let request = Request::parse(&document, &machine.path).fails_as(EndReason::InternalError)?;
    let root = match kept {
        Some(kept) => root_disk::open_kept(&kept.open(name))?,
        // An earlier coracle runs it, whose cache this one does not read.
        None if image.chain_id.is_empty() => return Err(of_machine(machine, EndReason::HostError, NoRootDiskError)),
        None => {
            let cache = directories.cache().fails_as(EndReason::HostError)?;
            root_disk::raise_descriptor_limit();
            let found = oci_image::find_root_disk(&cache, format(&image), &image.chain_id, &image.root_disk_digest);
            let found = found.map_err(|source| of_machine(machine, EndReason::HostError, source))?;
            found.ok_or_else(|| of_machine(machine, EndReason::HostError, NoRootDiskError))?
        }
    };
    Ok(MachineFiles { tree: tree(machine, root, layer, &request, &image)?, request, directory, image })
}

fn open_file(path: &Path) -> Result<File, Failure> {
    File::open(path).cannot(format!("open {}", path.display())).fails_as(EndReason::HostError)
}

fn format(image: &KeptImage) -> RootFormat {
    match image.format {
        RootFormatChoice::Squashfs => RootFormat::Squashfs,
        RootFormatChoice::Erofs | RootFormatChoice::Auto => RootFormat::Erofs,
    }
}

fn tree(
    machine: &MachineInfo,
    root: RootDisk,
    layer: File,
    request: &Request,
    image: &KeptImage,
) -> Result<MachineTree, Failure> {
    MachineTree::open(root, format(image), layer, request.system).map_err(|error| failed(machine, error))
}

/// A failure that names the machine.
pub(crate) fn failed(machine: &MachineInfo, source: TreeError) -> Failure {
    let reason = if source.is_host() { EndReason::HostError } else { EndReason::ImageError };
    of_machine(machine, reason, source)
}

/// A failure that names the machine.
pub(super) fn of_machine(
    machine: &MachineInfo,
    reason: EndReason,
    source: impl Error + Send + Sync + 'static,
) -> Failure {
    Failure::new(reason, FilesError { name: machine.name.clone(), source: Box::new(source) })
}
