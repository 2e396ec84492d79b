// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that a machine is built from, found and opened: the steps between the request and the machine, in order.
//! What is quick to refuse comes first. Runs on the thread `prepare`, so that a signal need not wait for it.

use super::failure::{FailsAs as _, Failure};
use super::modules;
use super::progress::ProgressLine;
use crate::config::disk::{ROOT_SERIAL, SCRATCH_SERIAL};
use crate::config::environment::Variable;
use crate::config::name::MachineName;
use crate::config::plan::{Plan, RootSource};
use crate::config::request::{Request, Sandbox};
use crate::config::run_spec::run_spec;
use crate::config::size::Scratch;
use crate::config::workload::Workload;
use crate::config::{Ending, VmConfig};
use crate::host::directories::Directories;
use crate::host::file_digest::FileDigest;
use crate::host::{installed, scratch};
use crate::state::end::EndReason;
use crate::state::result::Digests;
use crate::state::stages::{Stage, Stages};
use boot::{Kernel, KernelCache};
use devices::virtio::block::BlockConfig;
use kvm::KvmHost;
use oci_image::{ImageReference, Platform, Prepare, RootFormat};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest program that is taken for PID 1.
const INIT_BYTES: u64 = 64 << 20;

/// What was asked for, and what the steps need besides.
#[derive(Debug)]
pub(crate) struct Preparation {
    pub(crate) request: Request,
    /// Variables of `--env-file`.
    pub(crate) files: Vec<Variable>,
    pub(crate) id: MachineName,
    pub(crate) folders: Directories,
    pub(crate) stages: Stages,
    /// After how long a service manager takes us for hung.
    pub(crate) watchdog: Option<Duration>,
}

/// What a machine is built from.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: VmConfig,
    pub(crate) host: KvmHost,
    pub(crate) digests: Digests,
    pub(crate) kernel_digest: FileDigest,
    pub(crate) stages: Stages,
}

/// PID 1 cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("cannot read PID 1 from {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("PID 1 {path} has more than {} MiB", INIT_BYTES >> 20)]
    Size { path: PathBuf },
}

/// A root disk and what runs in it.
struct Root {
    disk: BlockConfig,
    workload: Workload,
    /// Of a disk that was made from an image.
    format: Option<RootFormat>,
    digests: Digests,
}

impl Preparation {
    pub(crate) fn prepare(mut self) -> Result<Prepared, Failure> {
        let progress = ProgressLine::new();
        let request = &self.request;
        if request.sandbox == Some(Sandbox::Require) {
            let error = "--sandbox require: this version of coracle does not confine itself";
            return Err(Failure::new(EndReason::SandboxError, error));
        }
        let plan = Plan::new(request, &self.files).fails_as(EndReason::ConfigError)?;
        let kernel = open_kernel(request, &self.folders, &progress)?;
        let cache = self.folders.cache().ok();
        let kernel_digest = FileDigest::begin(kernel.path(), cache.as_deref());
        let init = read_init(request, &self.folders)?;
        let host = KvmHost::open().fails_as(EndReason::HostError)?;
        let Plan { root, disks: own_disks, interfaces, inside } = plan;
        let Root { disk, workload, format, digests } = self.root(root, &kernel, &progress)?;
        self.stages.mark(Stage::ImageReady);

        let request = &self.request;
        let stop_signal = workload.stop_signal;
        let run_spec = run_spec(request, inside, workload, &self.id, format, self.watchdog);
        let modules = modules::load(&kernel, &run_spec)?;
        let mut disks = vec![disk];
        if let Scratch::Disk(size) = request.scratch() {
            disks.push(scratch::create(size, &self.folders, SCRATCH_SERIAL).fails_as(EndReason::HostError)?);
        }
        disks.extend(own_disks);
        let config = VmConfig {
            memory_bytes: request.memory.unwrap_or_default().bytes(),
            cpus: request.cpus.unwrap_or_default().get(),
            kernel,
            modules,
            init,
            append: request.append.clone().unwrap_or_default(),
            disks,
            interfaces,
            run_spec,
            ending: Ending {
                stop_signal,
                stop_timeout: request.stop_timeout(),
                run_timeout: request.timeout.map(|seconds| Duration::from_secs(seconds.into())),
            },
        };
        Ok(Prepared { config, host, digests, kernel_digest, stages: self.stages })
    }

    /// The root disk: the user's own, or the one that the image becomes.
    fn root(&self, source: RootSource, kernel: &Kernel, progress: &ProgressLine) -> Result<Root, Failure> {
        let image = match source {
            RootSource::Image(image) => image,
            RootSource::Disk(disk, workload) => {
                return Ok(Root { disk, workload, format: None, digests: Digests::default() });
            }
        };
        let reference = ImageReference::parse(&image).fails_as(EndReason::ImageError)?;
        let cache = self.folders.cache().fails_as(EndReason::HostError)?;
        let choice = self.request.root_format.unwrap_or_default();
        let format = choice.for_kernel(|name| kernel.has_file_system(name));
        let hear = |step| progress.hear(step);
        let prepared = oci_image::prepare(&Prepare {
            reference: &reference,
            cache: &cache,
            platform: Platform::default(),
            format,
            progress: Some(&hear),
        })
        .map_err(|error| {
            let reason = if error.is_host() { EndReason::HostError } else { EndReason::ImageError };
            Failure::new(reason, error)
        })?;
        let host = |name: &str| std::env::var(name).ok();
        let workload =
            Workload::decide(&prepared.config, &self.request, &self.files, host).fails_as(EndReason::ConfigError)?;
        let disk = BlockConfig {
            file: prepared.root_disk_file,
            path: prepared.root_disk,
            read_only: true,
            scratch: false,
            serial: ROOT_SERIAL.to_owned(),
        };
        let digests =
            Digests { image: Some(prepared.image_digest), root_disk: Some(prepared.root_disk_digest), kernel: None };
        Ok(Root { disk, workload, format: Some(format), digests })
    }
}

/// Finds and checks the guest's kernel.
pub(crate) fn open_kernel(
    request: &Request,
    folders: &Directories,
    progress: &ProgressLine,
) -> Result<Kernel, Failure> {
    let path = installed::KERNEL.find(request.kernel.as_deref(), folders).fails_as(EndReason::KernelError)?;
    let cache = KernelCache::new(folders.cache().ok().as_deref());
    let unpacking = |read, all| progress.show("unpacking the kernel", Some((read, all)));
    let mut kernel = Kernel::open(&path, &cache, &unpacking).fails_as(EndReason::KernelError)?;
    kernel.check_fits(request.memory.unwrap_or_default().bytes()).fails_as(EndReason::KernelError)?;
    modules::find(&mut kernel, request)?;
    Ok(kernel)
}

/// Finds and reads PID 1.
pub(crate) fn read_init(request: &Request, folders: &Directories) -> Result<Vec<u8>, Failure> {
    let path = installed::INIT.find(request.init_binary.as_deref(), folders).fails_as(EndReason::HostError)?;
    read_program(&path).fails_as(EndReason::HostError)
}

fn read_program(path: &Path) -> Result<Vec<u8>, InitError> {
    let read = |source| InitError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(read)?.take(INIT_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > INIT_BYTES { Err(InitError::Size { path: path.to_owned() }) } else { Ok(bytes) }
}
