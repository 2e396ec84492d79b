// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The XSAVE family against the CPU that runs the test: the same state, the same memory, the same mask, and every byte
//! compared. The supervisor's forms, which no test can execute, share all code but their checks, tested by hand.
#![allow(unsafe_code)] // Executes the instructions under test.

use std::arch::asm;

use proptest::prelude::*;

use super::Exception;
use super::guest::{BASE, DATA, Guest, PRESENT, WRITABLE, host_components};
use super::image::Image;
use super::layout::{
    COMPACTED, HEADER, MXCSR, MXCSR_INITIAL, SSE, X87, X87_CONTROL, X87_REGISTERS, XCOMP_BV, XMM_REGISTERS, XSTATE_BV,
};
use super::registers::{CR0_TASK_SWITCHED, CR4_XSAVE};

const SIZE: usize = 0x1000;
/// Everything that makes MXCSR quiet: exceptions masked. What a test may set besides.
const MXCSR_RANDOM: u32 = 0xe07f;

/// An XSAVE area as the CPU wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
struct Area([u8; SIZE]);

impl Area {
    fn zero() -> Box<Self> {
        Box::new(Self([0; SIZE]))
    }

    /// Random contents that a CPU takes without complaint, with this header.
    fn random(seed: u64, state: u64, format: u64) -> Box<Self> {
        let mut area = Self::zero();
        let mut random = seed;
        for word in area.0.as_chunks_mut::<8>().0 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *word = (random ^ random >> 29).to_le_bytes();
        }
        area.0[X87_CONTROL][..2].copy_from_slice(&(0x37f | (seed as u16) & 0xc00).to_le_bytes());
        area.0[X87_CONTROL][2..4].copy_from_slice(&((seed >> 16) as u16 & 0x7f00).to_le_bytes());
        area.0[5] = 0;
        area.0[7] &= 7;
        for pointer in [8, 16] {
            area.0[pointer + 5] &= 0x7f;
            area.0[pointer + 6..pointer + 8].fill(0);
        }
        for register in area.0[X87_REGISTERS].as_chunks_mut::<16>().0 {
            register[10..].fill(0);
        }
        let mxcsr = MXCSR_INITIAL | (seed >> 32) as u32 & MXCSR_RANDOM;
        area.0[MXCSR].copy_from_slice(&mxcsr.to_le_bytes());
        area.0[HEADER].fill(0);
        area.0[XSTATE_BV].copy_from_slice(&state.to_le_bytes());
        area.0[XCOMP_BV].copy_from_slice(&format.to_le_bytes());
        area
    }

    /// The same as a vCPU's state: MXCSR is initial unless XMM or YMM registers are in use.
    fn state(seed: u64, in_use: u64) -> Box<Self> {
        let mut area = Self::random(seed, in_use, 0);
        if in_use & 6 == 0 {
            area.0[MXCSR].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
        }
        area
    }
}

/// An instruction with the operand `[rbx]`, as the CPU executes it and as bytes.
struct Instruction {
    name: &'static str,
    bytes: &'static [u8],
    /// Gives the CPU the first area's state, executes the instruction on the second with this mask, and saves the
    /// state to the third.
    run: fn(&Area, &mut Area, &mut Area, u64),
}

macro_rules! instruction {
    ($name:literal, $bytes:expr) => {
        Instruction {
            name: $name,
            bytes: &$bytes,
            run: |state, operand, after, mask| {
                let all = host_components();
                // Components beyond would not fit into an area.
                let mask = mask & all;
                let mut own = Area::zero();
                // SAFETY: the CPU's own state is saved first and restored last; the areas are as large and aligned as
                // the components that this program uses need it, and their contents are ones that the CPU accepts.
                unsafe {
                    asm!(
                        "mov eax, {all:e}", "mov rdx, {all}", "shr rdx, 32",
                        "xsave64 [{own}]",
                        "xrstor64 [{state}]",
                        "mov eax, {mask:e}", "mov rdx, {mask}", "shr rdx, 32",
                        concat!($name, " [{operand}]"),
                        "mov eax, {all:e}", "mov rdx, {all}", "shr rdx, 32",
                        "xsave64 [{after}]",
                        "xrstor64 [{own}]",
                        all = in(reg) all, mask = in(reg) mask, own = in(reg) &raw mut own.0,
                        state = in(reg) state, operand = in(reg) operand, after = in(reg) after,
                        out("eax") _, out("edx") _,
                    );
                }
            },
        }
    };
}

