// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The only KVM ioctls of the project: the host's device, the VM, its vCPUs.

mod cpuid;
mod exit_reason;
mod host;
mod kick;
mod profile;
mod registers;
mod run_control;
pub mod software;
mod vcpu;
mod vm;

pub use exit_reason::ExitReason;
pub use host::{HostError, KvmHost, KvmKind};
pub use kick::install_handler;
pub use kick::{cpu_time, kick};
pub use profile::Profile;
pub use run_control::{Inside, RunControl};
pub use vcpu::{Buses, Vcpu, create_all};
pub use vm::{KvmVm, VmError};
