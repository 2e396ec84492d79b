// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which template a run starts from, if from any: the one of its image, else the one of its shape. `template_maker.rs` makes them. Runs
//! on the thread `prepare`.

use super::failure::{FailsAs as _, Failure};
use super::root_disk;
use super::template_maker::{ImageFiles, Order, own};
use super::workload::expected_program;
use crate::config::disk::SCRATCH_SERIAL;
use crate::config::request::Request;
use crate::config::rfc3339;
use crate::config::size::Scratch;
use crate::config::template_use::TemplateUse;
use crate::host::directories::Directories;
use crate::host::system_error::{Cannot as _, chain};
use crate::host::{background_process, scratch};
use crate::machine::MachineConfig;
use crate::machine::snapshot::Restore;
use crate::machine::template::{self, ImageShape, OpenError, OpenTemplate, Shape};
use crate::state::end::EndReason;
use crate::state::kept::KeptImage;
use crate::state::templates::Templates;
use devices::virtio::block::BlockConfig;
use guest_protocol::identity::TemplateStart;
use guest_protocol::run_spec::{Root, Upper};
use kvm::KvmHost;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeWriter, Write as _};
use std::process::{Command, Stdio};

/// The words that make this program a maker.
const MAKER: [&str; 2] = ["template", "make"];

/// What a machine starts from.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// The template, and what the machine has of its own.
    pub(super) template: Option<(Restore, TemplateStart)>,
    /// What the scratch disk has, if the template has mounted it.
    pub(super) scratch: Option<File>,
    /// The template, if the machine may start without it.
    pub(super) removable: Option<RemovableTemplate>,
    /// A process that makes a template once this is dropped.
    pub(super) maker: Option<PipeWriter>,
}

/// The machine of a run, complete but for its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewMachine<'a> {
    pub(super) request: &'a Request,
    pub(super) directories: &'a Directories,
    pub(super) host: &'a KvmHost,
    pub(super) config: &'a MachineConfig,
    pub(super) has_modules: bool,
    /// What the root disk is made from.
    pub(super) image: Option<&'a KeptImage>,
    /// Of the run specification.
    pub(super) root: &'a Root,
}

/// A template that is given up if it turns out to be unusable.
#[derive(Debug)]
pub(super) struct RemovableTemplate {
    templates: Templates,
    key: String,
    /// A scratch disk that has the contents of the template's.
    pub(super) scratch: Option<File>,
}

impl RemovableTemplate {
    /// The scratch disk becomes a new one.
    pub(super) fn remove(&self, directories: &Directories) -> Result<(), Failure> {
        // Another process may have done so.
        let _ = self.templates.remove(&self.key);
        self.scratch.iter().try_for_each(|disk| scratch::fill(disk, directories)).fails_as(EndReason::HostError)
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

impl Start {
    /// Decides about `machine`.
    pub(super) fn of(machine: NewMachine<'_>) -> Result<Self, Failure> {
        let wanted = machine.request.template.unwrap_or_default();
        let is_required = wanted == TemplateUse::Require;
        if wanted == TemplateUse::Never {
            return Ok(Self::default());
        }
        if let Some(obstacle) = machine.obstacle() {
            let error = RequireError::Obstacle(obstacle);
            return if is_required { Err(Failure::new(EndReason::ConfigError, error)) } else { Ok(Self::default()) };
        }
        match machine.try_start(is_required) {
            Err(failure) if !is_required => {
                log::warn!("no template: {}", failure.message());
                Ok(Self::default())
            }
            outcome => outcome,
        }
    }

    /// Gives the new scratch disk its contents.
    pub(super) fn fill_scratch(&mut self, disk: &File, directories: &Directories) -> Result<(), Failure> {
        let filled = match self.scratch.take() {
            None => scratch::fill(disk, directories),
            Some(saved) => scratch::copy_from(&saved, disk, directories),
        };
        filled.fails_as(EndReason::HostError)
    }
}

impl NewMachine<'_> {
    /// What a template does not have.
    fn obstacle(&self) -> Option<&'static str> {
        let Self { request, config, has_modules, .. } = *self;
        let obstacles = [
            (request.system, "--system"),
            (request.rootfs.is_some(), "--rootfs"),
            (!config.shares.is_empty(), "a directory of the host"),
            (config.vsock.is_some(), "--vsock"),
            // The kernel looks for partitions when it finds a disk.
            (!request.disk.is_empty(), "--disk"),
            (request.kernel.is_some(), "--kernel"),
            (request.modules.is_some() || has_modules, "kernel modules"),
            (request.init_binary.is_some(), "--init-binary"),
        ];
        obstacles.into_iter().find_map(|(applies, what)| applies.then_some(what))
    }

