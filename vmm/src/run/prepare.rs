// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the request to a [`MachineConfig`]: the steps in order, those that are quick to fail first. Runs on the thread
//! `prepare`, so that a signal does not wait for an image's conversion.

use super::context::Inputs;
use super::failure::{FailsAs as _, Failure};
use super::kept::{Keeping, Kept};
use super::modules;
use super::progress::ProgressLine;
use super::resolve::{ResolvedRequest, RootSource};
use super::restore::Restoring;
use super::root_disk;
use super::run_spec::run_spec;
use super::shares;
use super::stored_image::{self, Located};
use super::template::{NewMachine, RemovableTemplate, Start, scratch_disk};
use super::volumes::{self, AttachedVolumes};
use super::workload::Workload;
use crate::config::disk::SCRATCH_SERIAL;
use crate::config::environment;
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::config::size::{LogSize, MemorySize, Scratch};
use crate::config::text_form::Given;
use crate::host::bounded_read;
use crate::host::directories::Directories;
use crate::host::file_digest::FileDigest;
use crate::host::listening_socket::{ListenError, ListeningSocket, SocketFile, check_listen_at, listen_at};
use crate::host::{installed, scratch};
use crate::machine::snapshot::SnapshotPlace;
use crate::machine::supervisor::Settings;
use crate::machine::{ConsoleLog, MachineConfig, StreamOutput, Streams};
use crate::network::{self, Attachment, Network};
use crate::sandbox::Sandbox;
use crate::state::end::EndReason;
use crate::state::kept::{KeptImage, KeptMachine};
use crate::state::logs::{LogNotifier, StreamLog};
use crate::state::published_port::PublishedPort;
use crate::state::result::Digests;
use crate::state::stages::{Stage, Stages};
use boot::{Kernel, KernelCache};
use devices::virtio::block::BlockConfig;
use devices::virtio::fs::FsConfig;
use devices::virtio::vsock::{HostSockets, VsockConfig};
use guest_protocol::run_spec::{RunSpec, Upper};
use kvm::{KvmHost, Profile};
use oci_image::{ImageConfig, Prepare, RootDisk, RootFormat};
use registry::InUse;
use std::fs::File;
use std::io::{Error, PipeWriter};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const MAX_INIT_BYTES: u64 = 64 << 20;

/// The request, and what the steps need besides.
#[derive(Debug)]
pub(super) struct Preparation {
    /// With what its context says.
    pub(super) request: Request,
    pub(super) inputs: Inputs,
    pub(super) id: MachineName,
    pub(super) directories: Directories,
    pub(super) stages: Stages,
    pub(super) streams: Streams,
    pub(super) console: File,
    pub(super) profile: Option<Arc<Profile>>,
    pub(super) sandbox: Arc<Sandbox>,
    /// Where a machine with a name is kept, and whether it is already.
    pub(super) keeping: Keeping,
    /// The snapshot that the machine is restored from.
    pub(super) restored: Option<SnapshotPlace>,
    /// The watchdog interval of the service manager.
    pub(super) watchdog: Option<Duration>,
    /// For `coracle check`: the machine will not run, and nothing that others see is made or removed.
    pub(super) is_check: bool,
}

/// Everything that a machine is built from and run with.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) machine: MachineConfig,
    pub(super) supervisor: Settings,
    /// The image's, for `ps`.
    pub(super) exposed_ports: Vec<String>,
    pub(super) published: Vec<PublishedPort>,
    /// Of the network. They end with the machine, and with this.
    pub(super) attachments: Vec<Attachment>,
    /// Keeps the image in the local store while the machine runs.
    pub(super) image_in_use: Option<InUse>,
    /// What outlives the machine.
    pub(super) kept: Option<Kept>,
    /// What the root disk is made from.
    pub(super) image: Option<KeptImage>,
    /// Of `--vsock`; removed when this is dropped.
    pub(super) socket_file: Option<SocketFile>,
    pub(super) host: KvmHost,
    pub(super) digests: Digests,
    /// `None` in a check, which shows no digest.
    pub(super) kernel_digest: Option<FileDigest>,
    pub(super) stages: Stages,
    /// Removed if KVM rejects it.
    pub(super) template: Option<RemovableTemplate>,
    /// A process that makes a template for later machines, once this is dropped.
    pub(super) maker: Option<PipeWriter>,
}

