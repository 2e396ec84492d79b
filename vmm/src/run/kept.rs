// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a run keeps its machine, and what it keeps: `--name` without `--rm` keeps an image's writable layer on a disk, until `rm`
//! or the next run with the name. `--id` keeps nothing.

use super::check::{self, run_directory_base};
use super::context::Inputs;
use super::failure::{FailsAs as _, Failure};
use super::prepare;
use super::progress::{self, ProgressLine};
use super::run_directory_failure;
use crate::config::disk::SCRATCH_SERIAL;
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::config::size::Scratch;
use crate::config::text_form::Given;
use crate::host::directories::Directories;
use crate::host::system_error::Cannot as _;
use crate::state::end::EndReason;
use crate::state::kept::{KeptError, KeptImage, KeptMachine, KeptMachines};
use crate::state::run_dir::{self, RunDirectory};
use crate::state::stages::Stages;
use devices::rate_limit::RateLimits;
use devices::virtio::block::BlockConfig;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// What a run keeps.
#[derive(Debug)]
pub(super) enum Keeping {
    /// Nothing; what an ended machine with the name had kept is removed.
    Nothing(Option<KeptMachines>),
    /// A new machine, in place of an ended one with the name.
    New(KeptMachines),
    /// One that was kept is started again.
    Kept(KeptMachines, Box<KeptImage>),
}

/// A machine that is kept, and what its document will hold if it is new.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) machine: KeptMachine,
    new: Option<KeptImage>,
}

/// The option that keeps a machine from being kept.
#[derive(Debug, thiserror::Error)]
enum NotKeptError {
    #[error("{0}: a machine that is made to be started later keeps its writable layer on a disk")]
    Option(&'static str),
    #[error("no image is given")]
    NoImage,
}

/// Which machine [`Keeping::of`] is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A new one that runs at once.
    Run,
    /// A new one that is not started.
    Created,
    /// One that is kept.
    Kept,
    /// A new one from a snapshot, which keeps nothing.
    Restored,
}

/// Whether a run of `request` keeps the machine.
fn is_kept(request: &Request, wanted: Wanted) -> bool {
    let has_name = request.name.as_ref().and_then(Given::get).is_some();
    has_name && wanted != Wanted::Restored && keeps_nothing(request).is_none()
}

/// The option because of which a run of `request` keeps nothing, with a name or without one.
fn keeps_nothing(request: &Request) -> Option<&'static str> {
    match request.scratch() {
        _ if request.rm => Some("--rm"),
        _ if request.rootfs.is_some() => Some("--rootfs"),
        Scratch::Disk(_) => None,
        _ if request.scratch.is_none() => Some("--read-only"),
        _ => Some("--scratch"),
    }
}

impl Keeping {
    /// What a run of `request` as the machine `name` below `base` keeps.
    ///
    /// # Errors
    /// The name belongs to a machine that has never run, or, for one that is not started, to any that is kept; none is kept.
    pub(super) fn of(
        request: &Request,
        name: &MachineName,
        base: &Path,
        directories: &Directories,
        wanted: Wanted,
    ) -> Result<Self, Failure> {
        let machines = match KeptMachines::of(base, directories) {
            Err(_) if !is_kept(request, wanted) && matches!(wanted, Wanted::Run | Wanted::Restored) => {
                return Ok(Self::Nothing(None));
            }
            machines => machines.fails_as(EndReason::HostError)?,
        };
        match wanted {
            Wanted::Kept => {
                let document = machines.read(name.as_str()).map_err(failure)?;
                return Ok(Self::Kept(machines, document.image.into()));
            }
            Wanted::Created => machines.require_free(name.as_str()).map_err(failure)?,
            Wanted::Run | Wanted::Restored => machines.require_ended(name.as_str()).map_err(failure)?,
        }
        Ok(if is_kept(request, wanted) { Self::New(machines) } else { Self::Nothing(Some(machines)) })
    }

    /// Makes the layer, or opens the one that is kept. A new machine takes the place of an ended one here, when all else that it is
    /// built from is there.
    pub(super) fn take(
        &self,
        name: &MachineName,
        request: &Request,
        root_disk: Option<&BlockConfig>,
        image: Option<KeptImage>,
    ) -> Result<Option<Kept>, Failure> {
        match (self, root_disk.zip(image), request.scratch()) {
            (Self::Nothing(Some(machines)), ..) => {
                machines.remove(name.as_str()).map_err(failure)?;
                Ok(None)
            }
            (Self::New(machines), Some((root_disk, image)), Scratch::Disk(size)) => {
                let machine = machines.make(name, root_disk.files().map(|(file, _)| file), size).map_err(failure)?;
                Ok(Some(Kept { machine, new: Some(image) }))
            }
            (Self::Kept(machines, _), ..) => Ok(Some(Kept { machine: machines.open(name.as_str()), new: None })),
            _ => Ok(None),
        }
    }
}

