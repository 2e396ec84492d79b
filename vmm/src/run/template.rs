// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a run starts from a template, and the process that makes one. The first part runs on the thread `prepare`, the second on
//! `main` of the maker.

use super::failure::{FailsAs as _, Failure};
use super::modules;
use super::prepare::read_init;
use super::progress::ProgressLine;
use crate::config::request::{Request, SandboxMode};
use crate::config::template_use::TemplateUse;
use crate::host::background_process;
use crate::host::directories::Directories;
use crate::host::random::random_bytes;
use crate::host::system_error::{Cannot as _, chain};
use crate::machine::snapshot::Restore;
use crate::machine::template::{self, MEMORY_FILE, OpenError, STATE_FILE, Shape, TemplateDocument};
use crate::machine::{self, MachineConfig};
use crate::sandbox::{Confinement, Needs, Sandbox};
use crate::state::end::EndReason;
use crate::state::templates::{Begun, MAX_BYTES, TemplateError, Templates};
use boot::{Kernel, KernelCache};
use guest_protocol::identity::{ENTROPY_BYTES, TemplateStart};
use kvm::KvmHost;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::{PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The words that make this program a maker.
const MAKER: [&str; 2] = ["template", "make"];
const SECTOR_BYTES: u64 = 512;

/// What a machine starts from.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// The template, and what the machine has of its own.
    pub(super) template: Option<(Restore, TemplateStart)>,
    /// The template, if the machine may start without it.
    pub(super) removable: Option<RemovableTemplate>,
    /// A process that makes the template once this is dropped.
    pub(super) maker: Option<PipeWriter>,
}

/// A template that is given up if it turns out to be unusable.
#[derive(Debug)]
pub(super) struct RemovableTemplate {
    templates: Templates,
    key: String,
}

impl RemovableTemplate {
    pub(super) fn remove(&self) {
        // Another process may have done so.
        let _ = self.templates.remove(&self.key);
    }
}

#[derive(Debug, thiserror::Error)]
enum RequireError {
    #[error("--template require: a machine with {0} cannot start from a template")]
    Obstacle(&'static str),
    #[error("--template require: the template cannot be made: {0}")]
    Make(String),
    #[error("--template require")]
    Open(#[source] OpenError),
}

/// What a maker makes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    shape: Shape,
    kernel: PathBuf,
    sandbox: SandboxMode,
    /// For another process that makes the same.
    waits: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("not the order of a template")]
    Order(#[source] serde_json::Error),
    #[error("the files of the template's machine have changed")]
    Changed,
}

/// Decides about the machine of `request` that is complete but for this.
pub(super) fn start(
    request: &Request,
    directories: &Directories,
    host: &KvmHost,
    machine: &MachineConfig,
    has_modules: bool,
) -> Result<Start, Failure> {
    let wanted = request.template.unwrap_or_default();
    let is_required = wanted == TemplateUse::Require;
    if wanted == TemplateUse::Never {
        return Ok(Start::default());
    }
    if let Some(obstacle) = obstacle(request, machine, has_modules) {
        let error = RequireError::Obstacle(obstacle);
        return if is_required { Err(Failure::new(EndReason::ConfigError, error)) } else { Ok(Start::default()) };
    }
    match try_start(request, directories, host, machine, is_required) {
        Err(failure) if !is_required => {
            log::warn!("no template: {}", failure.message());
            Ok(Start::default())
        }
        outcome => outcome,
    }
}

/// What a template does not have.
fn obstacle(request: &Request, machine: &MachineConfig, has_modules: bool) -> Option<&'static str> {
    let obstacles = [
        (request.system, "--system"),
        (request.rootfs.is_some(), "--rootfs"),
        (!machine.shares.is_empty(), "a directory of the host"),
        (machine.vsock.is_some(), "--vsock"),
        // The kernel looks for partitions when it finds a disk.
        (!request.disk.is_empty(), "--disk"),
        (request.kernel.is_some(), "--kernel"),
        (request.modules.is_some() || has_modules, "kernel modules"),
        (request.init_binary.is_some(), "--init-binary"),
        (request.profile.is_some(), "--profile"),
    ];
    obstacles.into_iter().find_map(|(applies, what)| applies.then_some(what))
}

fn try_start(
    request: &Request,
    directories: &Directories,
    host: &KvmHost,
    machine: &MachineConfig,
    is_required: bool,
) -> Result<Start, Failure> {
    let templates = Templates::of(directories).fails_as(EndReason::HostError)?;
    let shape = Shape::of(machine, host).fails_as(EndReason::HostError)?;
    let key = shape.key();
    let path = templates.path(&key);
    let order = || Order {
        shape: shape.clone(),
        kernel: machine.kernel.path().to_owned(),
        sandbox: request.sandbox.unwrap_or_default(),
        waits: is_required,
    };
    let is_missing = path.symlink_metadata().is_err();
    let restore = match template::open(&path, &shape) {
        Ok(restore) => restore,
        Err(_) if is_missing && is_required => {
            make_now(&order())?;
            template::open(&path, &shape).map_err(RequireError::Open).fails_as(EndReason::SnapshotError)?
        }
        Err(error) if is_required => {
            return Err(Failure::new(EndReason::SnapshotError, RequireError::Open(error)));
        }
        Err(error) => {
            if !is_missing {
                log::warn!("the template is removed: {}", chain(&error));
                // Another process may have done so.
                let _ = templates.remove(&key);
            }
            let document = serde_json::to_string(&order()).fails_as(EndReason::InternalError)?;
            let maker = background_process::spawn(&MAKER.map(OsStr::new), &document);
            let maker = maker.cannot("start a process that makes one").fails_as(EndReason::HostError)?;
            return Ok(Start { maker: Some(maker), ..Start::default() });
        }
    };
    templates.mark_used(&key);
    let removable = (!is_required).then_some(RemovableTemplate { templates, key });
    Ok(Start { template: Some((restore, own(machine)?)), removable, maker: None })
}