fn saves() -> [Instruction; 7] {
    [
        instruction!("xsave64", [0x48, 0x0f, 0xae, 0x23]),
        instruction!("xsave", [0x0f, 0xae, 0x23]),
        instruction!("xsaveopt64", [0x48, 0x0f, 0xae, 0x33]),
        instruction!("xsavec64", [0x48, 0x0f, 0xc7, 0x23]),
        instruction!("xsavec", [0x0f, 0xc7, 0x23]),
        instruction!("fxsave64", [0x48, 0x0f, 0xae, 0x03]),
        instruction!("fxsave", [0x0f, 0xae, 0x03]),
    ]
}

fn restores() -> [Instruction; 2] {
    [instruction!("xrstor64", [0x48, 0x0f, 0xae, 0x2b]), instruction!("xrstor", [0x0f, 0xae, 0x2b])]
}

fn fx_restores() -> [Instruction; 2] {
    [instruction!("fxrstor64", [0x48, 0x0f, 0xae, 0x0b]), instruction!("fxrstor", [0x0f, 0xae, 0x0b])]
}

/// A guest with this state, about to execute `code` with `mask` on a copy of `operand`.
fn guest(code: &[u8], state: &Area, operand: &Area, mask: u64) -> Guest {
    let mut guest = Guest::about_to(code);
    let size = guest.vcpu.extended_state.len().min(SIZE);
    guest.vcpu.extended_state[..size].copy_from_slice(&state.0[..size]);
    guest.vcpu.extended_state[28..32].copy_from_slice(&0xffff_u32.to_le_bytes());
    guest.vcpu.registers.rax = mask & 0xffff_ffff;
    guest.vcpu.registers.rdx = mask >> 32;
    // Across two pages, as signal frames are.
    guest.vcpu.registers.rbx = BASE + DATA + 0xdc0;
    vm_memory::Bytes::write_slice(&guest.memory, &operand.0, operand_address()).unwrap();
    guest
}

fn operand_address() -> vm_memory::GuestAddress {
    vm_memory::GuestAddress(DATA + 0xdc0)
}

/// The guest's extended state, spelled out by XSAVE64 of everything.
fn spelled_out(guest: Guest) -> Area {
    let mut state = guest.vcpu.extended_state;
    state.resize(SIZE, 0);
    let state = Area(state.try_into().unwrap());
    let mut after = self::guest(&[0x48, 0x0f, 0xae, 0x23], &state, &Area::zero(), u64::MAX);
    after.succeed();
    Area(after.bytes(operand_address().0, SIZE).try_into().unwrap())
}

/// Which byte differs first, for the report.
fn difference(left: &[u8], right: &[u8]) -> Option<(usize, u8, u8)> {
    (0..left.len()).find(|at| left[*at] != right[*at]).map(|at| (at, left[at], right[at]))
}

