// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of a KVM vCPU as completions read and write it. Used on the vCPU's own thread, between two runs.
#![allow(unsafe_code)] // The extended state is a structure with a tail, read and written as bytes.

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    KVM_VCPUEVENT_VALID_SHADOW, Msrs, Xsave, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};

use super::processor::Processor;
use super::state::{Exception, VcpuState};

const MSR_IA32_XSS: u32 = 0xda0;
const MSR_TSC_AUX: u32 = 0xc000_0103;
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// What completions keep for one vCPU from one to the next: the buffer for its extended state.
pub struct CompletionState {
    processor: Arc<Processor>,
    xsave: Xsave,
}

impl CompletionState {
    /// For a vCPU of `vm`, whose CPUID is set.
    ///
    /// # Errors
    /// The host's KVM has no `KVM_GET_XSAVE2` (Linux 5.17).
    pub fn new(vm: &VmFd, processor: Arc<Processor>) -> io::Result<Self> {
        let size = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        let fixed = size_of::<kvm_xsave>();
        let Some(tail) = size.checked_sub(fixed) else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the host's KVM has no KVM_CAP_XSAVE2"));
        };
        let xsave = Xsave::new(tail.div_ceil(size_of::<u32>())).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { processor, xsave })
    }

    /// The state of `vcpu`, for one completion.
    pub fn of<'a>(&'a mut self, vcpu: &'a VcpuFd) -> KvmVcpuState<'a> {
        KvmVcpuState { vcpu, kept: self }
    }

    /// The extended state as bytes, tail included.
    fn bytes(&mut self) -> &mut [u8] {
        let length = size_of::<kvm_xsave>() + size_of_val(self.xsave.as_slice());
        // SAFETY: only the pointer is taken, to the whole structure; the length behind it is read, not changed.
        let start = unsafe { std::ptr::from_mut(&mut self.xsave.as_mut_fam_struct().xsave).cast::<u8>() };
        // SAFETY: the wrapper allocated the structure with its tail in one piece, whose length this is; all of it is
        // initialised and has no padding. The exclusive borrow of `self` lasts as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}

/// A KVM vCPU together with what is kept for it.
pub struct KvmVcpuState<'a> {
    vcpu: &'a VcpuFd,
    kept: &'a mut CompletionState,
}

impl KvmVcpuState<'_> {
    fn msr(&self, index: u32) -> io::Result<Option<u64>> {
        let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }])
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let read = self.vcpu.get_msrs(&mut msrs).map_err(errno)?;
        Ok(msrs.as_slice()[..read].first().map(|entry| entry.data))
    }

    /// Replaces the pending events by what `change` makes of them, as far as completions have a say: pending NMIs
    /// and SMM belong to other threads and are left alone.
    fn change_events(&self, change: impl FnOnce(&mut kvm_vcpu_events) -> bool) -> io::Result<()> {
        let mut events = self.vcpu.get_vcpu_events().map_err(errno)?;
        events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        if change(&mut events) {
            self.vcpu.set_vcpu_events(&events).map_err(errno)?;
        }
        Ok(())
    }
}

impl VcpuState for KvmVcpuState<'_> {
    fn processor(&self) -> Arc<Processor> {
        Arc::clone(&self.kept.processor)
    }

    fn registers(&mut self) -> io::Result<kvm_regs> {
        self.vcpu.get_regs().map_err(errno)
    }

    fn set_registers(&mut self, registers: &kvm_regs) -> io::Result<()> {
        self.vcpu.set_regs(registers).map_err(errno)
    }

    fn special_registers(&mut self) -> io::Result<kvm_sregs> {
        self.vcpu.get_sregs().map_err(errno)
    }

    fn set_special_registers(&mut self, special: &kvm_sregs) -> io::Result<()> {
        self.vcpu.set_sregs(special).map_err(errno)
    }

    fn enabled_components(&mut self) -> io::Result<u64> {
        let registers = self.vcpu.get_xcrs().map_err(errno)?;
        Ok(registers.xcrs.iter().find(|register| register.xcr == 0).map_or(1, |register| register.value))
    }

    fn supervisor_components(&mut self) -> io::Result<u64> {
        Ok(self.msr(MSR_IA32_XSS)?.unwrap_or(0))
    }

    fn tsc_aux(&mut self) -> io::Result<u64> {
        Ok(self.msr(MSR_TSC_AUX)?.unwrap_or(0))
    }

    fn load_extended_state(&mut self) -> io::Result<&mut [u8]> {
        // SAFETY: the buffer has the size that KVM_CAP_XSAVE2 told; no feature is enabled by arch_prctl after that.
        unsafe { self.vcpu.get_xsave2(&mut self.kept.xsave) }.map_err(errno)?;
        Ok(self.kept.bytes())
    }

    fn store_extended_state(&mut self) -> io::Result<()> {
        // SAFETY: as for reading.
        unsafe { self.vcpu.set_xsave2(&self.kept.xsave) }.map_err(errno)
    }

    fn raise(&mut self, exception: Exception) -> io::Result<()> {
        if exception.single_step {
            let mut debug = self.vcpu.get_debug_regs().map_err(errno)?;
            debug.dr6 |= DR6_SINGLE_STEP;
            self.vcpu.set_debug_regs(&debug).map_err(errno)?;
        }
        self.change_events(|events| {
            events.interrupt.shadow = 0;
            events.exception.injected = 1;
            events.exception.pending = 0;
            events.exception.nr = exception.vector;
            events.exception.has_error_code = exception.error_code.is_some().into();
            events.exception.error_code = exception.error_code.unwrap_or(0);
            true
        })
    }

    fn end_interrupt_shadow(&mut self) -> io::Result<()> {
        self.change_events(|events| std::mem::take(&mut events.interrupt.shadow) != 0)
    }
}

fn errno(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
