// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real vCPU runs a program of instructions that emulating hosts leave undone. Where KVM does them all, nothing is
//! completed and the same results are expected: a CPU and the completions must not be told apart.
#![allow(unsafe_code)] // The guest's memory, and its program, which the assembler makes.

use std::sync::Arc;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region, kvm_xcrs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::guest::{BASE, CODE, DATA, Guest};
use super::{CompletionCounts, CompletionState, Processor, VcpuState, complete};

const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const STACK: u64 = 0x20000;
/// Not mapped: the 2 MiB behind those that are.
const NOWHERE: u64 = BASE + (2 << 20);
const INTERNAL_ERROR_EXITS: usize = 200;

std::arch::global_asm!(
    ".globl coracle_program",
    ".globl coracle_program_breakpoint",
    ".globl coracle_program_invalid",
    ".globl coracle_program_fault",
    ".globl coracle_program_end",
    "coracle_program:",
    "ldmxcsr [rbx]",
    "stmxcsr [rbx + 4]",
    "mov rcx, 0xff00ff",
    "popcnt rax, rcx",
    "mov [rbx + 8], rax",
    "fninit",
    "fnstcw [rbx + 16]",
    // Everything saved; then XMM0 and the upper half of YMM0 changed in memory and restored.
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rbx + 0x40]",
    "mov qword ptr [rbx + 0x40 + 160], 0x12345678",
    "mov qword ptr [rbx + 0x40 + 576], 0x87654",
    "or qword ptr [rbx + 0x40 + 512], 7",
    "xrstor64 [rbx + 0x40]",
    "mov edx, -1",
    "mov eax, -1",
    "xsavec64 [rbx + 0x1000]",
    // 16 bytes at 0x2000 are zero: the first exchange stores, the second loads.
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, 77",
    "lock cmpxchg16b [rbx + 0x2000]",
    "setz byte ptr [rbx + 0x3000]",
    "lock cmpxchg16b [rbx + 0x2000]",
    "setz byte ptr [rbx + 0x3001]",
    "mov [rbx + 0x3008], rdx",
    "rdtscp",
    "mov [rbx + 0x3030], rax",
    "mov eax, 2",
    "invpcid rax, [rbx + 0x3080]",
    "int3",
    "coracle_program_after_int3:",
    "ud2",
    "popcnt rax, [rsi]",
    "hlt",
    "coracle_program_breakpoint:",
    "mov rax, [rsp]",
    "lea rdx, [rip + coracle_program_after_int3]",
    "sub rax, rdx",
    "mov [rbx + 0x3010], rax",
    "iretq",
    "coracle_program_invalid:",
    "inc qword ptr [rbx + 0x3018]",
    "add qword ptr [rsp], 2",
    "iretq",
    "coracle_program_fault:",
    "mov rax, cr2",
    "mov [rbx + 0x3020], rax",
    "pop qword ptr [rbx + 0x3028]",
    "hlt",
    "coracle_program_end:",
);

unsafe extern "C" {
    #[link_name = "coracle_program"]
    static PROGRAM: u8;
    #[link_name = "coracle_program_breakpoint"]
    static BREAKPOINT: u8;
    #[link_name = "coracle_program_invalid"]
    static INVALID: u8;
    #[link_name = "coracle_program_fault"]
    static FAULT: u8;
    #[link_name = "coracle_program_end"]
    static END: u8;
}

/// Bytes from the program's start to one of its labels.
fn offset(label: *const u8) -> usize {
    label.addr() - (&raw const PROGRAM).addr()
}