/// What `machine` has of its own.
fn own(machine: &MachineConfig) -> Result<TemplateStart, Failure> {
    let sectors = machine.disks.iter().map(|disk| {
        let metadata = disk.file.metadata().cannot(format!("examine {}", disk.path.display()))?;
        Ok::<_, crate::host::system_error::SystemError>(metadata.len() / SECTOR_BYTES)
    });
    Ok(TemplateStart {
        entropy: random_bytes::<ENTROPY_BYTES>().fails_as(EndReason::HostError)?.to_vec(),
        realtime_ns: 0,
        disk_sectors: sectors.collect::<Result<_, _>>().fails_as(EndReason::HostError)?,
        macs: machine.nets.iter().map(|net| net.mac).collect(),
    })
}

/// Makes a template in a process of its own, and waits for it.
fn make_now(order: &Order) -> Result<(), Failure> {
    let document = serde_json::to_string(order).fails_as(EndReason::InternalError)?;
    let run = || {
        let mut command = Command::new("/proc/self/exe");
        command.args(MAKER).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A process that does not read has failed, and printed why.
            let _ = stdin.write_all(document.as_bytes());
        }
        child.wait_with_output()
    };
    let output = run().cannot("start the process that makes a template").fails_as(EndReason::HostError)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().last().map(|line| line.trim_start_matches("coracle: ").to_owned());
    let error = RequireError::Make(line.unwrap_or_else(|| output.status.to_string()));
    Err(Failure::new(EndReason::SnapshotError, error))
}

/// Makes the template that `order`, a document, describes, unless it is there.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make(order: &[u8]) -> Result<(), Failure> {
    let order: Order = serde_json::from_slice(order).map_err(MakeError::Order).fails_as(EndReason::ConfigError)?;
    let directories = Directories::from_environment();
    let templates = Templates::of(&directories).fails_as(EndReason::HostError)?;
    let key = order.shape.key();
    let Begun::New(partial) = templates.begin(&key, order.waits).fails_as(EndReason::HostError)? else {
        return Ok(());
    };
    let host = KvmHost::open().fails_as(EndReason::HostError)?;
    let kernel = open_kernel(&order.kernel, &directories)?;
    kernel.check_fits(order.shape.memory_bytes).fails_as(EndReason::KernelError)?;
    let init = read_init(&Request::default(), &directories)?;
    let initramfs = modules::initramfs(&init, &[]).fails_as(EndReason::HostError)?;
    let blank = order.shape.blank(kernel, initramfs).cannot("make empty disks").fails_as(EndReason::HostError)?;
    let (config, _input) = blank;
    if Shape::of(&config, &host).fails_as(EndReason::HostError)? != order.shape {
        return Err(Failure::new(EndReason::HostError, MakeError::Changed));
    }
    let sandbox = Arc::new(Sandbox::new(order.sandbox).fails_as(EndReason::SandboxError)?);
    let confinement = Arc::new(Confinement { sandbox, needs: Needs::default() });
    let file = |name| partial.file(name).fails_as(EndReason::HostError);
    let (state, memory) = (file(STATE_FILE)?, file(MEMORY_FILE)?);
    let machine = machine::build(&host, config).map_err(|error| Failure::new(error.reason(), error))?;
    let saved = machine.make_template(&confinement, &memory).fails_as(EndReason::SnapshotError)?;
    let document = TemplateDocument::new(order.shape, &memory, saved);
    let written = document.and_then(|document| document.write(&state));
    written.cannot("write the state of the template").fails_as(EndReason::HostError)?;
    publish(&templates, partial, &key).fails_as(EndReason::HostError)
}

fn publish(
    templates: &Templates,
    partial: crate::state::templates::PartialTemplate,
    key: &str,
) -> Result<(), TemplateError> {
    partial.publish()?;
    templates.remove_left()?;
    templates.bound(MAX_BYTES, key)
}

fn open_kernel(path: &Path, directories: &Directories) -> Result<Kernel, Failure> {
    let cache = KernelCache::new(directories.cache().ok().as_deref());
    let progress = ProgressLine::new();
    let show = |read, total| progress.show("unpacking the kernel", Some((read, total)));
    Kernel::open(path, &cache, &show).fails_as(EndReason::KernelError)
}
