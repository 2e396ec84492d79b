// SPDX-License-Identifier: Apache-2.0 OR MIT
//! [`VcpuState`] for a KVM vCPU. Used on the vCPU's own thread, between two runs.
#![allow(unsafe_code)] // The extended state is a structure with a flexible array, accessed as bytes.

use super::processor::Processor;
use super::registers::CR4_GLOBAL_PAGES;
use super::vcpu_state::{Exception, VcpuState};
use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_VCPUEVENT_VALID_SHADOW, KVM_X86_SHADOW_INT_MOV_SS, KVM_X86_SHADOW_INT_STI, Msrs, Xsave,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_sync_regs, kvm_xsave,
};
use kvm_ioctls::{Cap, SyncReg, VcpuFd, VmFd};
use std::io;
use std::sync::Arc;

const MSR_IA32_TSC: u32 = 0x10;
const MSR_IA32_XSS: u32 = 0xda0;
const MSR_TSC_AUX: u32 = 0xc000_0103;
const DR6_SINGLE_STEP: u64 = 1 << 14;
const SHADOW_OF_STI_AND_MOV_SS: u8 = (KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS) as u8;

/// What completions of one vCPU keep between runs.
pub struct CompletionState {
    processor: Arc<Processor>,
    xsave: Xsave,
    /// Components that IA32_XSS may hold, read from the vCPU's CPUID at the first completion.
    supervisor_components: Option<u64>,
}

impl CompletionState {
    /// For one vCPU of `vm`.
    ///
    /// # Errors
    /// The host's KVM has no `KVM_GET_XSAVE2` (Linux 5.17) or no synchronised registers (Linux
    /// 4.17).
    pub fn new(vm: &VmFd, processor: Arc<Processor>) -> io::Result<Self> {
        let size = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        let fixed = size_of::<kvm_xsave>();
        let Some(tail) = size.checked_sub(fixed).filter(|_| vm.check_extension(Cap::SyncRegs)) else {
            let missing = "the host's KVM has no KVM_CAP_XSAVE2 or no KVM_CAP_SYNC_REGS";
            return Err(io::Error::new(io::ErrorKind::Unsupported, missing));
        };
        let xsave = Xsave::new(tail.div_ceil(size_of::<u32>())).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { processor, xsave, supervisor_components: None })
    }

    /// The state of `vcpu` between two runs. Every call is for the same vCPU.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn access<'a>(&'a mut self, vcpu: &'a mut VcpuFd) -> io::Result<KvmVcpuState<'a>> {
        if self.supervisor_components.is_none() {
            self.supervisor_components = Some(offered_supervisor_components(vcpu)?);
            synchronize(vcpu)?;
        }
        Ok(KvmVcpuState { vcpu, kept: self })
    }

    /// The extended state as bytes, flexible array included.
    fn bytes(&mut self) -> &mut [u8] {
        let length = size_of::<kvm_xsave>() + size_of_val(self.xsave.as_slice());
        // SAFETY: only a pointer to the whole structure is taken; the length after it is read, not
        // changed.
        let start = unsafe { std::ptr::from_mut(&mut self.xsave.as_mut_fam_struct().xsave).cast::<u8>() };
        // SAFETY: the wrapper allocated the structure and its flexible array as one block of this
        // length; all of it is initialised and has no padding. The exclusive borrow of `self` lasts
        // as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}

/// Makes every later KVM_RUN store the registers and events in the shared page, from which they are
/// read: on an emulating host each ioctl of a vCPU costs 8 µs, as much as an exit. The last run did
/// not store them yet, so they are read here.
///
/// They are *written* by ioctls all the same. What KVM_RUN would load from the page is lost if a
/// signal ends that run before the guest is entered: seen under `--profile`, where the gate's code
/// ran again in kernel mode.
fn synchronize(vcpu: &mut VcpuFd) -> io::Result<()> {
    let (regs, sregs) = (vcpu.get_regs().map_err(errno)?, vcpu.get_sregs().map_err(errno)?);
    let events = vcpu.get_vcpu_events().map_err(errno)?;
    *vcpu.sync_regs_mut() = kvm_sync_regs { regs, sregs, events };
    for set in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
        vcpu.set_sync_valid_reg(set);
    }
    Ok(())
}

/// The components that CPUID permits in IA32_XSS.
fn offered_supervisor_components(vcpu: &VcpuFd) -> io::Result<u64> {
    let leaves = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(errno)?;
    let leaf = leaves.as_slice().iter().find(|leaf| leaf.function == 0xd && leaf.index == 1);
    Ok(leaf.map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.ecx)))
}

/// A KVM vCPU and its [`CompletionState`].
pub struct KvmVcpuState<'a> {
    vcpu: &'a mut VcpuFd,
    kept: &'a mut CompletionState,
}