enum RootDevice {
    Disk(BlockConfig),
    Share(FsConfig),
}

#[derive(Debug, thiserror::Error)]
#[error("--vsock")]
struct VsockError(#[source] ListenError);

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("cannot read PID 1 from {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("PID 1 {path} has more than {} MiB", MAX_INIT_BYTES >> 20)]
    TooLarge { path: PathBuf },
}

/// A root and what runs from it.
struct Root {
    device: RootDevice,
    workload: Workload,
    /// The format of a disk that was made from an image.
    format: Option<RootFormat>,
    exposed_ports: Vec<String>,
    /// Paths of the image's `VOLUME`s.
    volumes: Vec<String>,
    digests: Digests,
    image_in_use: Option<InUse>,
    /// For the next start of a kept machine, and for those who read its files.
    image: Option<KeptImage>,
}

impl Preparation {
    /// All steps. `coracle check` takes the same ones apart (`check.rs`).
    pub(super) fn prepare(self, host: Result<KvmHost, Failure>) -> Result<Prepared, Failure> {
        let progress = ProgressLine::new();
        let resolved = self.resolve()?;
        let kernel = open_kernel(&self.request, memory(&self.request, &host), &self.directories, &progress)?;
        let init = read_init(&self.request, &self.directories)?;
        network::restore_left();
        self.assemble(resolved, kernel, &init, host?, &progress)
    }

    pub(super) fn resolve(&self) -> Result<ResolvedRequest, Failure> {
        Ok(ResolvedRequest::new(&self.request, &self.inputs.variables)?)
    }

    /// The steps that need what the earlier ones gave, from the image to the network.
    pub(super) fn assemble(
        mut self,
        resolved: ResolvedRequest,
        kernel: Kernel,
        init: &[u8],
        host: KvmHost,
        progress: &ProgressLine,
    ) -> Result<Prepared, Failure> {
        let cache = self.directories.cache().ok();
        let sandbox = Arc::clone(&self.sandbox);
        let confine = move |directory: Option<&Path>| sandbox.confine_digest(directory);
        let kernel_digest = (!self.is_check).then(|| FileDigest::begin(kernel.path(), cache.as_deref(), confine));
        let ResolvedRequest { root, disks: own_disks, shares, interfaces, terminal } = resolved;
        let (mut shares, share_mounts): (Vec<_>, _) =
            shares.into_iter().map(|share| (share.device, share.mount)).unzip();
        let restoring = self.restored.as_ref().map(Restoring::open).transpose()?;
        let saved = restoring.as_ref().map(|restoring| self.saved_root(restoring.image())).transpose()?.flatten();
        let Root { device, mut workload, format, exposed_ports, volumes, digests, image_in_use, image } =
            saved.map_or_else(|| self.root(root, &kernel, progress), Ok)?;
        workload.arguments = self.inputs.command(workload.arguments);
        self.stages.mark(Stage::ImageReady);
        if let Some(restoring) = &restoring {
            restoring.check_root_disk(&self.request, digests.root_disk.as_deref())?;
        }

        let request = &self.request;
        let (stop_signal, memory) = (workload.stop_signal, request.memory(Some(host.kind())));
        let network = network::connect(request, &self.id, interfaces, &exposed_ports, self.is_check);
        let network = network.fails_as(EndReason::NetworkError)?;
        let Network { devices: nets, guest: guest_network, published, attachments } = network;
        let (vsock, socket_file) = vsock(request, self.is_check)?.unzip();
        let volumes = volumes::attach(request, &volumes, &self.directories, !self.is_check);
        let AttachedVolumes { disks: volume_disks, mounts } = volumes.fails_as(EndReason::ConfigError)?;
        let spec = run_spec(request, guest_network, terminal, workload, &self.id, format, self.watchdog);
        let authorized_keys = self.inputs.authorized_keys();
        let mut spec = RunSpec { volumes: mounts, shares: share_mounts, authorized_keys, ..spec };
        let mut disks = Vec::new();
        let root_disk = match &device {
            RootDevice::Disk(disk) => Some(disk),
            RootDevice::Share(_) => None,
        };
        let kept = self.keeping.take(&self.id, request, root_disk, image.clone())?;
        match device {
            RootDevice::Disk(disk) => disks.push(disk),
            RootDevice::Share(share) => {
                spec.root.share = Some(share.tag.clone());
                spec.root.file_systems.clear();
                shares.push(share);
            }
        }
        if !shares.is_empty() {
            let closed = shares::own_directories(request, &self.directories);
            shares.iter_mut().for_each(|share| share.closed = Arc::clone(&closed));
        }
        if kept.is_some() {
            spec.root.upper = Upper::Kept(SCRATCH_SERIAL.to_owned());
        }
        let modules = modules::load(&kernel, &spec, vsock.is_some())?;
        if let Some(kept) = &kept {
            disks.push(kept.layer()?);
        } else if let (Scratch::Disk(_), Some(restoring)) = (request.scratch(), &restoring) {
            disks.push(restoring.scratch(&self.directories, SCRATCH_SERIAL)?);
        } else if let Scratch::Disk(size) = request.scratch() {
            disks.push(scratch::create_empty(size, &self.directories, SCRATCH_SERIAL).fails_as(EndReason::HostError)?);
        }
        disks.extend(volume_disks);
        disks.extend(own_disks);
        let parts = restoring.map(|restoring| restoring.into_parts(&spec)).transpose()?;
        let (restore, restored) = parts.unzip();
        let mut machine = MachineConfig {
            memory_bytes: memory.bytes(),
            cpus: request.cpus.unwrap_or_default().get(),
            kernel,
            initramfs: modules::initramfs(init, &modules).fails_as(EndReason::HostError)?,
            append: request.append.clone().unwrap_or_default(),
            disks,
            nets,
            vsock,
            shares,
            streams: self.streams,
            console_log: Arc::new(ConsoleLog::new(Some(self.console))),
            profile: self.profile,
            restore,
            starts_without_state: false,
        };
        let has_new_scratch = kept.is_none() && machine.restore.is_none();
        let is_new = machine.restore.is_none() && !self.is_check;
        let new = NewMachine {
            request,
            directories: &self.directories,
            host: &host,
            config: &machine,
            has_modules: !modules.is_empty(),
            image: image.as_ref(),
            root: &spec.root,
        };
        let mut start = is_new.then(|| Start::of(new)).transpose()?.unwrap_or_default();
        if let Some(disk) = scratch_disk(&machine).filter(|_| has_new_scratch) {
            start.fill_scratch(&disk.file, &self.directories)?;
        }
        let Start { template, removable, maker, .. } = start;
        let (template, own) = template.unzip();
        machine.starts_without_state = removable.is_some();
        if template.is_some() {
            self.stages.mark(Stage::TemplateOpened);
            machine.restore = template;
        }
        let supervisor = Settings {
            stop_signal: stop_signal.get(),
            stop_timeout: request.stop_timeout(),
            forwards_stops: request.forward_stops,
            timeout: request.timeout.map(|seconds| Duration::from_secs(seconds.into())),
            terminal: spec.terminal.is_some(),
            memory,
            spec,
            restored,
            template: own,
        };
        let stages = self.stages;
        Ok(Prepared {
            machine,
            supervisor,
            exposed_ports,
            published,
            attachments,
            image_in_use,
            kept,
            image,
            socket_file: socket_file.flatten(),
            host,
            digests,
            kernel_digest,
            stages,
            template: removable,
            maker,
        })
    }

    /// The root: the user's own, or the disk that is made from the image.
    fn root(&self, source: RootSource, kernel: &Kernel, progress: &ProgressLine) -> Result<Root, Failure> {
        let reference = match source {
            RootSource::Image(reference) => reference,
            RootSource::Disk(disk, workload) => return Ok(Root::of_user(RootDevice::Disk(disk), *workload)),
            RootSource::Directory(share, workload) => return Ok(Root::of_user(RootDevice::Share(share), *workload)),
        };
        if let Keeping::Kept(machines, image) = &self.keeping {
            return self.kept_root(&machines.open(self.id.as_str()), image);
        }
        let cache = self.directories.cache().fails_as(EndReason::HostError)?;
        let Located { reference, store: _in_use, image: image_in_use } =
            stored_image::locate(reference, &self.request, &self.directories, progress)?;
        let choice = self.request.root_format.unwrap_or_default();
        let format = choice.for_kernel(|name| kernel.has_file_system(name));
        root_disk::raise_descriptor_limit();
        let show = |step| progress.show_image(step);
        let prepared = oci_image::prepare(&Prepare {
            reference: &reference,
            cache: &cache,
            platform: self.request.platform(),
            format,
            progress: Some(&show),
        })
        .map_err(|error| Failure::new(EndReason::of_image(error.is_host()), error))?;
        let image = KeptImage {
            digest: prepared.image_digest,
            chain_id: prepared.chain_id,
            root_disk_digest: prepared.root_disk_digest,
            format: format.into(),
            config: prepared.config,
        };
        let root = self.image_root(prepared.root_disk, format, image)?;
        Ok(Root { image_in_use, ..root })
    }

    /// The root disk that is made from an image, and the image, for a machine that is not started yet. None if there is no
    /// image.
    pub(super) fn image(
        &self,
        source: RootSource,
        kernel: &Kernel,
        progress: &ProgressLine,
    ) -> Result<Option<(BlockConfig, KeptImage)>, Failure> {
        let root = self.root(source, kernel, progress)?;
        Ok(match root.device {
            RootDevice::Disk(disk) => root.image.map(|image| (disk, image)),
            RootDevice::Share(_) => None,
        })
    }

    /// The root disk that a kept machine was made from; its image's name may mean another one by now.
    fn kept_root(&self, machine: &KeptMachine, image: &KeptImage) -> Result<Root, Failure> {
        self.image_root(root_disk::open_kept(machine)?, image.format.for_kernel(|_| true), image.clone())
    }

    /// The root disk of a machine that was saved, if the cache still has it. Then the image may have been removed, and its name may mean
    /// another one.
    fn saved_root(&self, image: &KeptImage) -> Result<Option<Root>, Failure> {
        root_disk::raise_descriptor_limit();
        let cache = self.directories.cache().fails_as(EndReason::HostError)?;
        let format = image.format.for_kernel(|_| true);
        let found = oci_image::find_root_disk(&cache, format, &image.chain_id, &image.root_disk_digest);
        found.fails_as(EndReason::HostError)?.map(|disk| self.image_root(disk, format, image.clone())).transpose()
    }

    fn image_root(&self, disk: RootDisk, format: RootFormat, image: KeptImage) -> Result<Root, Failure> {
        let workload = Workload::decide(&image.config, &self.request, &self.inputs.variables, environment::host_value)
            .fails_as(EndReason::ConfigError)?;
        workload.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let digests = Digests {
            image: Some(image.digest.clone()),
            root_disk: Some(image.root_disk_digest.clone()),
            kernel: None,
        };
        let ImageConfig { exposed_ports, volumes, .. } = image.config.clone();
        let (device, format, image) = (RootDevice::Disk(root_disk::device(disk)), Some(format), Some(image));
        Ok(Root { device, workload, format, exposed_ports, volumes, digests, image_in_use: None, image })
    }
}

impl Root {
    /// The root that `--rootfs` names: there is no image.
    fn of_user(device: RootDevice, workload: Workload) -> Self {
        Self {
            device,
            workload,
            format: None,
            exposed_ports: Vec::new(),
            volumes: Vec::new(),
            digests: Digests::default(),
            image_in_use: None,
            image: None,
        }
    }
}

/// The size that counts on this host.
pub(super) fn memory(request: &Request, host: &Result<KvmHost, Failure>) -> MemorySize {
    request.memory(host.as_ref().ok().map(KvmHost::kind))
}

/// Finds and reads the guest's kernel, and checks it, its size against `memory` included.
pub(crate) fn open_kernel(
    request: &Request,
    memory: MemorySize,
    directories: &Directories,
    progress: &ProgressLine,
) -> Result<Kernel, Failure> {
    let path = installed::KERNEL.find(request.kernel.as_deref(), directories).fails_as(EndReason::KernelError)?;
    let cache = KernelCache::new(directories.cache().ok().as_deref());
    let show = |read, total| progress.show("unpacking the kernel", Some((read, total)));
    let mut kernel = Kernel::open(&path, &cache, &show).fails_as(EndReason::KernelError)?;
    kernel.check_fits(memory.bytes()).fails_as(EndReason::KernelError)?;
    modules::find(&mut kernel, request)?;
    Ok(kernel)
}

/// Finds and reads PID 1.
pub(crate) fn read_init(request: &Request, directories: &Directories) -> Result<Vec<u8>, Failure> {
    let path = installed::INIT.find(request.init_binary.as_deref(), directories).fails_as(EndReason::HostError)?;
    read_program(&path).fails_as(EndReason::HostError)
}

fn read_program(path: &Path) -> Result<Vec<u8>, InitError> {
    let read = |source| InitError::Read { path: path.to_owned(), source };
    let too_large = || InitError::TooLarge { path: path.to_owned() };
    bounded_read::read_file(path, MAX_INIT_BYTES).map_err(read)?.ok_or_else(too_large)
}

/// The host's end of `--vsock`.
fn vsock(request: &Request, is_check: bool) -> Result<Option<(VsockConfig, Option<SocketFile>)>, Failure> {
    let Some(vsock) = request.vsock.as_ref().and_then(Given::get) else { return Ok(None) };
    let listen = if is_check { check_listen_at } else { listen_at };
    let socket = listen(&vsock.path).map_err(VsockError).fails_as(EndReason::ConfigError)?;
    let ListeningSocket { listener, directory, name, file } = socket;
    Ok(Some((
        VsockConfig { guest_cid: vsock.cid, sockets: HostSockets { listener, directory, is_entered: false, name } },
        file,
    )))
}

/// The workload's streams: those of this process or, of a detached machine, its logs and an input that attached clients write to.
/// Opened by `main`.
#[derive(Debug)]
pub(super) struct WorkloadStreams {
    pub(super) streams: Streams,
    /// Attached clients' input, open as long as the machine runs.
    pub(super) input: Option<PipeWriter>,
    /// Notified when the logs grow.
    pub(super) log_notifier: Option<Arc<LogNotifier>>,
}

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("cannot duplicate a standard stream")]
    Duplicate(#[source] Error),
    #[error("cannot make the logs of a detached machine")]
    Logs(#[source] Error),
}

impl WorkloadStreams {
    /// The standard streams of this process; its input only if the workload is interactive.
    pub(super) fn inherit(interactive: bool) -> Result<Self, Failure> {
        let duplicate = |stream: BorrowedFd<'_>| -> Result<OwnedFd, Failure> {
            stream.try_clone_to_owned().map_err(StreamError::Duplicate).fails_as(EndReason::HostError)
        };
        let streams = Streams {
            input: if interactive { Some(duplicate(std::io::stdin().as_fd())?) } else { None },
            output: Some(StreamOutput::Descriptor(duplicate(std::io::stdout().as_fd())?)),
            error: Some(StreamOutput::Descriptor(duplicate(std::io::stderr().as_fd())?)),
        };
        Ok(Self { streams, input: None, log_notifier: None })
    }

    /// Logs in the run directory `entry`, each of at most `size`.
    pub(super) fn log(entry: &Path, size: Option<LogSize>, interactive: bool) -> Result<Self, Failure> {
        let open = || -> Result<Self, Error> {
            let log_notifier = Arc::new(LogNotifier::new()?);
            let [output, error] = StreamLog::create(entry, size.unwrap_or_default().bytes(), &log_notifier)?
                .map(|log| Some(StreamOutput::Log(log)));
            let (reader, input) = if interactive { Some(std::io::pipe()?).unzip() } else { (None, None) };
            let streams = Streams { input: reader.map(Into::into), output, error };
            Ok(Self { streams, input, log_notifier: Some(log_notifier) })
        };
        open().map_err(StreamError::Logs).fails_as(EndReason::HostError)
    }
}
