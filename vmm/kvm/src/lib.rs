// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The only KVM ioctls of the project: the host's device, the VM, its vCPUs. Devices, guest layout
//! and threads belong to the callers.

mod cpuid;
mod entry_state;
mod exit_reason;
mod host;
mod ioctls;
mod kick;
mod profile;
mod restriction;
mod run_control;
mod saved;
pub mod software;
mod vcpu;
mod vm;

pub use cpuid::cpu_identity;
pub use entry_state::{EntryState, Segment};
pub use exit_reason::ExitReason;
pub use host::{HostError, KvmHost, KvmKind};
pub use ioctls::{SNAPSHOT_IOCTLS, VCPU_IOCTLS, VcpuIoctl};
pub use kick::{cpu_time, install_kick_handler, kick, kick_signal};
pub use profile::Profile;
pub use run_control::{RunControl, VcpuSlot};
pub use saved::{SavedVcpu, SavedVm, StateError, restore_vcpus};
pub use vcpu::{IoBus, Vcpu, create_vcpus};
pub use vm::{KvmVm, ReservedPages, VmError};

/// Guest memory: a mapping for each range of guest-physical addresses.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