/// Restores `operand` with each of `instructions` on the CPU and in a guest, and compares what the registers hold.
fn compare_restores(
    instructions: &[Instruction],
    state: &Area,
    operand: &Area,
    mask: u64,
) -> Result<(), TestCaseError> {
    for instruction in instructions {
        let (mut on_the_cpu, mut expected) = (operand.clone(), Area::zero());
        (instruction.run)(state, &mut on_the_cpu, &mut expected, mask);
        let mut guest = guest(instruction.bytes, state, operand, mask);
        guest.succeed();
        let mut found = spelled_out(guest);
        // A component with initial contents may count as in use or not.
        expected.0[XSTATE_BV].fill(0);
        found.0[XSTATE_BV].fill(0);
        prop_assert_eq!(difference(&expected.0, &found.0), None, "{}", instruction.name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn saving_writes_what_the_cpu_writes(seed: u64, bits: u64, mask: u64, before: u64) {
        let state = Area::state(seed, bits & host_components());
        for instruction in saves() {
            let operand = Area::random(before, before, 0);
            let mut guest = guest(instruction.bytes, &state, &operand, mask);
            guest.succeed();
            let found = guest.bytes(operand_address().0, SIZE);
            let on_the_cpu = || {
                let (mut expected, mut after) = (operand.clone(), Area::zero());
                (instruction.run)(&state, &mut expected, &mut after, mask);
                difference(&expected.0, &found)
            };
            // A task switch between two of its instructions makes XMM count as in use on the CPU.
            let differences = [on_the_cpu(), on_the_cpu(), on_the_cpu()];
            prop_assert!(differences.contains(&None), "{}: {differences:?}", instruction.name);
        }
    }

    #[test]
    fn restoring_the_standard_format_gives_what_the_cpu_gives(seed: u64, bits: u64, mask: u64, other: u64, held: u64) {
        let state = Area::state(seed, bits & host_components());
        let operand = Area::random(other, held & host_components(), 0);
        compare_restores(&restores(), &state, &operand, mask)?;
        compare_restores(&fx_restores(), &state, &operand, mask)?;
    }

    #[test]
    fn restoring_the_compacted_format_gives_what_the_cpu_gives(
        seed: u64, bits: u64, mask: u64, other: u64, held: u64, room: u64,
    ) {
        let state = Area::state(seed, bits & host_components());
        let room = room & host_components();
        let operand = Area::random(other, held & room, room | COMPACTED);
        compare_restores(&restores(), &state, &operand, mask)?;
    }
}

const XSAVES64: [u8; 4] = [0x48, 0x0f, 0xc7, 0x2b];
const XRSTORS64: [u8; 4] = [0x48, 0x0f, 0xc7, 0x1b];
const XRSTOR64: [u8; 4] = [0x48, 0x0f, 0xae, 0x2b];
const XSAVE64: [u8; 4] = [0x48, 0x0f, 0xae, 0x23];

#[test]
fn a_state_survives_the_supervisors_save_and_restore() {
    let state = Area::state(7, host_components());
    let mut saver = guest(&XSAVES64, &state, &Area::zero(), u64::MAX);
    saver.succeed();
    let saved = Area(saver.bytes(operand_address().0, SIZE).try_into().unwrap());
    let mut restorer = guest(&XRSTORS64, &Area::zero(), &saved, u64::MAX);
    restorer.succeed();
    assert_eq!(difference(&spelled_out(restorer).0, &spelled_out(saver).0), None);
}

#[test]
fn a_header_that_the_cpu_refuses_is_refused() {
    let enabled = host_components();
    let reserved = 1 << 62;
    let cases: [(&[u8], u64, u64); 7] = [
        (&XRSTOR64, enabled | reserved, 0),
        (&XRSTOR64, X87, SSE),
        (&XRSTOR64, X87, COMPACTED | SSE),
        (&XRSTOR64, X87, COMPACTED | reserved | X87),
        (&XRSTORS64, X87, 0),
        (&XRSTORS64, X87 | SSE, COMPACTED | X87),
        (&XRSTORS64, 0, COMPACTED | reserved),
    ];
    for (code, state, format) in cases {
        let operand = Area::random(1, state, format);
        assert_eq!(guest(code, &Area::zero(), &operand, u64::MAX).fault(), Exception::GENERAL_PROTECTION);
    }
    for at in [HEADER.start + 16, HEADER.start + 56] {
        let mut operand = Area::random(1, X87, COMPACTED | X87);
        operand.0[at] = 1;
        assert_eq!(guest(&XRSTOR64, &Area::zero(), &operand, u64::MAX).fault(), Exception::GENERAL_PROTECTION);
    }
}

#[test]
fn a_value_of_mxcsr_that_the_cpu_does_not_have_is_refused_only_where_it_is_loaded() {
    let mut operand = Area::random(1, X87 | SSE, 0);
    operand.0[MXCSR].copy_from_slice(&0x1_1f80_u32.to_le_bytes());
    assert_eq!(guest(&XRSTOR64, &Area::zero(), &operand, SSE).fault(), Exception::GENERAL_PROTECTION);
    guest(&XRSTOR64, &Area::zero(), &operand, X87).succeed();
}

#[test]
fn an_area_must_be_aligned_enabled_and_not_lazily_switched() {
    let area = Area::zero();
    let mut unaligned = guest(&XSAVE64, &area, &area, 3);
    unaligned.vcpu.registers.rbx += 32;
    assert_eq!(unaligned.fault(), Exception::GENERAL_PROTECTION);
    let mut disabled = guest(&XSAVE64, &area, &area, 3);
    disabled.vcpu.special.cr4 &= !CR4_XSAVE;
    assert_eq!(disabled.fault(), Exception::INVALID_OPCODE);
    let mut switched = guest(&XSAVE64, &area, &area, 3);
    switched.vcpu.special.cr0 |= CR0_TASK_SWITCHED;
    assert_eq!(switched.fault(), Exception::DEVICE_NOT_AVAILABLE);
    let mut user = guest(&XSAVES64, &area, &area, 3);
    user.vcpu.special.ss.dpl = 3;
    user.map(DATA, DATA | 7);
    user.map(super::guest::CODE, super::guest::CODE | 7);
    assert_eq!(user.fault(), Exception::GENERAL_PROTECTION);
}

#[test]
fn a_fault_in_the_second_page_leaves_both_pages_and_the_state_alone() {
    let (state, before) = (Area::state(3, host_components()), Area::random(4, 0, 0));
    let mut saver = guest(&XSAVE64, &state, &before, u64::MAX);
    saver.map(DATA + 0x1000, (DATA + 0x1000) | PRESENT);
    assert_eq!(saver.fault(), Exception::page_fault(BASE + DATA + 0x1000, 3));
    assert_eq!(saver.bytes(operand_address().0, SIZE), before.0);

    let operand = Area::random(5, host_components(), 0);
    let mut restorer = guest(&XRSTOR64, &state, &operand, u64::MAX);
    restorer.map(DATA + 0x1000, 0);
    let unchanged = restorer.vcpu.extended_state.clone();
    assert_eq!(restorer.fault(), Exception::page_fault(BASE + DATA + 0x1000, 0));
    assert_eq!(restorer.vcpu.extended_state, unchanged);
    restorer.map(DATA + 0x1000, (DATA + 0x1000) | PRESENT | WRITABLE);
    restorer.succeed();
    assert_eq!(restorer.vcpu.extended_state[XMM_REGISTERS], operand.0[XMM_REGISTERS]);
}

#[test]
fn a_component_that_the_host_does_not_give_ends_the_vm() {
    let area = Area::zero();
    let mut guest = guest(&XSAVE64, &area, &area, u64::MAX);
    guest.vcpu.enabled_components |= 1 << 40;
    assert!(guest.complete().unwrap_err().reason.contains("components"));
}

#[test]
fn xgetbv_tells_what_is_enabled_and_what_is_in_use() {
    const XGETBV: [u8; 3] = [0x0f, 0x01, 0xd0];
    for (selector, expected) in [(0, host_components()), (1, X87)] {
        let mut guest = guest(&XGETBV, &Area::state(1, X87), &Area::zero(), 0);
        guest.vcpu.registers.rcx = selector;
        guest.succeed();
        assert_eq!(guest.vcpu.registers.rdx << 32 | guest.vcpu.registers.rax, expected);
    }
    let mut guest = guest(&XGETBV, &Area::zero(), &Area::zero(), 0);
    guest.vcpu.registers.rcx = 2;
    assert_eq!(guest.fault(), Exception::GENERAL_PROTECTION);
}

#[test]
fn an_image_shorter_than_a_component_does_not_hold_it() {
    let processor = super::Processor::host();
    let mut bytes = vec![0; HEADER.end];
    let image = Image::new(&mut bytes, &processor.xstate);
    assert!(image.holds(X87 | SSE));
    assert!(!image.holds(1 << 40));
}