impl Kept {
    pub(super) fn layer(&self) -> Result<BlockConfig, Failure> {
        let path = self.machine.layer();
        let opened = File::options().read(true).write(true).open(&path);
        let file = opened.cannot(format!("open {}", path.display())).fails_as(EndReason::HostError)?;
        let (serial, limits) = (SCRATCH_SERIAL.to_owned(), RateLimits::default());
        Ok(BlockConfig { file, path, more: Vec::new(), read_only: false, scratch: false, serial, limits })
    }

    /// Takes the name, if the machine is new.
    pub(super) fn publish(&mut self, request: &Request, name: &MachineName) -> Result<(), Failure> {
        let Some(image) = self.new.take() else { return Ok(()) };
        self.machine.publish(lasting(request, name)?, image).map_err(failure)
    }
}

/// Whether no machine with the name is kept below `base`.
pub(super) fn require_free(name: &MachineName, base: &Path, directories: &Directories) -> Result<(), Failure> {
    // Without a home directory none is.
    KeptMachines::of(base, directories).map_or(Ok(()), |machines| machines.require_free(name.as_str()).map_err(failure))
}

/// `name` as `--name` takes it.
fn given(name: &MachineName) -> Result<Given<MachineName>, Failure> {
    name.as_str().parse().fails_as(EndReason::ConfigError)
}

/// `request` without what belongs to one run.
fn lasting(request: &Request, name: &MachineName) -> Result<Request, Failure> {
    Ok(Request {
        name: Some(given(name)?),
        id: None,
        cidfile: None,
        result: None,
        events: None,
        timings: false,
        profile: None,
        ..request.clone()
    })
}

fn failure(error: KeptError) -> Failure {
    let reason = match error {
        KeptError::Taken(_) | KeptError::Created(_) | KeptError::Missing(_) => EndReason::ConfigError,
        _ => EndReason::HostError,
    };
    Failure::new(reason, error)
}

/// Makes the machine of `request` without starting it, and returns its name.
pub(crate) fn create(request: &Request, stages: Stages) -> Result<MachineName, Failure> {
    let name = request.given_name().cloned().map_or_else(MachineName::random, Ok).fails_as(EndReason::HostError)?;
    if let Some(option) = keeps_nothing(request) {
        return Err(Failure::new(EndReason::ConfigError, NotKeptError::Option(option)));
    }
    let request = Request { name: Some(given(&name)?), id: None, ..request.clone() };
    let (directories, progress) = (Directories::from_environment(), ProgressLine::new());
    let inputs = Inputs::read(&request)?;
    let base = run_directory_base(&request, &directories);
    // As in a start: before the claim, and after it.
    if !run_dir::is_locked(&base.join(name.as_str())).unwrap_or(false) {
        Keeping::of(&request, &name, &base, &directories, Wanted::Created)?;
    }
    let _claimed = RunDirectory::claim(&base, name.as_str(), false).map_err(run_directory_failure)?;
    let keeping = Keeping::of(&request, &name, &base, &directories, Wanted::Created)?;
    let sandbox = Arc::default();
    let preparation = check::preparation(&request, inputs, name.clone(), &directories, stages, sandbox)?;
    let root = preparation.resolve()?.root;
    let memory = prepare::memory(&request, &kvm::KvmHost::open().fails_as(EndReason::HostError));
    let kernel = prepare::open_kernel(&request, memory, &directories, &progress)?;
    let without_image = || Failure::new(EndReason::ConfigError, NotKeptError::NoImage);
    let (root_disk, image) = preparation.image(root, &kernel, &progress)?.ok_or_else(without_image)?;
    progress::end();
    let kept = keeping.take(&name, &request, Some(&root_disk), Some(image))?;
    let mut kept = kept.ok_or_else(without_image)?;
    kept.publish(&request, &name)?;
    kept.machine.confirm();
    if let Some(path) = &request.cidfile {
        let written = std::fs::write(path, name.as_str());
        written.map_err(super::report::file_error("--cidfile", path)).fails_as(EndReason::ConfigError)?;
    }
    Ok(name)
}
