// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hosts whose KVM emulates guest kernel mode instruction by instruction: what their emulator leaves undone is completed
//! here. Nothing in this folder runs on any other host.

mod complete;
mod counts;
mod decode;
pub(crate) mod detect;
mod exchange;
mod floating_point;
mod gate;
mod host_vm;
mod image;
mod layout;
mod processor;
mod registers;
mod scalar;
mod segments;
mod state;
mod step;
mod system;
mod vcpu_fd;
mod walk;
mod window;
mod xrstor;
mod xsave;

pub mod testing;

pub use complete::{Completed, Incomplete, complete};
pub use counts::CompletionCounts;
pub(crate) use gate::MsrWrite;
pub(crate) use host_vm::{Software, SoftwareVcpu};
pub use processor::Processor;
pub use state::{Exception, VcpuState};
pub use vcpu_fd::{CompletionState, KvmVcpuState};

#[cfg(test)]
mod complete_tests;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod scalar_tests;
#[cfg(test)]
mod segments_tests;
#[cfg(test)]
mod vcpu_fd_tests;
#[cfg(test)]
mod walk_tests;
#[cfg(test)]
mod xsave_tests;
