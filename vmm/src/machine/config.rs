// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one input of [`build`](super::build()): every file is open and every value is checked, so that building can fail only
//! because of the host. Plain data.

use super::console_log::ConsoleLog;
use super::snapshot::Restore;
use boot::Kernel;
use devices::log_sink::LogSink;
use devices::virtio::block::BlockConfig;
use devices::virtio::fs::FsConfig;
use devices::virtio::net::NetConfig;
use devices::virtio::vsock::VsockConfig;
use kvm::Profile;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A resolved request as a machine.
#[derive(Debug)]
pub(crate) struct MachineConfig {
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u8,
    /// Fits into the memory.
    pub(crate) kernel: Kernel,
    /// PID 1 and the kernel modules that it loads.
    pub(crate) initramfs: Vec<u8>,
    /// Appended to the kernel command line (`--append`); checked.
    pub(crate) append: String,
    /// In the order in which the guest sees them: root disk, scratch disk, the user's. Not yet locked.
    pub(crate) disks: Vec<BlockConfig>,
    /// In the order in which the guest sees them.
    pub(crate) nets: Vec<NetConfig>,
    pub(crate) vsock: Option<VsockConfig>,
    /// Directories of the host.
    pub(crate) shares: Vec<FsConfig>,
    pub(crate) streams: Streams,
    /// Receives the guest kernel's messages.
    pub(crate) console_log: Arc<ConsoleLog>,
    /// Receives samples of the guest's call chains (`--profile`).
    pub(crate) profile: Option<Arc<Profile>>,
    /// In place of the kernel, which is in the memory.
    pub(crate) restore: Option<Restore>,
    /// The kernel starts if what is restored, a template, is rejected by KVM.
    pub(crate) starts_without_state: bool,
}

/// The host's ends of the workload's streams. A terminal is both input and output.
#[derive(Debug)]
pub(crate) struct Streams {
    /// `None` if the workload reads nothing.
    pub(crate) input: Option<OwnedFd>,
    /// `None` drops standard output.
    pub(crate) output: Option<StreamOutput>,
    /// `None` drops standard error.
    pub(crate) error: Option<StreamOutput>,
}

/// Where a stream of the workload goes.
pub(crate) enum StreamOutput {
    /// Any file; the workload waits while it takes no more.
    Descriptor(OwnedFd),
    /// A log, which never makes the workload wait.
    Log(Arc<dyn LogSink>),
}

impl fmt::Debug for StreamOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor(descriptor) => descriptor.fmt(f),
            Self::Log(_) => f.write_str("Log"),
        }
    }
}
