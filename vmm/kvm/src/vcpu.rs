// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One virtual CPU: its state before the first instruction, and its run loop. Made on `main`, run on `vcpu-N`.
#![allow(unsafe_code)] // Two fields of `kvm_run` that the crate does not hand out.

use super::exit_reason::ExitReason;
use super::host::KvmHost;
use super::kick::{Kickable, unblock_signal};
use super::profile::Profile;
use super::run_control::{RunControl, Wanted};
use super::software::{Counts, MsrWrite, SoftwareVcpu};
use super::vm::{KvmVm, VmError, step};
use super::{cpuid, registers};
use boot::entry_state::EntryState;
use devices::bus::{Action, Bus};
use kvm_bindings::{
    CpuId, KVM_MP_STATE_RUNNABLE, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, Msrs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::ptr::addr_of;
use std::sync::Arc;

/// `IA32_MISC_ENABLE` with fast strings, as firmware leaves it (Intel SDM vol. 4).
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;

/// Local vector table entries of the APIC page (Intel SDM vol. 3, 11.5.1).
const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const APIC_LVT_MASKED: u32 = 0x1_0000;
const APIC_MODE_NMI: u32 = 0x400;
const APIC_MODE_EXTINT: u32 = 0x700;

/// `suberror` of `KVM_EXIT_INTERNAL_ERROR`: the emulator met an instruction that it does not know.
const SUBERROR_EMULATION: u32 = 1;

/// The address spaces that a vCPU reaches.
#[derive(Debug)]
pub struct Buses {
    /// Ports (`in`, `out`).
    pub ports: Bus,
    /// Memory-mapped.
    pub mmio: Bus,
}

/// A virtual CPU, ready to run.
pub struct Vcpu {
    index: u8,
    fd: VcpuFd,
    /// The page shared with the kernel; mapped as long as `fd` lives.
    run: *mut kvm_run,
    software: Option<SoftwareVcpu>,
    memory: boot::GuestMemory,
    profile: Option<Arc<Profile>>,
}

// SAFETY: `run` points into a mapping that `fd` owns and moves with it; one thread at a time has the `Vcpu`.
unsafe impl Send for Vcpu {}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Makes the `cpus` vCPUs of `vm`: the first enters the kernel with `entry`, the others wait for its start-up message.
///
/// # Errors
/// The host refused a step.
pub fn create_all(host: &KvmHost, vm: &KvmVm, cpus: u8, entry: &EntryState) -> Result<Vec<Vcpu>, VmError> {
    let supported = cpuid::supported(host)?;
    (0..cpus).map(|index| Vcpu::create(host, vm, &supported, index, cpus, entry)).collect()
}

impl Vcpu {
    fn create(
        host: &KvmHost,
        vm: &KvmVm,
        supported: &CpuId,
        index: u8,
        cpus: u8,
        entry: &EntryState,
    ) -> Result<Self, VmError> {
        let mut fd = vm.create_vcpu(index)?;
        fd.set_cpuid2(&cpuid::for_vcpu(host, supported, index, cpus)).map_err(step("KVM_SET_CPUID2"))?;
        set_msrs(&fd)?;
        set_local_interrupts(&fd, entry.external_interrupts)?;
        if index == 0 {
            let reset = fd.get_sregs().map_err(step("KVM_GET_SREGS"))?;
            fd.set_sregs(&registers::special(entry, reset)).map_err(step("KVM_SET_SREGS"))?;
            fd.set_regs(&registers::general(entry)).map_err(step("KVM_SET_REGS"))?;
            fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).map_err(step("KVM_SET_MP_STATE"))?;
        }
        let run = std::ptr::from_mut(fd.get_kvm_run());
        let software = vm.software_vcpu()?;
        Ok(Self { index, fd, run, software, memory: vm.memory().clone(), profile: None })
    }

    /// Position among the machine's vCPUs; its APIC id too.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Instructions that were completed for the host; `None` where it needs no help.
    #[must_use]
    pub fn completions(&self) -> Option<&Counts> {
        self.software.as_ref().map(SoftwareVcpu::counts)
    }

    /// Notes the call chain in `profile` at each kick.
    pub fn set_profile(&mut self, profile: Arc<Profile>) {
        self.profile = Some(profile);
    }

    /// Runs the guest until the machine stops by itself; `None` once `control` asks for a stop and the thread is kicked.
    pub fn run(&mut self, buses: &Buses, control: &RunControl) -> Option<ExitReason> {
        unblock_signal();
        let _kickable = Kickable::new(self.run);
        loop {
            match control.wanted() {
                Wanted::Run => {
                    if let Some(reason) = self.step(buses) {
                        return Some(reason);
                    }
                }
                Wanted::Hold => {
                    control.wait();
                    // Tells the guest's watchdogs that it was the host that stood still (KVM API, KVM_KVMCLOCK_CTRL). A guest
                    // that does not use the clock is refused, and needs no telling.
                    let _ = self.fd.kvmclock_ctrl();
                }
                Wanted::Stop => return None,
            }
        }
    }

    /// One `KVM_RUN` and what it asks for; `None` to go on.
    fn step(&mut self, buses: &Buses) -> Option<ExitReason> {
        let run = self.run;
        match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                let width = port_width(run, data.len());
                data.chunks_mut(width).for_each(|access| buses.ports.read(u64::from(port), access));
                None
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                let width = port_width(run, data.len());
                data.chunks(width).find_map(|access| end_of(buses.ports.write(u64::from(port), access)))
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                buses.mmio.read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => match &mut self.software {
                Some(software) if software.owns(address) => {
                    software.enter(&mut self.fd).err().map(ExitReason::KvmError)
                }
                _ => end_of(buses.mmio.write(address, data)),
            },
            Ok(VcpuExit::X86Wrmsr(exit)) => {
                let (msr, value) = (exit.index, exit.data);
                self.write_msr(msr, value)
            }
            Ok(VcpuExit::X86Rdmsr(exit)) => {
                match self.software.as_ref().and_then(|software| software.read_msr(exit.index)) {
                    Some(value) => *exit.data = value,
                    None => *exit.error = 1,
                }
                None
            }
            Ok(VcpuExit::Shutdown) => Some(ExitReason::TripleFault(self.registers_line())),
            Ok(VcpuExit::SystemEvent(kind, _)) => Some(match kind {
                KVM_SYSTEM_EVENT_RESET | KVM_SYSTEM_EVENT_SHUTDOWN => ExitReason::Reset,
                kind => ExitReason::KvmError(format!("KVM system event {kind} at {}", self.registers_line())),
            }),
            Ok(VcpuExit::InternalError) => self.internal_error(),
            Ok(VcpuExit::FailEntry(reason, cpu)) => Some(ExitReason::KvmError(format!(
                "the processor refused to enter the guest: hardware reason {reason:#x} on CPU {cpu}, at {}",
                self.registers_line()
            ))),
            Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => None,
            Ok(other) => {
                let exit = format!("{other:?}");
                Some(ExitReason::KvmError(format!("unexpected KVM exit {exit} at {}", self.registers_line())))
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.fd.set_kvm_immediate_exit(0);
                if let Some(profile) = &self.profile {
                    profile.note(&self.fd, &self.memory);
                }
                None
            }
            Err(error) => Some(ExitReason::KvmError(format!("KVM_RUN failed: {error}, at {}", self.registers_line()))),
        }
    }

    /// Only MSRs that the gate of `software` asked for come here.
    fn write_msr(&mut self, msr: u32, value: u64) -> Option<ExitReason> {
        let written = match &self.software {
            Some(software) => software.write_msr(&self.fd, msr, value),
            None => Ok(MsrWrite::NotOurs),
        };
        match written {
            Ok(MsrWrite::Done) => None,
            Ok(MsrWrite::NotOurs) => Some(ExitReason::KvmError(format!("unexpected exit for a write to MSR {msr:#x}"))),
            Err(error) => fail(Err(error)),
        }
    }

    /// The emulator gave up: complete the instruction where the host is known to need that, or end.
    fn internal_error(&mut self) -> Option<ExitReason> {
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, which fills this member of the union; the mapping lives.
        let suberror = unsafe { addr_of!((*self.run).__bindgen_anon_1.internal.suberror).read() };
        if suberror == SUBERROR_EMULATION
            && let Some(software) = &mut self.software
        {
            return software.complete(&mut self.fd, &self.memory).err().map(ExitReason::KvmError);
        }
        Some(ExitReason::KvmError(format!("KVM internal error, suberror {suberror}, at {}", self.registers_line())))
    }

    /// Where the vCPU stands, for reports.
    fn registers_line(&self) -> String {
        let (Ok(general), Ok(special)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return format!("vCPU {}, registers unreadable", self.index);
        };
        format!(
            "vCPU {} rip {:#x} rsp {:#x} rflags {:#x} cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} cs {:#x}",
            self.index,
            general.rip,
            general.rsp,
            general.rflags,
            special.cr0,
            special.cr2,
            special.cr3,
            special.cr4,
            special.cs.selector
        )
    }
}

