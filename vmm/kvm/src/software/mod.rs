// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hosts whose KVM emulates guest kernel mode instruction by instruction: instructions that their
//! emulator does not know are completed here. Nothing in this directory runs on any other host.

mod complete;
mod decode;
pub(crate) mod detect;
mod exchange;
mod extended_state;
mod floating_point;
mod gate;
mod kvm_vcpu_state;
mod processor;
mod registers;
mod scalar;
mod segments;
mod software_vm;
mod step;
mod system;
mod vcpu_state;
mod walk;
mod window;
mod xrstor;
mod xsave;
mod xsave_layout;

pub mod testing;

pub use complete::{Completed, Incomplete, complete};
pub(crate) use gate::MsrWrite;
pub use kvm_vcpu_state::{CompletionState, KvmVcpuState};
pub use processor::Processor;
pub use software_vm::CompletionCounts;
pub(crate) use software_vm::{Software, SoftwareVcpu};
pub use vcpu_state::{Exception, VcpuState};

#[cfg(test)]
mod complete_tests;
#[cfg(test)]
mod kvm_vcpu_state_tests;
#[cfg(test)]
mod scalar_tests;
#[cfg(test)]
mod segments_tests;
#[cfg(test)]
mod test_guest;
#[cfg(test)]
mod walk_tests;
#[cfg(test)]
mod xsave_cpu_tests;
#[cfg(test)]
mod xsave_tests;
