// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One virtual CPU: its state before the first instruction, and its run loop. Created on `main`,
//! runs on `vcpu-N`.
#![allow(unsafe_code)] // Reads three fields of `kvm_run` that kvm-ioctls does not return.

use crate::GuestMemory;
use crate::cpuid;
use crate::entry_state::EntryState;
use crate::exit_reason::ExitReason;
use crate::host::KvmHost;
use crate::kick::{Kickable, unblock_signal};
use crate::profile::Profile;
use crate::restriction::THROTTLE;
use crate::run_control::{RunControl, RunRequest};
use crate::saved::{StateError, StateExtent};
use crate::software::{CompletionCounts, MsrWrite, SoftwareVcpu};
use crate::vm::{KvmVm, VmError, failed};
use kvm_bindings::{
    CpuId, KVM_EXIT_NOTIFY, KVM_EXIT_X86_BUS_LOCK, KVM_MP_STATE_RUNNABLE, KVM_NOTIFY_CONTEXT_INVALID,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, Msrs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::ptr::addr_of;
use std::sync::Arc;

/// `IA32_MISC_ENABLE` with fast strings, as Intel's firmware leaves it (Intel SDM vol. 4). KVM
/// emulates it for guests on AMD, too, whose kernels do not read it.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;

/// Local vector table entries of the APIC page (Intel SDM vol. 3, 11.5.1).
const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const APIC_LVT_MASKED: u32 = 0x1_0000;
const APIC_MODE_NMI: u32 = 0x400;
const APIC_MODE_EXTINT: u32 = 0x700;

/// Exits that one instruction makes at most after its first: KVM splits an MMIO access into parts of
/// 8 bytes, at the widest registers of 64 bytes, twice if it crosses a page.
const MAX_ACCESS_PARTS: u32 = 32;

/// `suberror` of `KVM_EXIT_INTERNAL_ERROR`: the emulator does not know the instruction.
const SUBERROR_EMULATION: u32 = 1;

/// The devices of the machine, by address. A vCPU thread calls it for every port and MMIO exit;
/// several at once.
pub trait IoBus {
    /// Reads one access of 1, 2 or 4 bytes from a port.
    fn port_read(&self, port: u16, data: &mut [u8]);
    /// Writes one access of 1, 2 or 4 bytes to a port; `Some` stops the machine.
    fn port_write(&self, port: u16, data: &[u8]) -> Option<ExitReason>;
    /// Reads one access of 1 to 8 bytes from a guest-physical address.
    fn mmio_read(&self, address: u64, data: &mut [u8]);
    /// Writes one access of 1 to 8 bytes to a guest-physical address; `Some` stops the machine.
    fn mmio_write(&self, address: u64, data: &[u8]) -> Option<ExitReason>;
}

/// A virtual CPU, ready to run.
pub struct Vcpu {
    index: u8,
    pub(super) fd: VcpuFd,
    /// The leaves that it was created with.
    pub(super) cpuid: CpuId,
    /// What of it is saved.
    pub(super) extent: Arc<StateExtent>,
    /// The page shared with the kernel; mapped as long as `fd` lives.
    run: *mut kvm_run,
    software: Option<SoftwareVcpu>,
    memory: GuestMemory,
    profile: Option<Arc<Profile>>,
}

// SAFETY: `run` points into a mapping that `fd` owns and moves with it; one thread at a time has
// the `Vcpu`.
unsafe impl Send for Vcpu {}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Creates all vCPUs of `vm`: the first starts with `entry`, the others wait for INIT and SIPI.
///
/// # Errors
/// An ioctl failed.
pub fn create_vcpus(host: &KvmHost, vm: &KvmVm, cpus: u8, entry: &EntryState) -> Result<Vec<Vcpu>, VmError> {
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
        let vcpu = Self::with_reset_state(host, vm, supported, index, cpus)?;
        let fd = &vcpu.fd;
        set_msrs(fd)?;
        set_local_interrupts(fd, entry.external_interrupts)?;
        if index == 0 {
            let reset = fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
            fd.set_sregs(&entry.special_registers(reset)).map_err(failed("KVM_SET_SREGS"))?;
            fd.set_regs(&entry.general_registers()).map_err(failed("KVM_SET_REGS"))?;
            fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).map_err(failed("KVM_SET_MP_STATE"))?;
        }
        Ok(vcpu)
    }

    /// A vCPU with its CPUID, and otherwise as KVM resets it.
    pub(super) fn with_reset_state(
        host: &KvmHost,
        vm: &KvmVm,
        supported: &CpuId,
        index: u8,
        cpus: u8,
    ) -> Result<Self, VmError> {
        let mut fd = vm.create_vcpu(index)?;
        let cpuid = cpuid::for_vcpu(host, supported, index, cpus);
        fd.set_cpuid2(&cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        let run = std::ptr::from_mut(fd.get_kvm_run());
        let software = vm.software_vcpu()?;
        let (extent, memory) = (Arc::clone(&vm.extent), vm.memory().clone());
        Ok(Self { index, fd, cpuid, extent, run, software, memory, profile: None })
    }

    /// Completes the port or MMIO access that the guest has under way. KVM stores what was read, and
    /// advances RIP, only when `KVM_RUN` is called again. No instruction of the guest is executed.
    /// `Some` stops the machine.
    pub(super) fn complete_access(&mut self, bus: &impl IoBus) -> Option<ExitReason> {
        for _ in 0..MAX_ACCESS_PARTS {
            self.fd.set_kvm_immediate_exit(1);
            if let Some(reason) = self.run_once(bus) {
                return Some(reason);
            }
            // Cleared by `run_once` when KVM_RUN returned without another exit.
            if self.fd.get_kvm_run().immediate_exit == 0 {
                return None;
            }
        }
        Some(ExitReason::KvmError(format!("an access does not end, at {}", self.registers_line())))
    }

    /// Position among the machine's vCPUs, and its APIC id.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Instructions completed in user space; `None` where the host runs guest kernel mode on the
    /// processor.
    #[must_use]
    pub fn completions(&self) -> Option<&CompletionCounts> {
        self.software.as_ref().map(SoftwareVcpu::counts)
    }

    /// Records the call chain in `profile` at each kick from now on.
    pub fn set_profile(&mut self, profile: Arc<Profile>) {
        self.profile = Some(profile);
    }

    /// Runs the guest until it stops the machine. `None` once `control` requests a stop and the
    /// thread is kicked.
    pub fn run(&mut self, bus: &impl IoBus, control: &RunControl) -> Option<ExitReason> {
        unblock_signal();
        let _kickable = Kickable::new(self.run);
        loop {
            match control.request() {
                RunRequest::Run => {
                    if let Some(reason) = self.run_once(bus) {
                        return Some(reason);
                    }
                }
                RunRequest::Pause => {
                    control.wait_while_paused();
                    // Prevents false reports of the guest's watchdogs (KVM API, KVM_KVMCLOCK_CTRL).
                    // Fails in guests that do not use kvmclock, which is harmless.
                    let _ = self.fd.kvmclock_ctrl();
                }
                RunRequest::Save => match self.save(bus) {
                    Err(StateError::Stopped(reason)) => {
                        control.deliver(self.index, Err(StateError::Stopped(reason.clone())));
                        return Some(reason);
                    }
                    saved => control.deliver(self.index, saved),
                },
                RunRequest::Stop => return None,
            }
        }
    }

    /// One `KVM_RUN` and the handling of its exit.
    fn run_once(&mut self, bus: &impl IoBus) -> Option<ExitReason> {
        let run = self.run;
        match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                let width = port_width(run, data.len());
                data.chunks_mut(width).for_each(|access| bus.port_read(port, access));
                None
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                let width = port_width(run, data.len());
                data.chunks(width).find_map(|access| bus.port_write(port, access))
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                bus.mmio_read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => match &mut self.software {
                Some(software) if software.is_system_call(address) => {
                    software.enter_kernel(&mut self.fd).err().map(ExitReason::KvmError)
                }
                _ => bus.mmio_write(address, data),
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
            Ok(VcpuExit::Unsupported(KVM_EXIT_X86_BUS_LOCK)) => {
                throttle();
                None
            }
            Ok(VcpuExit::Unsupported(KVM_EXIT_NOTIFY)) => self.notify_exit(),
            Ok(other) => {
                let exit = format!("{other:?}");
                Some(ExitReason::KvmError(format!("unexpected KVM exit {exit} at {}", self.registers_line())))
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.fd.set_kvm_immediate_exit(0);
                if let Some(profile) = &self.profile {
                    profile.record(&self.fd, &self.memory);
                }
                None
            }
            Err(error) => Some(ExitReason::KvmError(format!("KVM_RUN failed: {error}, at {}", self.registers_line()))),
        }
    }

    /// Handles a guest's write to an MSR. Only those that the system-call gate filters exit.
    fn write_msr(&mut self, msr: u32, value: u64) -> Option<ExitReason> {
        let written = match &self.software {
            Some(software) => software.write_msr(&self.fd, msr, value),
            None => Ok(MsrWrite::Unknown),
        };
        match written {
            Ok(MsrWrite::Done) => None,
            Ok(MsrWrite::Unknown) => Some(ExitReason::KvmError(format!("unexpected exit for a write to MSR {msr:#x}"))),
            Err(error) => Some(ExitReason::KvmError(format!("{error}: {}", error.source))),
        }
    }

    /// The emulator failed: completes the instruction where the host emulates guest kernel mode.
    fn internal_error(&mut self) -> Option<ExitReason> {
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, which fills this member of the union;
        // the mapping lives.
        let suberror = unsafe { addr_of!((*self.run).__bindgen_anon_1.internal.suberror).read() };
        if suberror == SUBERROR_EMULATION
            && let Some(software) = &mut self.software
        {
            return software.complete(&mut self.fd, &self.memory).err().map(ExitReason::KvmError);
        }
        Some(ExitReason::KvmError(format!("KVM internal error, suberror {suberror}, at {}", self.registers_line())))
    }

    /// The guest took no interrupt for the whole window. Its vCPU goes on, slowed down, unless its
    /// state is lost.
    fn notify_exit(&self) -> Option<ExitReason> {
        // SAFETY: the exit reason is KVM_EXIT_NOTIFY, which fills this member of the union; the
        // mapping lives.
        let flags = unsafe { addr_of!((*self.run).__bindgen_anon_1.notify.flags).read() };
        if flags & KVM_NOTIFY_CONTEXT_INVALID != 0 {
            return Some(ExitReason::KvmError(format!("the processor lost the state of vCPU {}", self.index)));
        }
        throttle();
        None
    }

    /// The vCPU's position, for reports.
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

/// Bytes of one access of a port exit: string instructions deliver several accesses in one exit.
fn port_width(run: *const kvm_run, length: usize) -> usize {
    // SAFETY: the exit reason is KVM_EXIT_IO, which fills this member of the union; the mapping
    // lives.
    let width = unsafe { addr_of!((*run).__bindgen_anon_1.io.size).read() };
    usize::from(width).clamp(1, length.max(1))
}

/// Best effort: KVM_SET_MSRS skips an MSR that the host does not know.
fn set_msrs(fd: &VcpuFd) -> Result<(), VmError> {
    let entry = kvm_msr_entry { index: MSR_MISC_ENABLE, data: MISC_ENABLE_FAST_STRING, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry]).expect("one entry fits");
    fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS")).map(drop)
}

/// Waits on a futex, a call that the thread has anyway. A kick may end it early.
fn throttle() {
    std::thread::park_timeout(THROTTLE);
}

/// Connects LINT0 to the PIC, if the kernel sets one up, and LINT1 to the NMI, as firmware does.
fn set_local_interrupts(fd: &VcpuFd, external_interrupts: bool) -> Result<(), VmError> {
    let mut lapic = fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
    let masked = if external_interrupts { 0 } else { APIC_LVT_MASKED };
    set_delivery_mode(&mut lapic, APIC_LVT_LINT0, APIC_MODE_EXTINT | masked);
    set_delivery_mode(&mut lapic, APIC_LVT_LINT1, APIC_MODE_NMI);
    fd.set_lapic(&lapic).map_err(failed("KVM_SET_LAPIC"))
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
