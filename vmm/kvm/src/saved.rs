// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state that KVM has of a VM and its vCPUs, saved from one VM and set in another. Used while no
//! vCPU runs. Guest memory and devices belong to the callers.
//!
//! A saved state is untrusted input: KVM checks what it takes, and here is checked what it does not
//! (sizes, which MSRs, the CPU). The vCPUs are returned only when all of them have their state. The
//! order matters (KVM API): XCR0 before the extended state, system registers before the APIC, the
//! APIC before the TSC deadline, events last.
#![allow(unsafe_code)] // KVM_GET_XSAVE2 and KVM_SET_XSAVE access memory of the host's size.

use crate::cpuid;
use crate::exit_reason::ExitReason;
use crate::host::{KvmHost, KvmKind};
use crate::vcpu::{IoBus, Vcpu};
use crate::vm::{KvmVm, VmError, failed};
use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_MSR_ENTRIES, Msrs, Xsave,
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// The interrupt controllers, in the order of [`SavedVm`]'s.
const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// A state cannot be saved or set.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The access that was under way stopped the machine.
    #[error("the machine stopped while its state was saved: {0:?}")]
    Stopped(ExitReason),
    #[error("the state is of a host whose KVM is of another kind")]
    Kind,
    /// 255 is the highest number of vCPUs that an APIC id of 8 bits allows.
    #[error("the state has {0} vCPUs")]
    Cpus(usize),
    #[error("the state is of another CPU: CPUID leaf {function:#x}, index {index}, differs")]
    Cpuid { function: u32, index: u32 },
    #[error("the state has {saved} bytes of extended registers, this host {host}")]
    ExtendedState { saved: usize, host: usize },
    #[error("the state has MSR {0:#x}, which this host cannot restore")]
    Msr(u32),
}

/// What KVM has of a VM besides its vCPUs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedVm {
    chips: [kvm_irqchip; 3],
    timer: kvm_pit_state2,
    clock: kvm_clock_data,
    /// MSRs that the system-call gate keeps for the guest, on a host that emulates guest kernel
    /// mode.
    gate: Option<[u64; 3]>,
}

/// What KVM has of a vCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedVcpu {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    mp_state: kvm_mp_state,
    registers: kvm_regs,
    special: kvm_sregs,
    control: kvm_xcrs,
    /// The XSAVE area in the size of the host.
    extended: Vec<u32>,
    debug: kvm_debugregs,
    apic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl SavedVm {
    /// Of the host on which it was saved.
    #[must_use]
    pub fn kind(&self) -> KvmKind {
        if self.gate.is_some() { KvmKind::Software } else { KvmKind::Native }
    }
}

impl SavedVcpu {
    /// Frequency of the time-stamp counter; 0 if KVM does not know it.
    #[must_use]
    pub fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }

    /// Address of the next instruction.
    #[must_use]
    pub fn instruction_pointer(&self) -> u64 {
        self.registers.rip
    }

    /// The name of the processor, from CPUID leaves 8000_0002h to 8000_0004h; empty if it has none.
    #[must_use]
    pub fn processor_name(&self) -> String {
        processor_name(&self.cpuid)
    }
}

fn processor_name(cpuid: &[kvm_cpuid_entry2]) -> String {
    let leaf = |function: u32| cpuid.iter().find(|entry| entry.function == function);
    let registers = |leaf: &kvm_cpuid_entry2| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx];
    let leaves = (0x8000_0002..=0x8000_0004).filter_map(leaf);
    let bytes: Vec<u8> = leaves.flat_map(registers).flat_map(u32::to_le_bytes).collect();
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