impl KvmVcpuState<'_> {
    fn msr(&self, index: u32) -> io::Result<Option<u64>> {
        let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }])
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let read = self.vcpu.get_msrs(&mut msrs).map_err(errno)?;
        Ok(msrs.as_slice()[..read].first().map(|entry| entry.data))
    }

    /// Sets the events, with `exception` as the only exception. State that other threads may have
    /// changed meanwhile (pending NMIs, SMM) is not set, nor is the #UD that the host queued with
    /// its error.
    fn set_events(&mut self, exception: Option<Exception>) -> io::Result<()> {
        let events = &mut self.vcpu.sync_regs_mut().events;
        events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        events.exception = Default::default();
        events.interrupt.shadow = 0;
        if let Some(exception) = exception {
            events.exception.injected = 1;
            events.exception.nr = exception.vector;
            events.exception.has_error_code = exception.error_code.is_some().into();
            events.exception.error_code = exception.error_code.unwrap_or(0);
        }
        let events = *events;
        self.vcpu.set_vcpu_events(&events).map_err(errno)
    }
}

impl VcpuState for KvmVcpuState<'_> {
    fn processor(&self) -> Arc<Processor> {
        Arc::clone(&self.kept.processor)
    }

    fn registers(&mut self) -> io::Result<kvm_regs> {
        Ok(self.vcpu.sync_regs_mut().regs)
    }

    fn set_registers(&mut self, registers: &kvm_regs) -> io::Result<()> {
        self.vcpu.sync_regs_mut().regs = *registers;
        self.vcpu.set_regs(registers).map_err(errno)
    }

    fn special_registers(&mut self) -> io::Result<kvm_sregs> {
        Ok(self.vcpu.sync_regs_mut().sregs)
    }

    fn set_special_registers(&mut self, special: &kvm_sregs) -> io::Result<()> {
        self.vcpu.sync_regs_mut().sregs = *special;
        self.vcpu.set_sregs(special).map_err(errno)
    }

    fn enabled_components(&mut self) -> io::Result<u64> {
        let registers = self.vcpu.get_xcrs().map_err(errno)?;
        Ok(registers.xcrs.iter().find(|register| register.xcr == 0).map_or(1, |register| register.value))
    }

    fn supervisor_components(&mut self) -> io::Result<u64> {
        match self.kept.supervisor_components {
            Some(0) => Ok(0),
            _ => Ok(self.msr(MSR_IA32_XSS)?.unwrap_or(0)),
        }
    }

    fn tsc_aux(&mut self) -> io::Result<u64> {
        Ok(self.msr(MSR_TSC_AUX)?.unwrap_or(0))
    }

    fn time_stamp_counter(&mut self) -> io::Result<u64> {
        Ok(self.msr(MSR_IA32_TSC)?.unwrap_or(0))
    }

    /// KVM rebuilds its shadow page tables when CR4.PGE changes.
    fn flush_translations(&mut self) -> io::Result<()> {
        let special = self.vcpu.sync_regs_mut().sregs;
        let flipped = kvm_sregs { cr4: special.cr4 ^ CR4_GLOBAL_PAGES, ..special };
        self.vcpu.set_sregs(&flipped).map_err(errno)?;
        self.vcpu.set_sregs(&special).map_err(errno)
    }

    fn load_extended_state(&mut self) -> io::Result<&mut [u8]> {
        // SAFETY: the buffer has the size that KVM_CAP_XSAVE2 returned; no feature is enabled by
        // arch_prctl after that.
        unsafe { self.vcpu.get_xsave2(&mut self.kept.xsave) }.map_err(errno)?;
        Ok(self.kept.bytes())
    }

    fn store_extended_state(&mut self) -> io::Result<()> {
        // SAFETY: as for reading.
        unsafe { self.vcpu.set_xsave2(&self.kept.xsave) }.map_err(errno)
    }

    fn interrupt_is_injected(&mut self) -> io::Result<bool> {
        let events = &self.vcpu.sync_regs_mut().events;
        Ok(events.interrupt.injected != 0 || events.nmi.injected != 0)
    }

    fn raise(&mut self, exception: Exception) -> io::Result<()> {
        if exception.single_step {
            let mut debug = self.vcpu.get_debug_regs().map_err(errno)?;
            debug.dr6 |= DR6_SINGLE_STEP;
            self.vcpu.set_debug_regs(&debug).map_err(errno)?;
        }
        self.set_events(Some(exception))
    }

    fn begin_interrupt_shadow(&mut self) -> io::Result<()> {
        let events = &mut self.vcpu.sync_regs_mut().events;
        events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        events.interrupt.shadow = SHADOW_OF_STI_AND_MOV_SS;
        let events = *events;
        self.vcpu.set_vcpu_events(&events).map_err(errno)
    }

    fn end_interrupt_shadow(&mut self) -> io::Result<()> {
        match self.vcpu.sync_regs_mut().events.interrupt.shadow {
            0 => Ok(()),
            _ => self.set_events(None),
        }
    }
}

fn errno(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
