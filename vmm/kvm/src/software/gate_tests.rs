// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The system-call gate, with a vCPU in memory.

use super::super::test_guest::PROCESSORS;
use super::super::testing::MemoryVcpu;
use super::*;
use std::sync::Arc;

const PAGES: ReservedPages = ReservedPages {
    identity_map: GuestAddress(0xfffb_c000),
    tss: GuestAddress(0xfffb_d000),
    syscall_gate: GuestAddress(0x97000),
    syscall_gate_mmio: GuestAddress(0xd0ff_f000),
};

#[test]
fn code_is_in_the_kernel_half_and_stores_to_the_doorbell() {
    assert_eq!(SLOT_ADDRESS, 0xffff_fe80_0000_0000);
    let code = code_bytes();
    let displacement = u32::from_le_bytes(code[2..6].try_into().unwrap());
    assert_eq!(CODE_ADDRESS + 6 + u64::from(displacement), DOORBELL_ADDRESS);
}

#[test]
fn code_page_is_executable_and_read_only_in_user_mode() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    Gate::new(&memory, &PAGES).write_pages();
    let entry: u64 = memory.read_obj(GuestAddress(PAGES.syscall_gate.0 + 2 * PAGE + 8)).unwrap();
    assert_eq!(entry & (PRESENT | USER | WRITABLE | NO_EXECUTE), PRESENT | USER);
    let code: [u8; 8] = memory.read_obj(GuestAddress(entry & CR3_ADDRESS)).unwrap();
    assert_eq!(code, code_bytes());
}

const KERNEL_ENTRY: u64 = 0xffff_ffff_8160_0040;
const INTERRUPT_FLAG: u64 = 1 << 9;

/// A gate whose guest has set its MSRs, and a vCPU that has just executed SYSCALL at 0x1000.
fn after_syscall() -> (Gate, MemoryVcpu) {
    let gate = Gate::new(&GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap(), &PAGES);
    gate.star.store(0x0023_0010 << 32, Ordering::Relaxed);
    gate.lstar.store(KERNEL_ENTRY, Ordering::Relaxed);
    gate.flag_mask.store(INTERRUPT_FLAG | 0x100, Ordering::Relaxed);
    let mut vcpu = MemoryVcpu::new(Arc::clone(&PROCESSORS[0].1));
    vcpu.special.cs.dpl = 3;
    vcpu.registers.rip = CODE_ADDRESS + 6;
    vcpu.registers.rcx = 0x1002;
    vcpu.registers.r11 = INTERRUPT_FLAG | 2;
    vcpu.registers.rflags = 2;
    (gate, vcpu)
}

#[test]
fn system_call_enters_the_kernel_with_segments_from_star() {
    let (gate, mut vcpu) = after_syscall();
    gate.enter_kernel(&mut vcpu).unwrap();
    assert_eq!(vcpu.registers.rip, KERNEL_ENTRY);
    assert_eq!((vcpu.special.cs.selector, vcpu.special.cs.dpl, vcpu.special.cs.l), (0x10, 0, 1));
    assert_eq!((vcpu.special.ss.selector, vcpu.special.ss.dpl), (0x18, 0));
    assert_eq!((vcpu.registers.rcx, vcpu.raised), (0x1002, None));
    assert!(vcpu.interrupt_shadow, "no interrupt arrives before the kernel has its own stack");
}

#[test]
fn injected_interrupt_is_delivered_before_the_system_call() {
    let (gate, mut vcpu) = after_syscall();
    vcpu.interrupt_is_injected = true;
    gate.enter_kernel(&mut vcpu).unwrap();
    assert_eq!((vcpu.registers.rip, vcpu.registers.rflags), (0x1000, INTERRUPT_FLAG | 2));
    assert_eq!(vcpu.special.cs.dpl, 3, "the interrupt arrives in user mode");
    assert!(!vcpu.interrupt_shadow);
}

#[test]
fn jump_to_the_gate_is_a_page_fault() {
    let (gate, mut vcpu) = after_syscall();
    vcpu.registers.rflags |= INTERRUPT_FLAG;
    gate.enter_kernel(&mut vcpu).unwrap();
    assert_eq!(vcpu.special.cs.dpl, 3);
    assert_eq!((vcpu.registers.rip, vcpu.special.cr2), (CODE_ADDRESS, CODE_ADDRESS));
    assert_eq!(vcpu.raised, Some(Exception::page_fault(CODE_ADDRESS, FETCH_FAULT)));
}
