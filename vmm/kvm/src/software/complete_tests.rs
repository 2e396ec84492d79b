// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps of a completion, and the instructions that are neither arithmetic nor of the XSAVE
//! family.

use super::Exception;
use super::registers::{
    CR0_EMULATION, CR0_MONITOR, CR0_TASK_SWITCHED, CR4_FS_GS_BASE, CR4_FXSR, CR4_TIME_STAMP_DISABLE,
    FLAG_ALIGNMENT_CHECK, FLAG_RESUME, FLAG_TRAP, FLAG_ZERO,
};
use super::test_guest::{BASE, CODE, DATA, Guest, MEMORY, PRESENT, PROCESSORS, WRITABLE};
use super::xsave_layout::{AVX, HEADER, MXCSR, SSE, X87, XMM_REGISTERS, XSTATE_BV, ZMM_HIGH, extended};
use vm_memory::{Bytes, GuestAddress};

const UD2: &[u8] = &[0x0f, 0x0b];
const INT3: &[u8] = &[0xcc];
const CLAC: &[u8] = &[0x0f, 0x01, 0xca];
const STAC: &[u8] = &[0x0f, 0x01, 0xcb];
const NOP: &[u8] = &[0x90];
const FNINIT: &[u8] = &[0xdb, 0xe3];
const EMMS: &[u8] = &[0x0f, 0x77];
const FWAIT: &[u8] = &[0x9b];
const FNSTSW_AX: &[u8] = &[0xdf, 0xe0];
const FNSTCW: &[u8] = &[0xd9, 0x3b];
const FLDCW: &[u8] = &[0xd9, 0x2b];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x13];
const STMXCSR: &[u8] = &[0x0f, 0xae, 0x1b];
const VZEROUPPER: &[u8] = &[0xc5, 0xf8, 0x77];
const CMPXCHG16B: &[u8] = &[0x48, 0x0f, 0xc7, 0x0b];
const LOCK_CMPXCHG16B: &[u8] = &[0xf0, 0x48, 0x0f, 0xc7, 0x0b];

/// Makes the guest execute its code in user mode (CPL 3).
fn as_user(mut guest: Guest) -> Guest {
    guest.vcpu.special.ss.dpl = 3;
    guest.map(CODE, CODE | PRESENT | WRITABLE | 4);
    guest
}

/// A guest with these x87 control, status and tag words, and x87 in use.
fn with_x87(code: &[u8], control: u16, status: u16, tags: u8) -> Guest {
    let mut guest = Guest::with_code(code);
    let state = &mut guest.vcpu.extended_state;
    state[..2].copy_from_slice(&control.to_le_bytes());
    state[2..4].copy_from_slice(&status.to_le_bytes());
    state[4] = tags;
    state[XSTATE_BV.start] = X87 as u8;
    guest
}

#[test]
fn unknown_instruction_is_reported_with_bytes_and_rip() {
    // paddb xmm0, [rbx]
    let mut guest = Guest::with_code(&[0x66, 0x0f, 0xfc, 0x03]);
    let before = guest.vcpu.registers;
    let line = guest.complete().unwrap_err().to_string();
    assert_eq!(
        line,
        "paddb (Paddb_xmm_xmmm128), bytes 66 0f fc 03, at rip 0xffff888000008000: \
         not an instruction that coracle completes"
    );
    assert_eq!(guest.vcpu.registers, before);
}

#[test]
fn invalid_bytes_are_an_invalid_opcode() {
    let lock_popcnt = [0xf0, 0xf3, 0x0f, 0xb8, 0xc0];
    let unassigned = [0x0f, 0x04];
    for code in [UD2, &lock_popcnt, &unassigned] {
        assert_eq!(Guest::with_code(code).fault(), Exception::INVALID_OPCODE);
    }
}

#[test]
fn instruction_longer_than_15_bytes_faults() {
    let fault = Guest::with_code(&[0x66; 20]).fault();
    assert!([Exception::GENERAL_PROTECTION, Exception::INVALID_OPCODE].contains(&fault));
}

#[test]
fn completion_ends_interrupt_shadow_and_resume_flag() {
    let mut guest = Guest::with_code(NOP);
    guest.vcpu.interrupt_shadow = true;
    guest.vcpu.registers.rflags |= FLAG_RESUME;
    guest.succeed();
    assert!(!guest.vcpu.interrupt_shadow);
    assert_eq!(guest.vcpu.registers.rflags, 2);
}