/// Bytes of one access of a port exit: string instructions deliver many at once.
fn port_width(run: *const kvm_run, length: usize) -> usize {
    // SAFETY: the exit reason is KVM_EXIT_IO, which fills this member of the union; the mapping lives.
    let width = unsafe { addr_of!((*run).__bindgen_anon_1.io.size).read() };
    usize::from(width).clamp(1, length.max(1))
}

fn end_of(action: Action) -> Option<ExitReason> {
    match action {
        Action::None => None,
        Action::Reset => Some(ExitReason::Reset),
        Action::Poweroff => Some(ExitReason::Poweroff),
        Action::ExitStatus(status) => Some(ExitReason::ExitStatus(status)),
        Action::HostError(line) => Some(ExitReason::HostError(line)),
    }
}

/// A host's refusal in the middle of a run ends the machine.
fn fail(result: Result<(), VmError>) -> Option<ExitReason> {
    result.err().map(|error| ExitReason::KvmError(format!("{error}: {}", error.source)))
}

fn set_msrs(fd: &VcpuFd) -> Result<(), VmError> {
    let entry = kvm_msr_entry { index: MSR_MISC_ENABLE, data: MISC_ENABLE_FAST_STRING, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry]).expect("one entry fits");
    // Best effort: a host that does not know the MSR runs guests all the same.
    fd.set_msrs(&msrs).map_err(step("KVM_SET_MSRS")).map(drop)
}

/// LINT0 takes the PIC's interrupts, if the kernel knows of a PIC, and LINT1 the NMI, as firmware would have set.
fn set_local_interrupts(fd: &VcpuFd, external_interrupts: bool) -> Result<(), VmError> {
    let mut lapic = fd.get_lapic().map_err(step("KVM_GET_LAPIC"))?;
    let masked = if external_interrupts { 0 } else { APIC_LVT_MASKED };
    set_delivery_mode(&mut lapic, APIC_LVT_LINT0, APIC_MODE_EXTINT | masked);
    set_delivery_mode(&mut lapic, APIC_LVT_LINT1, APIC_MODE_NMI);
    fd.set_lapic(&lapic).map_err(step("KVM_SET_LAPIC"))
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let bytes = &mut lapic.regs[register..register + 4];
    let mut value = [0; 4];
    for (to, from) in value.iter_mut().zip(bytes.iter()) {
        *to = *from as u8;
    }
    let updated = (u32::from_le_bytes(value) & !(0x700 | APIC_LVT_MASKED)) | mode;
    for (to, from) in bytes.iter_mut().zip(updated.to_le_bytes()) {
        *to = from as _;
    }
}
