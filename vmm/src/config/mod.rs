// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The request, from what was typed to what a machine can be built from:
//!
//! | step | type | checks |
//! |---|---|---|
//! | options and document | [`Request`](request::Request) | each value by itself, when it is read |
//! | this host | [`Plan`](plan::Plan) | contradictions; disks, taps and terminal are there |
//! | kernel, image, scratch | [`VmConfig`] | everything else: building from it can fail only because of the host |

pub mod cpus;
pub mod destination;
pub mod disk;
pub mod document;
pub mod environment;
pub mod health;
pub mod interval;
pub mod moment;
pub mod name;
pub mod network;
pub mod number;
pub mod plan;
pub mod request;
pub mod root_format;
pub mod run_spec;
pub mod signal;
pub mod size;
mod text_form;
pub mod tmpfs;
pub mod workload;

use boot::Kernel;
use devices::virtio::block::BlockConfig;
use guest_init::run_spec::RunSpec;
use name::MachineName;
use plan::InterfaceConfig;
use signal::SignalNumber;
use std::time::Duration;

/// The request, validated, with everything that it names open.
#[derive(Debug)]
pub struct VmConfig {
    /// Name of the machine.
    pub id: MachineName,
    /// Memory of the guest.
    pub memory_bytes: u64,
    /// Virtual CPUs, 1 to 32.
    pub cpus: u8,
    /// The guest's kernel; fits into the memory.
    pub kernel: Kernel,
    /// Modules of the kernel, in the order in which PID 1 loads them.
    pub modules: Vec<boot::modules::Module>,
    /// The program that is PID 1.
    pub init: Vec<u8>,
    /// Words for the end of the kernel's command line; legal ones.
    pub append: String,
    /// Root disk, scratch disk if there is one, then the user's. Not yet locked.
    pub disks: Vec<BlockConfig>,
    /// Network devices.
    pub interfaces: Vec<InterfaceConfig>,
    /// What PID 1 is told.
    pub run_spec: RunSpec,
    /// How the run is brought to an end.
    pub ending: Ending,
}

/// How a run is brought to an end from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What a polite end begins with.
    pub stop_signal: SignalNumber,
    /// From then until power is cut.
    pub stop_timeout: Duration,
    /// From the machine's start until power is cut.
    pub run_timeout: Option<Duration>,
}
