// SPDX-License-Identifier: Apache-2.0 OR MIT
//! State of a VM and its vCPUs on a host that emulates guest kernel mode: the system-call gate,
//! buffers, the count of completions. Created on `main`, used by the vCPU threads.

use super::gate::{Gate, MsrWrite};
use super::{Completed, CompletionState, Processor, complete};
use crate::GuestMemory;
use crate::vm::{ReservedPages, VmError, failed};
use iced_x86::Mnemonic;
use kvm_ioctls::{VcpuFd, VmFd};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// State of a VM.
#[derive(Debug)]
pub(crate) struct Software {
    gate: Gate,
    processor: Arc<Processor>,
}

impl Software {
    /// Installs the gate in `vm` and its `memory`.
    pub(crate) fn install(vm: &VmFd, memory: &GuestMemory, reserved: &ReservedPages) -> Result<Self, VmError> {
        Ok(Self { gate: Gate::install(vm, memory, reserved)?, processor: Arc::new(Processor::host()) })
    }

    /// The gate of the VM.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// State of a vCPU.
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
        let result = self.state.access(vcpu).and_then(|mut state| self.vm.gate.enter_kernel(&mut state));
        result.map_err(|error| format!("cannot enter the guest's kernel for a system call: {error}"))
    }

    /// Handles the guest's write to an MSR that the gate filters.
    pub(crate) fn write_msr(&self, vcpu: &VcpuFd, msr: u32, value: u64) -> Result<MsrWrite, VmError> {
        self.vm.gate.write_msr(vcpu, msr, value)
    }

    /// What the guest reads from an MSR; `None` unless the gate filters it.
    pub(crate) fn read_msr(&self, msr: u32) -> Option<u64> {
        self.vm.gate.read_msr(msr)
    }

    pub(crate) fn counts(&self) -> &CompletionCounts {
        &self.counts
    }

    /// Completes the instruction at RIP, which the host's emulator does not know; an error is one
    /// line.
    pub(crate) fn complete(&mut self, vcpu: &mut VcpuFd, memory: &GuestMemory) -> Result<(), String> {
        let mut state =
            self.state.access(vcpu).map_err(|error| format!("cannot read the vCPU's registers: {error}"))?;
        let completed = complete(&mut state, memory)
            .map_err(|incomplete| format!("the host's KVM cannot execute an instruction of the guest: {incomplete}"))?;
        self.counts.record(&completed);
        Ok(())
    }
}

/// Completed instructions by mnemonic, for `--timings` and the result document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletionCounts(BTreeMap<Mnemonic, u64>);

impl CompletionCounts {
    pub fn record(&mut self, completed: &Completed) {
        *self.0.entry(completed.mnemonic).or_default() += 1;
    }

    /// Adds the counts of another vCPU.
    pub fn add(&mut self, other: &Self) {
        for (mnemonic, count) in &other.0 {
            *self.0.entry(*mnemonic).or_default() += count;
        }
    }

    /// Names in lower case, most frequent first.
    pub fn by_name(&self) -> Vec<(String, u64)> {
        let mut named: Vec<_> = self.0.iter().map(|(m, count)| (format!("{m:?}").to_lowercase(), *count)).collect();
        named.sort_by_key(|(_, count)| Reverse(*count));
        named
    }
}