impl KvmVm {
    /// Saves the state of the VM. No vCPU runs.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn save(&self) -> Result<SavedVm, StateError> {
        let mut chips = CHIPS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut chips {
            self.fd.get_irqchip(chip).map_err(failed("KVM_GET_IRQCHIP"))?;
        }
        Ok(SavedVm {
            chips,
            timer: self.fd.get_pit2().map_err(failed("KVM_GET_PIT2"))?,
            clock: self.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))?,
            gate: self.software.as_ref().map(|software| software.gate().shadows()),
        })
    }

    /// Sets the state of a new VM, before [`restore_vcpus`]. The guest's clock continues at the time
    /// of the save.
    ///
    /// # Errors
    /// The state is of another kind of KVM, or KVM rejects it.
    pub fn restore(&self, saved: &SavedVm) -> Result<(), StateError> {
        match (&self.software, saved.gate) {
            (Some(software), Some(shadows)) => software.gate().set_shadows(shadows),
            (None, None) => {}
            _ => return Err(StateError::Kind),
        }
        for (chip, chip_id) in saved.chips.iter().zip(CHIPS) {
            self.fd.set_irqchip(&kvm_irqchip { chip_id, ..*chip }).map_err(failed("KVM_SET_IRQCHIP"))?;
        }
        self.fd.set_pit2(&saved.timer).map_err(failed("KVM_SET_PIT2"))?;
        // Without the flags, which would add the time since the save.
        let clock = kvm_clock_data { clock: saved.clock.clock, ..Default::default() };
        self.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))?;
        Ok(())
    }
}

/// Which state a vCPU of a VM has.
#[derive(Debug)]
pub(super) struct StateExtent {
    /// The MSRs that this host saves, in the order in which they are set: the counter first, and its
    /// deadline last.
    msrs: Vec<u32>,
    /// Bytes of the extended state on this host.
    extended: usize,
}

impl StateExtent {
    pub(super) fn of(host: &KvmHost, vm: &VmFd) -> Result<Self, VmError> {
        let list = host.kvm.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        let mut msrs = list.as_slice().to_vec();
        msrs.sort_by_key(|index| match *index {
            MSR_TSC => 0,
            MSR_TSC_DEADLINE => 2,
            _ => 1,
        });
        let extended = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        Ok(Self { msrs, extended: extended.max(size_of::<kvm_xsave>()) })
    }
}

/// Creates all vCPUs of a new `vm`, each with its state of `saved`.
///
/// # Errors
/// The state is of another CPU, or is impossible, or an ioctl failed. No vCPU is left.
pub fn restore_vcpus(host: &KvmHost, vm: &KvmVm, saved: &[SavedVcpu]) -> Result<Vec<Vcpu>, StateError> {
    let cpus = u8::try_from(saved.len()).ok().filter(|cpus| *cpus > 0).ok_or(StateError::Cpus(saved.len()))?;
    let supported = cpuid::supported(host)?;
    let restore = |(index, saved): (u8, &SavedVcpu)| {
        let mut vcpu = Vcpu::with_reset_state(host, vm, &supported, index, cpus)?;
        check_cpu(&vcpu.cpuid, &saved.cpuid)?;
        vcpu.restore(saved)?;
        Ok(vcpu)
    };
    (0..cpus).zip(saved).map(restore).collect()
}

