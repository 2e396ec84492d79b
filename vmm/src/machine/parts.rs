// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine is made of: everything opened and checked, so that putting it together can only fail because of the
//! host. Plain data.

use super::console_log::ConsoleLog;
use boot::Kernel;
use devices::log_sink::LogSink;
use devices::virtio::block::BlockConfig;
use devices::virtio::net::NetConfig;
use kvm::Profile;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The parts of one machine.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Guest memory, bytes.
    pub(crate) memory_bytes: u64,
    /// Number of vCPUs.
    pub(crate) cpus: u8,
    /// The guest's kernel.
    pub(crate) kernel: Kernel,
    /// Initramfs with PID 1.
    pub(crate) initramfs: Vec<u8>,
    /// Words for the kernel's command line after ours (`--append`).
    pub(crate) append: String,
    /// Disks in the order in which the guest sees them.
    pub(crate) disks: Vec<BlockConfig>,
    /// Network devices in the order in which the guest sees them.
    pub(crate) nets: Vec<NetConfig>,
    /// The streams of the workload.
    pub(crate) streams: Streams,
    /// What the kernel says.
    pub(crate) console_log: Arc<ConsoleLog>,
    /// Where samples of the guest go.
    pub(crate) profile: Option<Arc<Profile>>,
}

/// The host's ends of the workload's streams. The terminal, if there is one, is both input and output.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Relayed to the workload; `None` if it reads nothing.
    pub(crate) input: Option<OwnedFd>,
    /// Takes the workload's standard output; `None` drops it.
    pub(crate) output: Option<StreamOutput>,
    /// Takes its standard error.
    pub(crate) error: Option<StreamOutput>,
}

/// Where a stream of the workload goes.
pub(crate) enum StreamOutput {
    /// Whatever this is; the workload waits when it takes no more.
    Descriptor(OwnedFd),
    /// A log, which takes everything at once.
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
