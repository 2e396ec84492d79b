// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The system-call gate of hosts whose `SYSCALL` from user mode leaves the user's selectors in CS
//! and SS. Runs on the vCPU threads; its memory is written once, before they start.
//!
//! `SYSCALL` sets RCX, R11, RFLAGS and RIP but not the privilege level, so the fetch at the
//! kernel's entry faults. With the gate it lands on a page that user mode *may* execute, whose only
//! instruction stores to an MMIO address. The store exits to user space, and the gate completes the
//! system call:
//!
//! 1. [`Gate::install`] builds page-table levels for one top-level slot that Linux does not use,
//!    with a page of code and a page of MMIO, in memory that the guest's memory map declares
//!    reserved, and makes KVM exit for the guest's accesses to STAR, LSTAR and SFMASK.
//! 2. [`Gate::write_msr`]: when a vCPU sets LSTAR, the slot is entered in the current page table
//!    (the kernel copies its half into every later one), and the CPU's LSTAR is set to the code
//!    page.
//! 3. [`Gate::enter_kernel`]: a system call arrived. CS and SS are set from STAR, RIP from the
//!    guest's LSTAR.
//!
//! A user program can also jump to the code page. It gains nothing: the flags that `SYSCALL` masks
//! (the interrupt flag among them, which user mode cannot clear) reveal the jump, and it gets the
//! page fault of a jump into the kernel's half.

use super::vcpu_state::{Exception, VcpuState};
use crate::GuestMemory;
use crate::vm::{ReservedPages, VmError, failed};
use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, Msrs, kvm_enable_cap, kvm_msr_entry, kvm_segment};
use kvm_ioctls::{MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{Bytes as _, GuestAddress};

const PAGE: u64 = 0x1000;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SFMASK: u32 = 0xc000_0084;

/// Top-level slot 509, 0xfffffe80_00000000: a hole above the ESP fixups (Linux,
/// Documentation/arch/x86/x86_64/mm.rst) that the host permits user mode to execute from.
const SLOT: u64 = 509;
const SLOT_ADDRESS: u64 = 0xffff_0000_0000_0000 | (SLOT << 39);
const CODE_ADDRESS: u64 = SLOT_ADDRESS + PAGE;
const DOORBELL_ADDRESS: u64 = SLOT_ADDRESS + 2 * PAGE;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED;
/// The address bits of CR3; the others are PCID and cache control.
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const SYSCALL_LENGTH: u64 = 2;

/// Page-fault error code of an instruction fetch in user mode from a page that is not present.
const FETCH_FAULT: u32 = (1 << 4) | (1 << 2);

/// What became of a write to an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsrWrite {
    /// The gate has set it.
    Done,
    /// The gate does not filter this MSR.
    Unknown,
}

/// The gate of one VM.
#[derive(Debug)]
pub(crate) struct Gate {
    memory: GuestMemory,
    /// First of the gate's pages in guest memory.
    pages: GuestAddress,
    /// The page that the gate's code stores to.
    mmio: GuestAddress,
    /// The guest's view of the MSRs. Linux sets the same values on every vCPU.
    star: AtomicU64,
    lstar: AtomicU64,
    flag_mask: AtomicU64,
}

