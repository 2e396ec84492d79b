// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A KVM vCPU runs a program of instructions that emulating hosts do not know. Where KVM executes
//! them all, nothing is completed, and the same results are expected: the guest cannot tell a
//! completion from the CPU.
#![allow(unsafe_code)] // The guest's memory, and its program, which the assembler produces.

use super::registers::CR4_FS_GS_BASE;
use super::test_guest::{BASE, CODE, DATA, Guest};
use super::{CompletionCounts, CompletionState, Processor, VcpuState, complete, detect};
use crate::host::KvmKind;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_segment, kvm_userspace_memory_region, kvm_xcrs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const STACK: u64 = 0x20000;
/// Not mapped: after the 2 MiB that are.
const NOWHERE: u64 = BASE + (2 << 20);
/// Bound on the completions of a run.
const MAX_COMPLETIONS: u64 = 200;

/// Offset in the data of the flags by which the program skips instructions that not every CPU has.
const FEATURES: u64 = 0x3100;
const FEATURE_XSAVEC: u64 = 1 << 0;
const FEATURE_RDTSCP: u64 = 1 << 1;
const FEATURE_INVPCID: u64 = 1 << 2;

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
    // Saves everything, changes the x87 control word, XMM0 and the upper half of YMM0 in memory,
    // restores them.
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rbx + 0x40]",
    "mov word ptr [rbx + 0x40], 0x27f",
    "mov qword ptr [rbx + 0x40 + 160], 0x12345678",
    "mov qword ptr [rbx + 0x40 + 576], 0x87654",
    "or qword ptr [rbx + 0x40 + 512], 7",
    "xrstor64 [rbx + 0x40]",
    "fnstcw [rbx + 24]",
    "test byte ptr [rbx + 0x3100], 1",
    "jz 2f",
    "mov edx, -1",
    "mov eax, -1",
    "xsavec64 [rbx + 0x1000]",
    "2:",
    // The 16 bytes at 0x2000 are zero: the first exchange stores, the second loads.
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, 77",
    "lock cmpxchg16b [rbx + 0x2000]",
    "setz byte ptr [rbx + 0x3000]",
    "lock cmpxchg16b [rbx + 0x2000]",
    "setz byte ptr [rbx + 0x3001]",
    "mov [rbx + 0x3008], rdx",
    "test byte ptr [rbx + 0x3100], 2",
    "jz 2f",
    "rdtscp",
    "mov [rbx + 0x3030], rax",
    "2:",
    "test byte ptr [rbx + 0x3100], 4",
    "jz 2f",
    "mov eax, 2",
    "invpcid rax, [rbx + 0x3080]",
    "2:",
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

/// A VM with the memory of a test guest and one vCPU in its state, and the features that the
/// program finds. Or the reason why this host cannot run it.
fn start(guest: &Guest) -> Result<(VmFd, VcpuFd, u64), String> {
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
    let software = detect::kind(&kvm).unwrap() == KvmKind::Software;
    // The emulating host does not list all that is completed for it. User mode has the CPU's own
    // features.
    let has = |function, index, register: fn(&kvm_cpuid_entry2) -> u32, bit: u32| {
        let leaf = supported.as_slice().iter().find(|leaf| leaf.function == function && leaf.index == index);
        software || leaf.is_some_and(|leaf| register(leaf) >> bit & 1 != 0)
    };
    let needed = [
        (is_x86_feature_detected!("avx") && has(1, 0, |leaf| leaf.ecx, 28), "AVX"),
        (is_x86_feature_detected!("xsave") && has(1, 0, |leaf| leaf.ecx, 26), "XSAVE"),
        (is_x86_feature_detected!("popcnt") && has(1, 0, |leaf| leaf.ecx, 23), "POPCNT"),
        (is_x86_feature_detected!("cmpxchg16b") && has(1, 0, |leaf| leaf.ecx, 13), "CMPXCHG16B"),
    ];
    if let Some((_, name)) = needed.iter().find(|(present, _)| !present) {
        return Err(format!("a guest on this host has no {name}"));
    }
    let optional = [
        (has(0xd, 1, |leaf| leaf.eax, 1), FEATURE_XSAVEC),
        (has(0x8000_0001, 0, |leaf| leaf.edx, 27), FEATURE_RDTSCP),
        (has(7, 0, |leaf| leaf.ebx, 10), FEATURE_INVPCID),
    ];
    let features = optional.iter().filter(|(present, _)| *present).fold(0, |set, (_, feature)| set | feature);

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
    vcpu.set_cpuid2(&supported).unwrap();

    let mut special = vcpu.get_sregs().unwrap();
    let initial = &guest.vcpu.special;
    (special.cr0, special.cr3, special.efer) = (initial.cr0, initial.cr3, initial.efer | 1 << 8);
    special.cr4 = initial.cr4 & !CR4_FS_GS_BASE | 1 << 5;
    let data =
        kvm_segment { present: 1, s: 1, type_: 3, limit: u32::MAX, g: 1, db: 1, selector: 0x18, ..Default::default() };
    special.cs = kvm_segment { limit: u32::MAX, g: 1, ..initial.cs };
    for segment in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *segment = data;
    }
    (special.gdt.base, special.gdt.limit) = (BASE + GDT, 0x1f);
    (special.idt.base, special.idt.limit) = (BASE + IDT, 0xfff);
    vcpu.set_sregs(&special).unwrap();
    vcpu.set_regs(&guest.vcpu.registers).unwrap();
    Ok((vm, vcpu, features))
}