#[test]
fn single_stepped_instruction_completes_and_traps() {
    let mut guest = Guest::with_code(CLAC);
    guest.vcpu.registers.rflags |= FLAG_TRAP | FLAG_ALIGNMENT_CHECK;
    assert_eq!(guest.complete().unwrap().exception, Some(Exception::SINGLE_STEP));
    assert_eq!(guest.vcpu.registers.rip, BASE + CODE + 3);
    assert_eq!(guest.vcpu.registers.rflags, 2 | FLAG_TRAP);
}

#[test]
fn breakpoint_traps_after_the_instruction() {
    let mut guest = Guest::with_code(INT3);
    assert_eq!(guest.complete().unwrap().exception, Some(Exception::BREAKPOINT));
    assert_eq!(guest.vcpu.raised, Some(Exception::BREAKPOINT));
    assert_eq!(guest.vcpu.registers.rip, BASE + CODE + 1);
}

#[test]
fn clac_and_stac_change_one_flag_and_need_the_supervisor() {
    let mut guest = Guest::with_code(STAC);
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rflags, 2 | FLAG_ALIGNMENT_CHECK);
    guest.memory.write_slice(CLAC, GuestAddress(CODE + 3)).unwrap();
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rflags, 2);
    assert_eq!(as_user(Guest::with_code(CLAC)).fault(), Exception::INVALID_OPCODE);
}

#[test]
fn cmpxchg16b_stores_when_equal_and_loads_when_not() {
    if !is_x86_feature_detected!("cmpxchg16b") {
        return eprintln!("skipped: this CPU has no CMPXCHG16B");
    }
    for code in [CMPXCHG16B, LOCK_CMPXCHG16B] {
        let mut guest = Guest::with_code(code);
        guest.poke(DATA, 0x1111);
        guest.poke(DATA + 8, 0x2222);
        let registers = &mut guest.vcpu.registers;
        (registers.rax, registers.rdx, registers.rcx) = (0x1111, 0x2222, 0x4444);
        guest.succeed();
        assert_eq!((guest.peek(DATA), guest.peek(DATA + 8)), (BASE + DATA, 0x4444));
        assert_eq!(guest.vcpu.registers.rflags, 2 | FLAG_ZERO);

        guest.vcpu.registers.rip = BASE + CODE;
        guest.succeed();
        assert_eq!((guest.vcpu.registers.rax, guest.vcpu.registers.rdx), (BASE + DATA, 0x4444));
        assert_eq!((guest.peek(DATA), guest.peek(DATA + 8)), (BASE + DATA, 0x4444));
        assert_eq!(guest.vcpu.registers.rflags, 2);
    }
}

#[test]
fn cmpxchg16b_requires_alignment_and_write_permission() {
    if !is_x86_feature_detected!("cmpxchg16b") {
        return eprintln!("skipped: this CPU has no CMPXCHG16B");
    }
    let mut unaligned = Guest::with_code(CMPXCHG16B);
    unaligned.vcpu.registers.rbx += 8;
    assert_eq!(unaligned.fault(), Exception::GENERAL_PROTECTION);
    let mut read_only = Guest::with_code(CMPXCHG16B);
    read_only.map(DATA, DATA | PRESENT);
    assert_eq!(read_only.fault(), Exception::page_fault(BASE + DATA, 3));
}

#[test]
fn cmpxchg16b_on_two_vcpus_loses_no_increment() {
    if !is_x86_feature_detected!("cmpxchg16b") {
        return eprintln!("skipped: this CPU has no CMPXCHG16B");
    }
    const TURNS: u64 = 2000;
    let first = Guest::with_code(CMPXCHG16B);
    first.memory.write_slice(CMPXCHG16B, GuestAddress(CODE)).unwrap();
    let second = Guest { vcpu: first.vcpu.clone(), memory: first.memory.clone() };
    let count = |mut guest: Guest| {
        for _ in 0..TURNS {
            loop {
                let registers = &mut guest.vcpu.registers;
                // The counter is the high half: the low half, RBX, is also the address and stays.
                registers.rcx = registers.rdx.wrapping_add(1);
                registers.rip = BASE + CODE;
                guest.succeed();
                if guest.vcpu.registers.rflags & FLAG_ZERO != 0 {
                    guest.vcpu.registers.rdx = guest.vcpu.registers.rcx;
                    guest.vcpu.registers.rax = guest.vcpu.registers.rbx;
                    break;
                }
            }
        }
    };
    let memory = first.memory.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || count(first));
        scope.spawn(move || count(second));
    });
    assert_eq!(memory.read_obj::<u64>(GuestAddress(DATA + 8)).unwrap(), 2 * TURNS);
}