    fn try_start(&self, is_required: bool) -> Result<Start, Failure> {
        let templates = Templates::of(self.directories).fails_as(EndReason::HostError)?;
        let shape = Shape::of(self.config, self.host).fails_as(EndReason::HostError)?;
        let (image, files) = self.image()?.unzip();
        let best = Shape { image, ..shape.clone() };
        let order = Order {
            shape: best.clone(),
            kernel: self.config.kernel.path().to_owned(),
            sandbox: self.request.sandbox.unwrap_or_default(),
            waits: is_required,
            image: files,
        };
        if is_required {
            let key = best.key();
            if templates.path(&key).symlink_metadata().is_err() {
                make_now(&order)?;
            }
            let opened = template::open(&templates.path(&key), &best).map_err(RequireError::Open);
            let opened = opened.fails_as(EndReason::SnapshotError)?;
            templates.mark_used(&key);
            return self.start(opened, None);
        }
        let maker = || {
            if let Some(failure) = [&best, &shape].into_iter().find_map(|level| templates.failure(&level.key())) {
                let time = rfc3339::format(failure.time);
                log::info!("no template is made: it failed at {time}: {}", failure.reason);
                return Ok(None);
            }
            let maker = background_process::spawn(&MAKER.map(OsStr::new), &order.document()?);
            maker.cannot("start a process that makes one").fails_as(EndReason::HostError).map(Some)
        };
        let is_best = |level: &Shape| *level == best;
        let mut levels = vec![best.clone()];
        levels.extend(Some(shape.clone()).filter(|shape| !is_best(shape)));
        for level in &levels {
            let key = level.key();
            match template::open(&templates.path(&key), level) {
                Ok(opened) => {
                    templates.mark_used(&key);
                    let maker = if is_best(level) { None } else { maker()? };
                    let removable = RemovableTemplate { templates, key, scratch: None };
                    return Ok(Start { maker, ..self.start(opened, Some(removable))? });
                }
                Err(error) if templates.path(&key).symlink_metadata().is_ok() => {
                    log::warn!("the template is removed: {}", chain(&error));
                    // Another process may have done so.
                    let _ = templates.remove(&key);
                }
                Err(_) => {}
            }
        }
        Ok(Start { maker: maker()?, ..Start::default() })
    }

    /// The image, unless the root is one that only this machine has.
    fn image(&self) -> Result<Option<(ImageShape, ImageFiles)>, Failure> {
        let (Some(image), Some(disk), false) = (self.image, self.config.disks.first(), self.request.keep_etc) else {
            return Ok(None);
        };
        let scratch_bytes = match (&self.root.upper, self.request.scratch()) {
            (Upper::Disk(_), Scratch::Disk(bytes)) => Some(bytes),
            (Upper::None | Upper::Tmpfs, _) => None,
            _ => return Ok(None),
        };
        let files = ImageFiles {
            root_disk: root_disk::identify(disk)?,
            expected: expected_program(&image.config),
            name: self.request.image.clone(),
        };
        let root_disk = image.root_disk_digest.clone();
        Ok(Some((ImageShape { root_disk, root: self.root.clone(), scratch_bytes }, files)))
    }

    fn start(&self, opened: OpenTemplate, removable: Option<RemovableTemplate>) -> Result<Start, Failure> {
        let OpenTemplate { restore, scratch } = opened;
        let own = own(self.config, self.config.nets.iter().map(|net| net.mac).collect())?;
        let disk = scratch.as_ref().and_then(|_| scratch_disk(self.config));
        let disk = disk.map(|disk| disk.file.try_clone()).transpose();
        let disk = disk.cannot("open the scratch disk again").fails_as(EndReason::HostError)?;
        let removable = removable.map(|removable| RemovableTemplate { scratch: disk, ..removable });
        Ok(Start { template: Some((restore, own)), scratch, removable, maker: None })
    }
}

/// The disk that takes the writes.
pub(super) fn scratch_disk(config: &MachineConfig) -> Option<&BlockConfig> {
    config.disks.iter().find(|disk| disk.serial == SCRATCH_SERIAL)
}

/// Makes a template in a process of its own, and waits for it.
fn make_now(order: &Order) -> Result<(), Failure> {
    let document = order.document()?;
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