impl Vcpu {
    /// Saves the state of the vCPU, after the access that it has under way is completed on `bus`.
    /// Its thread is paused or has ended. The vCPU can run on.
    ///
    /// # Errors
    /// The access stopped the machine, or an ioctl failed.
    pub fn save(&mut self, bus: &impl IoBus) -> Result<SavedVcpu, StateError> {
        if let Some(reason) = self.complete_access(bus) {
            return Err(StateError::Stopped(reason));
        }
        let fd = &self.fd;
        Ok(SavedVcpu {
            cpuid: self.cpuid.as_slice().to_vec(),
            tsc_khz: fd.get_tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"))?,
            // First: it makes KVM accept INIT and SIPI that are pending, which changes registers.
            mp_state: fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
            registers: fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
            special: fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
            control: fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
            extended: extended_state(fd, self.extent.extended)?,
            debug: fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
            apic: fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?,
            msrs: msrs(fd, &self.extent.msrs)?,
            events: fd.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    fn restore(&mut self, saved: &SavedVcpu) -> Result<(), StateError> {
        if let Some(unknown) = saved.msrs.iter().find(|entry| !self.extent.msrs.contains(&entry.index)) {
            return Err(StateError::Msr(unknown.index));
        }
        let fd = &self.fd;
        if fd.get_tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"))? != saved.tsc_khz {
            fd.set_tsc_khz(saved.tsc_khz).map_err(failed("KVM_SET_TSC_KHZ"))?;
        }
        fd.set_mp_state(saved.mp_state).map_err(failed("KVM_SET_MP_STATE"))?;
        fd.set_sregs(&saved.special).map_err(failed("KVM_SET_SREGS"))?;
        fd.set_regs(&saved.registers).map_err(failed("KVM_SET_REGS"))?;
        fd.set_xcrs(&saved.control).map_err(failed("KVM_SET_XCRS"))?;
        set_extended_state(fd, &saved.extended, self.extent.extended)?;
        fd.set_debug_regs(&saved.debug).map_err(failed("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&saved.apic).map_err(failed("KVM_SET_LAPIC"))?;
        set_msrs(fd, &saved.msrs)?;
        fd.set_vcpu_events(&saved.events).map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        Ok(())
    }
}

/// Every leaf must be the one that this host gives the vCPU: the guest chose its code by them.
fn check_cpu(here: &CpuId, saved: &[kvm_cpuid_entry2]) -> Result<(), StateError> {
    let here = here.as_slice();
    let longer = if here.len() < saved.len() { saved } else { here };
    let differs = (0..longer.len()).find(|&position| here.get(position) != saved.get(position));
    match differs {
        None => Ok(()),
        Some(position) => {
            let leaf = &longer[position];
            Err(StateError::Cpuid { function: leaf.function, index: leaf.index })
        }
    }
}

/// The values of those MSRs that this vCPU has: KVM lists some that depend on CPUID.
fn msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, StateError> {
    let mut saved = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let length = rest.len().min(KVM_MAX_MSR_ENTRIES);
        let asked: Vec<_> = rest[..length].iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        let mut msrs = Msrs::from_entries(&asked).expect("no more entries than KVM takes");
        let read = fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        saved.extend_from_slice(&msrs.as_slice()[..read]);
        // KVM ends at the first that the vCPU does not have.
        rest = &rest[(read + 1).min(length).max(read)..];
    }
    Ok(saved)
}

fn set_msrs(fd: &VcpuFd, saved: &[kvm_msr_entry]) -> Result<(), StateError> {
    let mut rest = saved;
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(KVM_MAX_MSR_ENTRIES)];
        let entries = Msrs::from_entries(chunk).expect("no more entries than KVM takes");
        let written = fd.set_msrs(&entries).map_err(failed("KVM_SET_MSRS"))?;
        if let Some(rejected) = chunk.get(written) {
            // Some can only be read, and have their value.
            let here = msrs(fd, &[rejected.index])?;
            if here.first().map(|here| here.data) != Some(rejected.data) {
                return Err(StateError::Msr(rejected.index));
            }
        }
        rest = &rest[(written + 1).min(chunk.len())..];
    }
    Ok(())
}

/// An empty area of `size` bytes.
fn extended_area(size: usize) -> Result<Xsave, StateError> {
    let tail = (size - size_of::<kvm_xsave>()).div_ceil(size_of::<u32>());
    Xsave::new(tail).map_err(|_| failed("KVM_GET_XSAVE2")(kvm_ioctls::Error::new(libc::ENOMEM)).into())
}

fn extended_state(fd: &VcpuFd, size: usize) -> Result<Vec<u32>, StateError> {
    let mut area = extended_area(size)?;
    // SAFETY: the area has the size that KVM_CAP_XSAVE2 returns for this VM.
    unsafe { fd.get_xsave2(&mut area) }.map_err(failed("KVM_GET_XSAVE2"))?;
    let mut saved = area.as_fam_struct_ref().xsave.region.to_vec();
    saved.extend_from_slice(area.as_slice());
    Ok(saved)
}

fn set_extended_state(fd: &VcpuFd, saved: &[u32], size: usize) -> Result<(), StateError> {
    let mut area = extended_area(size)?;
    let tail = area.as_slice().len();
    let region = size_of::<kvm_xsave>() / size_of::<u32>();
    if saved.len() != region + tail {
        let (saved, host) = (size_of_val(saved), size_of::<u32>() * (region + tail));
        return Err(StateError::ExtendedState { saved, host });
    }
    // SAFETY: only the fixed part is written; the length of the flexible array stays.
    unsafe { area.as_mut_fam_struct() }.xsave.region.copy_from_slice(&saved[..region]);
    area.as_mut_slice().copy_from_slice(&saved[region..]);
    // SAFETY: the area has the size that KVM_CAP_XSAVE2 returns for this VM.
    unsafe { fd.set_xsave2(&area) }.map_err(failed("KVM_SET_XSAVE"))?;
    Ok(())
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