#[test]
fn fninit_resets_control_and_tags_and_keeps_registers() {
    let mut guest = with_x87(FNINIT, 0x1f3f, 0x3800, 0xff);
    guest.vcpu.extended_state[8..24].fill(0xaa);
    guest.vcpu.extended_state[32] = 0x77;
    guest.succeed();
    let state = &guest.vcpu.extended_state;
    assert_eq!(state[..6], [0x7f, 3, 0, 0, 0, 0]);
    assert_eq!(state[8..24], [0; 16]);
    assert_eq!(state[32], 0x77);
}

#[test]
fn emms_empties_the_registers_only() {
    let mut guest = with_x87(EMMS, 0x37f, 0x3800, 0xff);
    guest.succeed();
    assert_eq!(guest.vcpu.extended_state[..5], [0x7f, 3, 0, 0x38, 0]);
}

#[test]
fn pending_x87_exception_is_raised_by_waiting_instructions() {
    const DIVISION: u16 = 1 << 2;
    for code in [FWAIT, EMMS, FLDCW] {
        assert_eq!(with_x87(code, 0x37f & !DIVISION, DIVISION, 0).fault(), Exception::FLOATING_POINT);
        with_x87(code, 0x37f, DIVISION, 0).succeed();
    }
    let mut guest = with_x87(FNCLEX, 0x37f & !DIVISION, 0x80c0 | 0x3800 | DIVISION, 0);
    guest.succeed();
    assert_eq!(guest.vcpu.extended_state[2..4], 0x3800_u16.to_le_bytes());
}

#[test]
fn x87_words_are_stored_and_loaded() {
    let mut guest = with_x87(FNSTSW_AX, 0x37f, 0x3801, 0);
    guest.vcpu.registers.rax = u64::MAX;
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rax, 0xffff_ffff_ffff_3801);
    let mut guest = with_x87(FNSTCW, 0xc7f, 0, 0);
    guest.succeed();
    assert_eq!(guest.peek(DATA), 0xc7f);
    // While x87 is not in use, its initial values are stored.
    let mut guest = Guest::with_code(FNSTCW);
    guest.succeed();
    assert_eq!(guest.peek(DATA), 0x37f);
    let mut guest = Guest::with_code(FLDCW);
    guest.poke(DATA, 0xe03f);
    guest.succeed();
    assert_eq!(guest.vcpu.extended_state[..2], 0x7f_u16.to_le_bytes());
}

#[test]
fn lazily_switched_or_absent_unit_is_not_available() {
    for code in [FNINIT, EMMS, FNCLEX, FNSTCW, FLDCW, LDMXCSR, STMXCSR, VZEROUPPER] {
        let mut guest = Guest::with_code(code);
        guest.vcpu.special.cr0 |= CR0_TASK_SWITCHED;
        assert_eq!(guest.fault(), Exception::DEVICE_NOT_AVAILABLE);
    }
    let mut waiting = Guest::with_code(FWAIT);
    waiting.vcpu.special.cr0 |= CR0_TASK_SWITCHED;
    waiting.succeed();
    waiting.vcpu.special.cr0 |= CR0_MONITOR;
    waiting.vcpu.registers.rip = BASE + CODE;
    assert_eq!(waiting.fault(), Exception::DEVICE_NOT_AVAILABLE);
    let mut absent = Guest::with_code(EMMS);
    absent.vcpu.special.cr0 |= CR0_EMULATION;
    assert_eq!(absent.fault(), Exception::INVALID_OPCODE);
    let mut disabled = Guest::with_code(LDMXCSR);
    disabled.vcpu.special.cr4 &= !CR4_FXSR;
    assert_eq!(disabled.fault(), Exception::INVALID_OPCODE);
}

