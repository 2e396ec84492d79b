// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine is made of: everything opened and checked, so that putting it together can only fail because of the
//! host. Plain data.

use super::console_log::ConsoleLog;
use crate::kvm::Profile;
use boot::Kernel;
use devices::log_sink::LogSink;
use devices::virtio::block::BlockConfig;
use devices::virtio::net::NetConfig;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The parts of one machine.
#[derive(Debug)]
pub struct Parts {
    /// Guest memory, bytes.
    pub memory_bytes: u64,
    /// Number of vCPUs.
    pub cpus: u8,
    /// The guest's kernel.
    pub kernel: Kernel,
    /// Initramfs with PID 1.
    pub initramfs: Vec<u8>,
    /// Words for the kernel's command line after ours (`--append`).
    pub append: String,
    /// Disks in the order in which the guest sees them.
    pub disks: Vec<BlockConfig>,
    /// Network devices in the order in which the guest sees them.
    pub nets: Vec<NetConfig>,
    /// The streams of the workload.
    pub streams: Streams,
    /// What the kernel says.
    pub console_log: Arc<ConsoleLog>,
    /// Where samples of the guest go.
    pub profile: Option<Arc<Profile>>,
}

/// The host's ends of the workload's streams. The terminal, if there is one, is both input and output.
#[derive(Debug)]
pub struct Streams {
    /// Relayed to the workload; `None` if it reads nothing.
    pub input: Option<OwnedFd>,
    /// Takes the workload's standard output; `None` drops it.
    pub output: Option<StreamOutput>,
    /// Takes its standard error.
    pub error: Option<StreamOutput>,
}

/// Where a stream of the workload goes.
pub enum StreamOutput {
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
