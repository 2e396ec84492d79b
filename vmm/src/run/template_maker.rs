// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that makes a template: what it is asked for, and the steps. The template of an image is made from the one of its shape,
//! which is made before if it is missing. Runs on `main` of the maker.

use super::failure::{FailsAs as _, Failure};
use super::modules;
use super::prepare::read_init;
use super::progress::ProgressLine;
use super::root_disk::{self, IdentifiedFiles};
use crate::config::disk::SCRATCH_SERIAL;
use crate::config::request::{Request, SandboxMode};
use crate::host::directories::Directories;
use crate::host::random::random_bytes;
use crate::host::scratch;
use crate::host::system_error::{Cannot as _, SystemError};
use crate::machine::snapshot::SavedMachine;
use crate::machine::template::{
    self, ImageShape, MEMORY_FILE, OpenTemplate, Preparation, SCRATCH_FILE, STATE_FILE, Shape, TemplateDocument,
    TemplateFiles,
};
use crate::machine::{self, MachineConfig};
use crate::sandbox::{Confinement, Needs, Sandbox};
use crate::state::end::EndReason;
use crate::state::template_failures::TemplateFailure;
use crate::state::templates::{Begun, MAX_BYTES, PartialTemplate, Templates};
use boot::{Kernel, KernelCache};
use guest_protocol::identity::{ENTROPY_BYTES, TemplateStart, template_mac};
use guest_protocol::run_spec::{ExpectedProgram, RootPreparation};
use kvm::KvmHost;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

const SECTOR_BYTES: u64 = 512;

/// What a maker makes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) shape: Shape,
    pub(super) kernel: PathBuf,
    pub(super) sandbox: SandboxMode,
    /// For another process that makes the same.
    pub(super) waits: bool,
    /// What the image of the shape is, if it has one.
    pub(super) image: Option<ImageFiles>,
}

/// An image, besides what decides about its template.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageFiles {
    /// It has the digest of the shape.
    pub(super) root_disk: IdentifiedFiles,
    pub(super) expected: Option<ExpectedProgram>,
    /// The user's name of the image.
    pub(super) name: Option<String>,
}

impl Order {
    /// As the maker reads it.
    pub(super) fn document(&self) -> Result<String, Failure> {
        serde_json::to_string(self).fails_as(EndReason::InternalError)
    }

    /// What the user calls the image of the template of `shape`.
    fn image_name(&self, shape: &Shape) -> Option<String> {
        self.image.as_ref().filter(|_| shape.image.is_some()).and_then(|image| image.name.clone())
    }

    /// Does `make`. How it fails is kept for the template of `shape`.
    fn remembering<T>(
        &self,
        templates: &Templates,
        shape: &Shape,
        make: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        make().inspect_err(|failure| {
            let known = TemplateFailure {
                key: shape.key(),
                time: SystemTime::now(),
                image: self.image_name(shape),
                is_of_image: shape.image.is_some(),
                reason: failure.message(),
            };
            // Without it the next start tries again.
            let _ = templates.set_failure(&known);
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("not the order of a template")]
    Order(#[source] serde_json::Error),
    #[error("the files of the template's machine have changed")]
    Changed,
}

/// Makes the template that `order`, a document, describes, unless it is there.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make(order: &[u8]) -> Result<(), Failure> {
    let order: Order = serde_json::from_slice(order).map_err(MakeError::Order).fails_as(EndReason::ConfigError)?;
    let directories = Directories::from_environment();
    let templates = Templates::of(&directories).fails_as(EndReason::HostError)?;
    order.remembering(&templates, &order.shape, || {
        let host = KvmHost::open().fails_as(EndReason::HostError)?;
        let sandbox = Arc::new(Sandbox::new(order.sandbox).fails_as(EndReason::SandboxError)?);
        let confinement = Arc::new(Confinement { sandbox, needs: Needs::default() });
        Maker { order: &order, directories, templates: &templates, host, confinement }.make()
    })
}

struct Maker<'a> {
    order: &'a Order,
    directories: Directories,
    templates: &'a Templates,
    host: KvmHost,
    confinement: Arc<Confinement>,
}

impl Maker<'_> {
    fn make(&self) -> Result<(), Failure> {
        let Order { shape, waits, .. } = self.order;
        let Begun::New(partial) = self.templates.begin(&shape.key(), *waits).fails_as(EndReason::HostError)? else {
            return Ok(());
        };
        let (Some(image), Some(files)) = (&shape.image, &self.order.image) else {
            return self.make_shape(shape, partial);
        };
        let base = shape.without_image();
        let opened = self.order.remembering(self.templates, &base, || self.open_shape(&base))?;
        self.make_image(image, files, &base, opened, partial)
    }

    /// Opens the template of `shape`. It is made if it is missing, and again if it is damaged.
    fn open_shape(&self, shape: &Shape) -> Result<OpenTemplate, Failure> {
        let mut is_new = self.make_missing(shape)?;
        loop {
            match template::open(&self.templates.path(&shape.key()), shape) {
                Err(_) if !is_new => {
                    self.templates.remove(&shape.key()).fails_as(EndReason::HostError)?;
                    is_new = self.make_missing(shape)?;
                }
                opened => return opened.fails_as(EndReason::SnapshotError),
            }
        }
    }