/// A VM with the memory of a test guest and one vCPU in its state, or the reason why there is none.
fn start(guest: &Guest) -> Result<(VmFd, VcpuFd), String> {
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
    let vm = kvm.create_vm().unwrap();
    let region = guest.memory.iter().next().unwrap();
    let slot = kvm_userspace_memory_region {
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the guest's memory outlives the VM in every test of this file.
    unsafe { vm.set_user_memory_region(slot) }.unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap()).unwrap();

    let mut special = vcpu.get_sregs().unwrap();
    let wanted = &guest.vcpu.special;
    (special.cr0, special.cr3, special.efer) = (wanted.cr0, wanted.cr3, wanted.efer | 1 << 8);
    special.cr4 = wanted.cr4 | 1 << 5;
    let data =
        kvm_segment { present: 1, s: 1, type_: 3, limit: u32::MAX, g: 1, db: 1, selector: 0x18, ..Default::default() };
    special.cs = kvm_segment { limit: u32::MAX, g: 1, ..wanted.cs };
    for segment in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *segment = data;
    }
    (special.gdt.base, special.gdt.limit) = (BASE + GDT, 0x1f);
    (special.idt.base, special.idt.limit) = (BASE + IDT, 0xfff);
    vcpu.set_sregs(&special).unwrap();
    vcpu.set_regs(&guest.vcpu.registers).unwrap();
    Ok((vm, vcpu))
}

#[test]
fn a_program_of_undone_instructions_gives_what_a_cpu_gives() {
    let length = offset(&raw const END);
    // SAFETY: the labels bound the program, which is part of this one.
    let program = unsafe { std::slice::from_raw_parts(&raw const PROGRAM, length) };
    let mut guest = Guest::about_to(program);
    guest.poke(GDT + 0x10, 0x00af_9b00_0000_ffff);
    guest.poke(GDT + 0x18, 0x00cf_9300_0000_ffff);
    for (vector, label) in [(3, &raw const BREAKPOINT), (6, &raw const INVALID), (14, &raw const FAULT)] {
        let handler = BASE + CODE + offset(label) as u64;
        let gate = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        guest.poke(IDT + 16 * vector, gate);
        guest.poke(IDT + 16 * vector + 8, handler >> 32);
    }
    guest.vcpu.registers.rsp = BASE + STACK;
    guest.vcpu.registers.rsi = NOWHERE;
    guest.poke(DATA, 0x9f80);

    let (vm, mut vcpu) = match start(&guest) {
        Ok(started) => started,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = 7;
    vcpu.set_xcrs(&xcrs).unwrap();
    let mut state = CompletionState::new(&vm, Arc::new(Processor::host())).unwrap();
    assert_eq!(state.of(&mut vcpu).unwrap().enabled_components().unwrap(), 7);

    let mut counts = CompletionCounts::default();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => break,
            Ok(VcpuExit::InternalError) => {}
            other => panic!("{other:?}"),
        }
        counts.record(&complete(&mut state.of(&mut vcpu).unwrap(), &guest.memory).unwrap());
        let total: u64 = counts.by_name().iter().map(|(_, count)| count).sum();
        assert!(total < INTERNAL_ERROR_EXITS as u64, "{:?}", counts.by_name());
    }
    println!("completed: {:?}", counts.by_name());

    let word = |offset: u64| guest.peek(DATA + offset);
    assert_eq!(word(0), 0x9f80_0000_9f80);
    assert_eq!(word(8), 16);
    assert_eq!(word(16) & 0xffff, 0x37f);
    assert_eq!(word(0x1000 + 512), 7, "x87, XMM and YMM are in use");
    assert_eq!(word(0x1000 + 520), 1 << 63 | 7);
    assert_eq!(word(0x1000 + 24) & 0xffff_ffff, 0x9f80);
    assert_eq!(word(0x1000 + 160), 0x1234_5678);
    assert_eq!(word(0x1000 + 576), 0x87654);
    assert_eq!((word(0x2000), word(0x2008)), (BASE + DATA, 77));
    assert_eq!(word(0x3000) & 0xffff, 1, "the first exchange stored, the second did not");
    assert_eq!(word(0x3008), 77);
    assert_ne!(word(0x3030), 0, "the time goes on");
    assert_eq!(word(0x3010), 0, "the breakpoint returns behind itself");
    assert_eq!(word(0x3018), 1, "one invalid opcode");
    assert_eq!((word(0x3020), word(0x3028)), (NOWHERE, 0));
    assert_eq!(guest.memory.read_obj::<u64>(GuestAddress(DATA + 0x40 + 160)).unwrap(), 0x1234_5678);
}
