// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The request, from what was typed to what a machine can be built from:
//!
//! | step | type | checks |
//! |---|---|---|
//! | options and document | [`Request`](request::Request) | each value by itself, when it is read |
//! | this host | [`Plan`](plan::Plan) | contradictions; disks, taps and terminal are there |
//! | kernel, image, scratch | [`VmConfig`] | everything else: building from it can fail only because of the host |

pub(crate) mod cpus;
pub(crate) mod destination;
pub(crate) mod disk;
pub(crate) mod document;
pub(crate) mod environment;
pub(crate) mod health;
pub(crate) mod interval;
pub(crate) mod moment;
pub(crate) mod name;
pub(crate) mod network;
pub(crate) mod number;
pub(crate) mod plan;
pub(crate) mod request;
pub(crate) mod rfc3339;
pub(crate) mod root_format;
pub(crate) mod run_spec;
pub(crate) mod signal;
pub(crate) mod size;
mod text_form;
pub(crate) mod tmpfs;
pub(crate) mod workload;

use boot::Kernel;
use devices::virtio::block::BlockConfig;
use guest_protocol::run_spec::RunSpec;
use plan::InterfaceConfig;
use signal::SignalNumber;
use std::time::Duration;

/// The request, validated, with everything that it names open.
#[derive(Debug)]
pub(crate) struct VmConfig {
    /// Memory of the guest.
    pub(crate) memory_bytes: u64,
    /// Virtual CPUs, 1 to 32.
    pub(crate) cpus: u8,
    /// The guest's kernel; fits into the memory.
    pub(crate) kernel: Kernel,
    /// Modules of the kernel, in the order in which PID 1 loads them.
    pub(crate) modules: Vec<boot::modules::Module>,
    /// The program that is PID 1.
    pub(crate) init: Vec<u8>,
    /// Words for the end of the kernel's command line; legal ones.
    pub(crate) append: String,
    /// Root disk, scratch disk if there is one, then the user's. Not yet locked.
    pub(crate) disks: Vec<BlockConfig>,
    /// Network devices.
    pub(crate) interfaces: Vec<InterfaceConfig>,
    /// What PID 1 is told.
    pub(crate) run_spec: RunSpec,
    /// How the run is brought to an end.
    pub(crate) ending: Ending,
}

/// How a run is brought to an end from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What a polite end begins with.
    pub(crate) stop_signal: SignalNumber,
    /// From then until power is cut.
    pub(crate) stop_timeout: Duration,
    /// From the machine's start until power is cut.
    pub(crate) run_timeout: Option<Duration>,
}