    /// Makes the template of `shape` unless it is there; waits where another process makes it. Returns whether this one made it.
    fn make_missing(&self, shape: &Shape) -> Result<bool, Failure> {
        match self.templates.begin(&shape.key(), true).fails_as(EndReason::HostError)? {
            Begun::New(partial) => self.make_shape(shape, partial).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Starts the guest's kernel.
    fn make_shape(&self, shape: &Shape, partial: PartialTemplate) -> Result<(), Failure> {
        let files = TemplateFiles { memory: self.file(&partial, MEMORY_FILE)?, scratch: None };
        let (config, _input) = self.blank(shape)?;
        let saved = self.run(config, None, &files)?;
        self.publish(shape, &files, saved, partial)
    }

    /// Starts from the template `opened`, of the shape `base`.
    fn make_image(
        &self,
        image: &ImageShape,
        ImageFiles { root_disk, expected, .. }: &ImageFiles,
        base: &Shape,
        opened: OpenTemplate,
        partial: PartialTemplate,
    ) -> Result<(), Failure> {
        let scratch = image.scratch_bytes.map(|_| self.file(&partial, SCRATCH_FILE)).transpose()?;
        let files = TemplateFiles { memory: self.file(&partial, MEMORY_FILE)?, scratch };
        let (mut config, _input) = self.blank(base)?;
        config.restore = Some(opened.restore);
        let changed = || Failure::new(EndReason::HostError, MakeError::Changed);
        let root = root_disk::open_identified(root_disk)?.ok_or_else(changed)?;
        let scratch = image.scratch_bytes.map(|bytes| scratch::create(bytes, &self.directories, SCRATCH_SERIAL));
        let disks = [Some(root), scratch.transpose().fails_as(EndReason::HostError)?];
        for (blank, disk) in config.disks.iter_mut().zip(disks.into_iter().flatten()) {
            *blank = disk;
        }
        let macs = (0..).zip(&config.nets).map(|(position, _)| template_mac(position)).collect();
        let own = own(&config, macs)?;
        let root = RootPreparation { root: image.root.clone(), expected: expected.clone() };
        let saved = self.run(config, Some(Preparation { own, root }), &files)?;
        self.publish(&self.order.shape, &files, saved, partial)
    }

    /// A machine of the shape that has nothing of its own. Its standard input ends with the returned value.
    fn blank(&self, shape: &Shape) -> Result<(MachineConfig, Option<PipeWriter>), Failure> {
        let kernel = open_kernel(&self.order.kernel, &self.directories)?;
        kernel.check_fits(shape.memory_bytes).fails_as(EndReason::KernelError)?;
        let init = read_init(&Request::default(), &self.directories)?;
        let initramfs = modules::initramfs(&init, &[]).fails_as(EndReason::HostError)?;
        let (config, input) =
            shape.blank(kernel, initramfs).cannot("make empty disks").fails_as(EndReason::HostError)?;
        if Shape::of(&config, &self.host).fails_as(EndReason::HostError)? != *shape {
            return Err(Failure::new(EndReason::HostError, MakeError::Changed));
        }
        Ok((config, input))
    }

    fn run(
        &self,
        config: MachineConfig,
        preparation: Option<Preparation>,
        files: &TemplateFiles,
    ) -> Result<SavedMachine, Failure> {
        let machine = machine::build(&self.host, config).map_err(|error| Failure::new(error.reason(), error))?;
        machine.make_template(&self.confinement, preparation, files).fails_as(EndReason::SnapshotError)
    }

    fn file(&self, partial: &PartialTemplate, name: &str) -> Result<File, Failure> {
        partial.file(name).fails_as(EndReason::HostError)
    }

    fn publish(
        &self,
        shape: &Shape,
        files: &TemplateFiles,
        saved: SavedMachine,
        partial: PartialTemplate,
    ) -> Result<(), Failure> {
        let state = self.file(&partial, STATE_FILE)?;
        let document = TemplateDocument::new(shape.clone(), self.order.image_name(shape), files, saved);
        let written = document.and_then(|document| document.write(&state));
        written.cannot("write the state of the template").fails_as(EndReason::HostError)?;
        let publish = || {
            partial.publish()?;
            self.templates.forget_failure(&shape.key())?;
            self.templates.remove_left()?;
            self.templates.bound(MAX_BYTES, &shape.key())
        };
        publish().fails_as(EndReason::HostError)
    }
}

/// What a machine has of its own that starts from a template, but for the time.
pub(super) fn own(machine: &MachineConfig, macs: Vec<[u8; 6]>) -> Result<TemplateStart, Failure> {
    let sectors = machine.disks.iter().map(|disk| {
        let sectors = disk.files().map(|(file, path)| {
            let metadata = file.metadata().cannot(format!("examine {}", path.display()))?;
            Ok::<_, SystemError>(metadata.len() / SECTOR_BYTES)
        });
        sectors.sum::<Result<u64, _>>()
    });
    Ok(TemplateStart {
        entropy: random_bytes::<ENTROPY_BYTES>().fails_as(EndReason::HostError)?.to_vec(),
        realtime_ns: 0,
        disk_sectors: sectors.collect::<Result<_, _>>().fails_as(EndReason::HostError)?,
        macs,
    })
}

fn open_kernel(path: &Path, directories: &Directories) -> Result<Kernel, Failure> {
    let cache = KernelCache::new(directories.cache().ok().as_deref());
    let progress = ProgressLine::new();
    let show = |read, total| progress.show("unpacking the kernel", Some((read, total)));
    Kernel::open(path, &cache, &show).fails_as(EndReason::KernelError)
}
