// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a VM and its vCPUs keep where the host emulates guest kernel mode: the system-call gate, the
//! buffers, the count of completions. Made on `main`, used by the vCPU threads.

use super::gate::{Gate, MsrWrite};
use super::{CompletionCounts, CompletionState, Processor, complete};
use crate::GuestMemory;
use crate::vm::{ReservedPages, VmError, failed};
use kvm_ioctls::{VcpuFd, VmFd};
use std::sync::Arc;

/// One a VM.
#[derive(Debug)]
pub(crate) struct Software {
    gate: Gate,
    processor: Arc<Processor>,
}

impl Software {
    /// Prepares `vm` and its `memory`.
    pub(crate) fn install(vm: &VmFd, memory: &GuestMemory, reserved: &ReservedPages) -> Result<Self, VmError> {
        Ok(Self { gate: Gate::install(vm, memory, reserved)?, processor: Arc::new(Processor::host()) })
    }
}

/// One a vCPU.
pub(crate) struct SoftwareVcpu {
    vm: Arc<Software>,
    state: CompletionState,
    counts: CompletionCounts,
}

impl SoftwareVcpu {
    /// For a new vCPU of the VM that `software` was installed in.
    pub(crate) fn new(software: Arc<Software>, vm: &VmFd) -> Result<Self, VmError> {
        let state = CompletionState::new(vm, Arc::clone(&software.processor)).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
            failed("KVM_CAP_XSAVE2")(kvm_ioctls::Error::new(errno))
        })?;
        Ok(Self { vm: software, state, counts: CompletionCounts::default() })
    }

    /// Whether an MMIO write to `address` is a system call.
    pub(crate) fn is_system_call(&self, address: u64) -> bool {
        self.vm.gate.is_system_call(address)
    }

    /// Finishes a system call; an error is one line.
    pub(crate) fn enter_kernel(&mut self, vcpu: &mut VcpuFd) -> Result<(), String> {
        let result = self.state.of(vcpu).and_then(|mut state| self.vm.gate.enter_kernel(&mut state));
        result.map_err(|error| format!("the host does not let a system call in: {error}"))
    }

    /// The guest writes an MSR that the gate asked for.
    pub(crate) fn write_msr(&self, vcpu: &VcpuFd, msr: u32, value: u64) -> Result<MsrWrite, VmError> {
        self.vm.gate.write_msr(vcpu, msr, value)
    }

    /// What the guest reads from an MSR, if the gate has a say.
    pub(crate) fn read_msr(&self, msr: u32) -> Option<u64> {
        self.vm.gate.read_msr(msr)
    }

    /// What was completed so far.
    pub(crate) fn counts(&self) -> &CompletionCounts {
        &self.counts
    }

    /// Does the instruction that the host's emulator left undone; an error is one line.
    pub(crate) fn complete(&mut self, vcpu: &mut VcpuFd, memory: &GuestMemory) -> Result<(), String> {
        let mut state =
            self.state.of(vcpu).map_err(|error| format!("the host does not tell the registers: {error}"))?;
        let completed = complete(&mut state, memory)
            .map_err(|incomplete| format!("the host's KVM cannot do an instruction of the guest: {incomplete}"))?;
        self.counts.record(&completed);
        Ok(())
    }
}
