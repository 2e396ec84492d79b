// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What decides about the state in which PID 1 waits for its run specification: two machines of the same shape differ in nothing before
//! it. With an image the root is mounted, too. Runs on the thread `prepare`.

use super::super::config::{MachineConfig, Streams};
use super::super::console_log::ConsoleLog;
use crate::config::disk::{ROOT_SERIAL, SCRATCH_SERIAL};
use crate::host::hex::hex;
use crate::host::system_error::{Cannot as _, SystemError};
use boot::{Kernel, file_identity};
use devices::rate_limit::RateLimits;
use devices::virtio::block::BlockConfig;
use devices::virtio::net::{Backend, NetConfig};
use guest_protocol::identity::template_mac;
use guest_protocol::run_spec::Root;
use kvm::{HostError, KvmHost, VmError};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, PipeWriter};
use std::path::Path;
use std::sync::Arc;

/// A driver reports no change of a size from or to zero.
const BLANK_DISK_BYTES: u64 = 1 << 20;
/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 24;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Kvm(#[from] VmError),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// The shape of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    /// Version and file of the coracle that runs it.
    pub(crate) coracle: String,
    /// Kind of KVM, the host's kernel, and a digest of the vCPU's CPUID.
    pub(crate) host: String,
    /// Path and file of the guest's kernel.
    pub(crate) kernel: String,
    /// Digest of PID 1.
    pub(crate) initramfs: String,
    /// Of the kernel's command line; the rest of it follows from the other members.
    pub(crate) append: String,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u8,
    /// The workload has a standard input.
    pub(crate) input: bool,
    pub(crate) nets: Vec<NetShape>,
    pub(crate) disks: Vec<DiskShape>,
    /// The root that is mounted; `None` if none is.
    pub(crate) image: Option<ImageShape>,
}

/// A root that is mounted, and the disks of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageShape {
    /// Digest of the root disk.
    pub(crate) root_disk: String,
    /// As in the run specification.
    pub(crate) root: Root,
    /// Size of the scratch disk, if there is one.
    pub(crate) scratch_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetShape {
    /// Those that depend on the backend.
    features: u64,
    queues: usize,
    mtu: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskShape {
    read_only: bool,
}

impl Shape {
    /// Whether a machine on this host can have it, as far as that is known without a request.
    #[must_use]
    pub(crate) fn is_current(&self) -> bool {
        let host = || Ok::<_, ShapeError>(host_identity(&KvmHost::open().map_err(ShapeError::Host)?)?);
        let kernel = self.kernel.rsplit_once(' ').and_then(|(path, _)| kernel_identity(Path::new(path)).ok());
        coracle_identity().is_ok_and(|here| here == self.coracle)
            && kernel.is_some_and(|here| here == self.kernel)
            && host().is_ok_and(|here| here == self.host)
    }

    /// The shape of the machine that `config` describes, on this host.
    ///
    /// # Errors
    /// A file cannot be examined.
    pub(crate) fn of(config: &MachineConfig, host: &KvmHost) -> Result<Self, ShapeError> {
        let net =
            |net: &NetConfig| NetShape { features: net.backend.features(), queues: net.backend.queues(), mtu: net.mtu };
        Ok(Self {
            coracle: coracle_identity()?,
            host: host_identity(host)?,
            kernel: kernel_identity(config.kernel.path())?,
            initramfs: hex(&Sha256::digest(&config.initramfs)),
            append: config.append.clone(),
            memory_bytes: config.memory_bytes,
            cpus: config.cpus,
            input: config.streams.input.is_some(),
            nets: config.nets.iter().map(net).collect(),
            disks: config.disks.iter().map(|disk| DiskShape { read_only: disk.read_only }).collect(),
            image: None,
        })
    }

    /// The same before a root is mounted.
    #[must_use]
    pub(crate) fn without_image(&self) -> Self {
        Self { image: None, ..self.clone() }
    }

    /// Name of its template.
    #[must_use]
    pub(crate) fn key(&self) -> String {
        let text = serde_json::to_vec(self).expect("keys are strings, and numbers are finite");
        let mut key = hex(&Sha256::digest(text));
        key.truncate(KEY_DIGITS);
        key
    }

    /// A machine of this shape that has nothing of its own: empty disks, interfaces without another end. Standard input ends with the
    /// returned value.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub(crate) fn blank(&self, kernel: Kernel, initramfs: Vec<u8>) -> io::Result<(MachineConfig, Option<PipeWriter>)> {
        let (input, writer) = if self.input { Some(io::pipe()?).unzip() } else { (None, None) };
        let disk = |(index, shape): (usize, &DiskShape)| {
            let file = File::from(memfd_create("blank disk", MemfdFlags::CLOEXEC)?);
            file.set_len(BLANK_DISK_BYTES)?;
            let serial = match index {
                0 => ROOT_SERIAL.to_owned(),
                1 => SCRATCH_SERIAL.to_owned(),
                index => format!("disk-{index}"),
            };
            let (path, limits) = ("blank disk".into(), RateLimits::default());
            Ok(BlockConfig { file, path, more: Vec::new(), read_only: shape.read_only, scratch: true, serial, limits })
        };
        let net = |(position, shape): (u8, &NetShape)| NetConfig {
            name: format!("eth{position}"),
            backend: Backend::Absent { features: shape.features, queues: shape.queues },
            internal_host: None,
            mac: template_mac(position),
            mtu: shape.mtu,
            limits: RateLimits::default(),
        };
        let config = MachineConfig {
            memory_bytes: self.memory_bytes,
            cpus: self.cpus,
            kernel,
            initramfs,
            append: self.append.clone(),
            disks: self.disks.iter().enumerate().map(disk).collect::<io::Result<_>>()?,
            nets: (0..).zip(&self.nets).map(net).collect(),
            vsock: None,
            shares: Vec::new(),
            streams: Streams { input: input.map(Into::into), output: None, error: None },
            console_log: Arc::new(ConsoleLog::new(None)),
            profile: None,
            restore: None,
            starts_without_state: false,
        };
        Ok((config, writer))
    }
}