#[test]
fn program_has_the_same_results_completed_and_executed() {
    let length = offset(&raw const END);
    // SAFETY: the labels bound the program, which is part of this one.
    let program = unsafe { std::slice::from_raw_parts(&raw const PROGRAM, length) };
    let mut guest = Guest::with_code(program);
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

    let (vm, mut vcpu, features) = match start(&guest) {
        Ok(started) => started,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    guest.poke(DATA + FEATURES, features);
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = 7;
    vcpu.set_xcrs(&xcrs).unwrap();
    let mut state = match CompletionState::new(&vm, Arc::new(Processor::host())) {
        Ok(state) => state,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    assert_eq!(state.access(&mut vcpu).unwrap().enabled_components().unwrap(), 7);

    let mut counts = CompletionCounts::default();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => break,
            Ok(VcpuExit::InternalError) => {}
            other => panic!("{other:?}"),
        }
        counts.record(&complete(&mut state.access(&mut vcpu).unwrap(), &guest.memory).unwrap());
        let total: u64 = counts.by_name().iter().map(|(_, count)| count).sum();
        assert!(total < MAX_COMPLETIONS, "{:?}", counts.by_name());
    }
    println!("completed: {:?}", counts.by_name());

    let word = |offset: u64| guest.peek(DATA + offset);
    assert_eq!(word(0), 0x9f80_0000_9f80);
    assert_eq!(word(8), 16);
    assert_eq!((word(16) & 0xffff, word(24) & 0xffff), (0x37f, 0x27f), "the control word after FNINIT and XRSTOR");
    if features & FEATURE_XSAVEC != 0 {
        assert_eq!(word(0x1000 + 512), 7, "x87, XMM and YMM are in use");
        assert_eq!(word(0x1000 + 520), 1 << 63 | 7);
        assert_eq!(word(0x1000) & 0xffff, 0x27f);
        assert_eq!(word(0x1000 + 24) & 0xffff_ffff, 0x9f80);
        assert_eq!(word(0x1000 + 160), 0x1234_5678);
        assert_eq!(word(0x1000 + 576), 0x87654);
    }
    assert_eq!((word(0x2000), word(0x2008)), (BASE + DATA, 77));
    assert_eq!(word(0x3000) & 0xffff, 1, "the first exchange stored, the second did not");
    assert_eq!(word(0x3008), 77);
    assert_eq!(word(0x3030) != 0, features & FEATURE_RDTSCP != 0, "the time stamp");
    assert_eq!(word(0x3010), 0, "the breakpoint returns to the next instruction");
    assert_eq!(word(0x3018), 1, "one invalid opcode");
    assert_eq!((word(0x3020), word(0x3028)), (NOWHERE, 0));
    assert_eq!(guest.memory.read_obj::<u64>(GuestAddress(DATA + 0x40 + 160)).unwrap(), 0x1234_5678);
}