#[test]
fn mxcsr_is_loaded_checked_stored_and_kept_in_use() {
    for (name, processor) in PROCESSORS.iter() {
        let mut guest = Guest::on(processor, LDMXCSR);
        guest.vcpu.extended_state[XMM_REGISTERS].fill(0x55);
        guest.poke(DATA, 0x9f80);
        guest.succeed();
        assert_eq!(guest.vcpu.extended_state[MXCSR], 0x9f80_u32.to_le_bytes(), "{name}");
        assert_eq!(guest.vcpu.extended_state[XSTATE_BV.start], SSE as u8, "or the host would drop it");
        assert!(guest.vcpu.extended_state[XMM_REGISTERS].iter().all(|byte| *byte == 0), "they were initial before");

        guest.vcpu.registers.rip = BASE + CODE;
        guest.memory.write_slice(STMXCSR, GuestAddress(CODE)).unwrap();
        guest.poke(DATA, u64::MAX);
        guest.succeed();
        assert_eq!(guest.peek(DATA), 0xffff_ffff_0000_9f80, "{name}");

        for bit in (0..32).map(|bit| 1 << bit) {
            let mut guest = Guest::on(processor, LDMXCSR);
            guest.poke(DATA, bit.into());
            if processor.mxcsr_mask & bit != 0 {
                guest.succeed();
            } else {
                assert_eq!(guest.fault(), Exception::GENERAL_PROTECTION, "{name}, bit {bit:#x}");
            }
        }
    }
}

#[test]
fn mxcsr_masks_differ_between_vendors_in_the_misaligned_bit() {
    const MISALIGNED: u64 = 1 << 17;
    for (name, processor) in PROCESSORS.iter().filter(|(name, _)| name.contains("Intel") || name.contains("AMD")) {
        let mut guest = Guest::on(processor, LDMXCSR);
        guest.poke(DATA, 0x1f80 | MISALIGNED);
        assert_eq!(guest.complete().unwrap().exception.is_none(), name.contains("AMD"), "{name}");
    }
}

#[test]
fn vzeroupper_clears_what_the_cpu_has_above_bit_127() {
    for (name, processor) in PROCESSORS.iter() {
        let components = processor.xstate.user_components();
        let mut guest = Guest::on(processor, VZEROUPPER);
        if components & AVX == 0 {
            assert_eq!(guest.fault(), Exception::INVALID_OPCODE, "{name}");
            continue;
        }
        guest.vcpu.extended_state.fill(0x55);
        guest.vcpu.extended_state[HEADER].fill(0);
        guest.vcpu.extended_state[XSTATE_BV].copy_from_slice(&components.to_le_bytes());
        guest.succeed();
        for number in extended(components) {
            let cleared = (AVX | ZMM_HIGH) & 1 << number != 0;
            let expected = if cleared { 0 } else { 0x55 };
            let bytes = &guest.vcpu.extended_state[processor.xstate.standard(number)];
            assert!(bytes.iter().all(|byte| *byte == expected), "{name}, component {number}");
        }
        assert!(guest.vcpu.extended_state[XMM_REGISTERS].iter().all(|byte| *byte == 0x55), "{name}");
    }
}

#[test]
fn segment_bases_are_read_written_and_checked() {
    // wrgsbase rax; rdgsbase rcx
    let mut guest = Guest::with_code(&[0xf3, 0x48, 0x0f, 0xae, 0xd8, 0xf3, 0x48, 0x0f, 0xae, 0xc9]);
    guest.vcpu.registers.rax = BASE + 0x1234;
    guest.succeed();
    assert_eq!(guest.vcpu.special.gs.base, BASE + 0x1234);
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rcx, BASE + 0x1234);
    guest.vcpu.registers.rip = BASE + CODE;
    guest.vcpu.registers.rax = 1 << 63;
    assert_eq!(guest.fault(), Exception::GENERAL_PROTECTION);
    guest.vcpu.special.cr4 &= !CR4_FS_GS_BASE;
    assert_eq!(guest.fault(), Exception::INVALID_OPCODE);
}