fn coracle_identity() -> Result<String, SystemError> {
    Ok(format!("{} {}", env!("CARGO_PKG_VERSION"), identity(Path::new("/proc/self/exe"))?))
}

fn host_identity(host: &KvmHost) -> Result<String, VmError> {
    let cpuid = hex(&Sha256::digest(kvm::cpu_identity(host)?));
    let system = rustix::system::uname();
    Ok(format!("{} {} {cpuid}", host.kind().name(), system.release().to_string_lossy()))
}

fn kernel_identity(path: &Path) -> Result<String, SystemError> {
    Ok(format!("{} {}", path.display(), identity(path)?))
}

fn identity(path: &Path) -> Result<String, SystemError> {
    let metadata = fs::metadata(path).cannot(format!("examine {}", path.display()))?;
    Ok(file_identity(&metadata))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn shape() -> Shape {
        Shape {
            coracle: "1".into(),
            host: "native 6.1 00".into(),
            kernel: "/vmlinux 1".into(),
            initramfs: "00".into(),
            append: String::new(),
            memory_bytes: 64 << 20,
            cpus: 1,
            input: false,
            nets: vec![NetShape { features: 0, queues: 1, mtu: None }],
            disks: vec![DiskShape { read_only: true }, DiskShape { read_only: false }],
            image: None,
        }
    }

    pub(in super::super) fn image_shape() -> Shape {
        let root = Root { disk_serial: "root".into(), ..Root::default() };
        Shape {
            image: Some(ImageShape { root_disk: "sha256:00".into(), root, scratch_bytes: Some(1 << 24) }),
            ..shape()
        }
    }

    #[test]
    fn key_changes_with_every_member() {
        let base = shape();
        let changed = |change: &dyn Fn(&mut Shape)| {
            let mut shape = base.clone();
            change(&mut shape);
            shape.key()
        };
        let changed_image = |change: &dyn Fn(&mut ImageShape)| {
            let mut shape = image_shape();
            shape.image.as_mut().map(change);
            shape.key()
        };
        let text = |text: &str| text.to_owned();
        let keys = [
            image_shape().key(),
            changed_image(&|image| image.root_disk = text("sha256:01")),
            changed_image(&|image| image.root.read_only = true),
            changed_image(&|image| image.scratch_bytes = None),
            base.key(),
            changed(&|shape| shape.coracle = text("2")),
            changed(&|shape| shape.host = text("software 6.1 00")),
            changed(&|shape| shape.kernel = text("/vmlinux 2")),
            changed(&|shape| shape.initramfs = text("01")),
            changed(&|shape| shape.append = text("quiet")),
            changed(&|shape| shape.memory_bytes *= 2),
            changed(&|shape| shape.cpus = 2),
            changed(&|shape| shape.input = true),
            changed(&|shape| shape.nets.clear()),
            changed(&|shape| shape.nets[0].features = 1),
            changed(&|shape| shape.nets[0].queues = 2),
            changed(&|shape| shape.nets[0].mtu = Some(1400)),
            changed(&|shape| shape.disks.truncate(1)),
            changed(&|shape| shape.disks[1].read_only = true),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert!(keys.iter().all(|key| key.len() == KEY_DIGITS));
        assert_eq!(base.key(), shape().key());
        assert_eq!(image_shape().without_image(), base);
    }
}