impl Gate {
    /// Writes the gate's pages and filters the guest's accesses to the MSRs.
    pub(crate) fn install(vm: &VmFd, memory: &GuestMemory, reserved: &ReservedPages) -> Result<Self, VmError> {
        let reasons = u64::from(MsrExitReason::Filter.bits());
        let capability =
            kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, args: [reasons, 0, 0, 0], ..Default::default() };
        vm.enable_cap(&capability).map_err(failed("KVM_CAP_X86_USER_SPACE_MSR"))?;
        // A clear bit makes an access exit: STAR, LSTAR and SFMASK on writes (not CSTAR between
        // them), LSTAR on reads.
        let writes =
            MsrFilterRange { flags: MsrFilterRangeFlags::WRITE, base: MSR_STAR, msr_count: 4, bitmap: &[0b1111_0100] };
        let reads =
            MsrFilterRange { flags: MsrFilterRangeFlags::READ, base: MSR_LSTAR, msr_count: 1, bitmap: &[0b1111_1110] };
        vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &[writes, reads]).map_err(failed("KVM_X86_SET_MSR_FILTER"))?;
        let gate = Self::new(memory, reserved);
        gate.write_pages();
        Ok(gate)
    }

    fn new(memory: &GuestMemory, reserved: &ReservedPages) -> Self {
        Self {
            memory: memory.clone(),
            pages: reserved.syscall_gate,
            mmio: reserved.syscall_gate_mmio,
            star: AtomicU64::new(0),
            lstar: AtomicU64::new(0),
            flag_mask: AtomicU64::new(0),
        }
    }

    /// Handles the guest's write of `value` to `msr` on this vCPU.
    pub(crate) fn write_msr(&self, vcpu: &VcpuFd, msr: u32, value: u64) -> Result<MsrWrite, VmError> {
        let (shadow, real) = match msr {
            MSR_STAR => (&self.star, value),
            MSR_SFMASK => (&self.flag_mask, value),
            MSR_LSTAR => {
                let special = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
                let entry = GuestAddress((special.cr3 & CR3_ADDRESS) + SLOT * 8);
                // Fails if the table is outside guest memory. The guest's first system call then
                // ends in a page fault.
                let _ = self.memory.write_obj(self.pages.0 | TABLE, entry);
                (&self.lstar, CODE_ADDRESS)
            }
            _ => return Ok(MsrWrite::Unknown),
        };
        shadow.store(value, Ordering::Relaxed);
        let entry = kvm_msr_entry { index: msr, data: real, ..Default::default() };
        let msrs = Msrs::from_entries(&[entry]).expect("one entry fits");
        vcpu.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
        Ok(MsrWrite::Done)
    }

    /// What the guest reads from `msr`; `None` unless the gate filters it.
    pub(crate) fn read_msr(&self, msr: u32) -> Option<u64> {
        (msr == MSR_LSTAR).then(|| self.lstar.load(Ordering::Relaxed))
    }

    /// STAR, LSTAR and SFMASK as the guest wrote them.
    pub(crate) fn shadows(&self) -> [u64; 3] {
        [&self.star, &self.lstar, &self.flag_mask].map(|shadow| shadow.load(Ordering::Relaxed))
    }

    /// Sets what [`shadows`](Self::shadows) returns. No vCPU runs.
    pub(crate) fn set_shadows(&self, shadows: [u64; 3]) {
        for (shadow, value) in [&self.star, &self.lstar, &self.flag_mask].into_iter().zip(shadows) {
            shadow.store(value, Ordering::Relaxed);
        }
    }

    /// Whether an MMIO write to `address` comes from the gate's code.
    pub(crate) fn is_system_call(&self, address: u64) -> bool {
        address == self.mmio.0
    }

    /// Completes a system call that reached the code page.
    ///
    /// # Errors
    /// Reading or writing the vCPU's state failed.
    pub(crate) fn enter_kernel(&self, vcpu: &mut dyn VcpuState) -> io::Result<()> {
        let mut registers = vcpu.registers()?;
        let mut special = vcpu.special_registers()?;
        let by_syscall = registers.rflags & self.flag_mask.load(Ordering::Relaxed) == 0;
        if special.cs.dpl == 3 && by_syscall && vcpu.interrupt_is_injected()? {
            // While user mode runs, this host takes interrupts regardless of the interrupt flag.
            // This one would arrive at the kernel's entry, which has no stack of its own yet.
            // Deliver it before SYSCALL, which then executes again.
            registers.rip = registers.rcx.wrapping_sub(SYSCALL_LENGTH);
            registers.rflags = registers.r11;
            return vcpu.set_registers(&registers);
        }
        if special.cs.dpl == 3 && by_syscall {
            let selector = ((self.star.load(Ordering::Relaxed) >> 32) & 0xfffc) as u16;
            special.cs = code_segment(selector);
            special.ss = stack_segment(selector.wrapping_add(8));
            registers.rip = self.lstar.load(Ordering::Relaxed);
            vcpu.set_special_registers(&special)?;
            vcpu.set_registers(&registers)?;
            // The same applies to an interrupt that becomes pending before the guest is entered:
            // until it has emulated the kernel's first instruction, this host treats the vCPU as
            // one in user mode.
            return vcpu.begin_interrupt_shadow();
        }
        // A jump to the code page faults like one to any page of the kernel's half.
        registers.rip = CODE_ADDRESS;
        special.cr2 = CODE_ADDRESS;
        vcpu.set_registers(&registers)?;
        vcpu.set_special_registers(&special)?;
        vcpu.raise(Exception::page_fault(CODE_ADDRESS, FETCH_FAULT))
    }

    /// Three table levels, the code page, and the mapping of the doorbell.
    fn write_pages(&self) {
        let page = |number: u64| self.pages.0 + number * PAGE;
        let (directory_pointers, directory, table, code) = (page(0), page(1), page(2), page(3));
        let doorbell = self.mmio.0 | PRESENT | WRITABLE | USER | ACCESSED | DIRTY | NO_EXECUTE;
        let entries = [
            (directory_pointers, directory | TABLE),
            (directory, table | TABLE),
            (table + 8, code | PRESENT | USER | ACCESSED),
            (table + 16, doorbell),
        ];
        for (address, entry) in entries {
            self.memory.write_obj(entry, GuestAddress(address)).expect("the gate's pages are guest memory");
        }
        self.memory.write_slice(&code_bytes(), GuestAddress(code)).expect("the gate's pages are guest memory");
    }
}

/// `mov [rip + displacement], al; jmp .`
fn code_bytes() -> [u8; 8] {
    let next = CODE_ADDRESS + 6;
    let displacement = u32::try_from(DOORBELL_ADDRESS - next).expect("the doorbell is the next page").to_le_bytes();
    let [a, b, c, d] = displacement;
    [0x88, 0x05, a, b, c, d, 0xeb, 0xfe]
}

/// The code segment that `SYSCALL` loads (AMD64 vol. 3, SYSCALL).
fn code_segment(selector: u16) -> kvm_segment {
    kvm_segment { selector, limit: u32::MAX, type_: 0xb, s: 1, present: 1, l: 1, g: 1, ..Default::default() }
}

/// The stack segment that `SYSCALL` loads.
fn stack_segment(selector: u16) -> kvm_segment {
    kvm_segment { selector, limit: u32::MAX, type_: 0x3, s: 1, present: 1, db: 1, g: 1, ..Default::default() }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