#[test]
fn operand_addresses_use_segment_rip_and_index() {
    // popcnt rax, gs:[rcx*8+0x20]
    let mut guest = Guest::with_code(&[0x65, 0xf3, 0x48, 0x0f, 0xb8, 0x04, 0xcd, 0x20, 0, 0, 0]);
    guest.vcpu.special.gs.base = BASE + DATA;
    guest.vcpu.registers.rcx = 2;
    guest.poke(DATA + 0x30, 7);
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rax, 3);
    // popcnt rax, [rip+0x100]
    let mut guest = Guest::with_code(&[0xf3, 0x48, 0x0f, 0xb8, 0x05, 0, 1, 0, 0]);
    guest.poke(CODE + 9 + 0x100, 0x1f);
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rax, 5);
}

#[test]
fn rdtscp_returns_time_stamp_and_processor_number() {
    let mut guest = Guest::with_code(&[0x0f, 0x01, 0xf9]);
    (guest.vcpu.time_stamp_counter, guest.vcpu.tsc_aux) = (0x1_2345_6789, 5);
    guest.succeed();
    let registers = guest.vcpu.registers;
    assert_eq!((registers.rax, registers.rdx, registers.rcx), (0x2345_6789, 1, 5));
    let mut user = as_user(Guest::with_code(&[0x0f, 0x01, 0xf9]));
    user.vcpu.special.cr4 |= CR4_TIME_STAMP_DISABLE;
    assert_eq!(user.fault(), Exception::GENERAL_PROTECTION);
}

#[test]
fn invpcid_flushes_if_its_descriptor_is_valid() {
    // invpcid rax, [rbx]
    let invalidate = |kind, context, address| {
        let mut guest = Guest::with_code(&[0x66, 0x0f, 0x38, 0x82, 0x03]);
        guest.vcpu.registers.rax = kind;
        guest.poke(DATA, context);
        guest.poke(DATA + 8, address);
        guest
    };
    for (kind, address) in [(0, BASE), (1, 1 << 63), (2, 1 << 63), (3, 0)] {
        let mut guest = invalidate(kind, 0, address);
        guest.succeed();
        assert_eq!(guest.vcpu.flushes, 1);
    }
    for (kind, context, address) in [(4, 0, 0), (2, 1 << 12, 0), (0, 0, 1 << 63), (1, 5, 0)] {
        let mut guest = invalidate(kind, context, address);
        assert_eq!(guest.fault(), Exception::GENERAL_PROTECTION);
        assert_eq!(guest.vcpu.flushes, 0);
    }
}

#[test]
fn operand_outside_memory_ends_the_vm_and_non_canonical_faults() {
    // popcnt rax, [rbx]; then one relative to the stack.
    let code = [0xf3, 0x48, 0x0f, 0xb8, 0x03];
    let mut guest = Guest::with_code(&code);
    guest.vcpu.registers.rbx = 0x8000_0000_0000;
    assert_eq!(guest.fault(), Exception::GENERAL_PROTECTION);
    let mut stack = Guest::with_code(&[0xf3, 0x48, 0x0f, 0xb8, 0x04, 0x24]);
    stack.vcpu.registers.rsp = 0x8000_0000_0000;
    assert_eq!(stack.fault(), Exception::STACK_FAULT);
    let mut outside = Guest::with_code(&code);
    outside.map(DATA, MEMORY | PRESENT);
    assert!(outside.complete().unwrap_err().reason.contains("not in memory"));
}

#[test]
fn wbinvd_needs_the_supervisor() {
    const WBINVD: &[u8] = &[0x0f, 0x09];
    Guest::with_code(WBINVD).succeed();
    assert_eq!(as_user(Guest::with_code(WBINVD)).fault(), Exception::GENERAL_PROTECTION);
}

#[test]
fn clflush_needs_read_permission() {
    // clflush [rbx]
    let mut guest = Guest::with_code(&[0x0f, 0xae, 0x3b]);
    guest.succeed();
    guest.vcpu.registers.rip = BASE + CODE;
    guest.map(DATA, 0);
    assert_eq!(guest.fault(), Exception::page_fault(BASE + DATA, 0));
}

#[test]
fn rdpid_returns_the_processor_number() {
    // rdpid rax
    let mut guest = Guest::with_code(&[0xf3, 0x0f, 0xc7, 0xf8]);
    guest.vcpu.tsc_aux = 5;
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rax, 5);
}
