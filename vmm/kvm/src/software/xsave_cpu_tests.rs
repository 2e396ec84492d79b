// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The XSAVE family against the CPU that runs the tests: the same state, memory and mask, and every
//! byte compared. Where CPUs differ, the expectation is what this CPU does by itself: which
//! components it tracks as in use is read back from it, and [`Traits`] are measured with its own
//! instructions. `xsave_tests.rs` covers CPUs other than this one.
//!
//! The instructions that need CPL 0 share all code but their checks with those that are executed
//! here.
#![allow(unsafe_code)] // Executes the instructions under test.

use super::test_guest::{BASE, DATA, Guest, host_processor};
use super::xsave_layout::{
    AVX, COMPACTED, MXCSR, MXCSR_INITIAL, SSE, X87, X87_CONTROL, X87_CONTROL_INITIAL, XCOMP_BV, XMM_REGISTERS,
    XSTATE_BV, ZMM_HIGH,
};
use super::xsave_tests::random_area;
use proptest::prelude::*;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::LazyLock;
use vm_memory::{Bytes as _, GuestAddress};

const SIZE: usize = 0x1000;
/// Across two pages, as signal frames are.
const OPERAND: u64 = DATA + 0xdc0;
/// Opcode, instruction and data pointer of the x87 unit.
const ERROR_POINTERS: Range<usize> = 6..24;
/// After the registers of the legacy region.
const LEGACY_END: Range<usize> = XMM_REGISTERS.end..512;
const HEADER_END: Range<usize> = XCOMP_BV.start..576;

#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
struct Area([u8; SIZE]);

impl Area {
    fn filled(byte: u8) -> Box<Self> {
        Box::new(Self([byte; SIZE]))
    }

    fn random(seed: u64, components: u64, format: u64) -> Box<Self> {
        let mut area = Self::filled(0);
        area.0.copy_from_slice(&random_area(seed, SIZE, components, format));
        area
    }

    /// As a vCPU's state: MXCSR is initial unless XMM or YMM registers are in use.
    fn random_state(seed: u64, in_use: u64) -> Box<Self> {
        let mut area = Self::random(seed, in_use, 0);
        if in_use & (SSE | AVX) == 0 {
            area.set_mxcsr(MXCSR_INITIAL);
        }
        area
    }

    fn components(&self) -> u64 {
        u64::from_le_bytes(self.0[XSTATE_BV].try_into().unwrap())
    }

    fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.0[MXCSR].try_into().unwrap())
    }

    fn set_mxcsr(&mut self, value: u32) {
        self.0[MXCSR].copy_from_slice(&value.to_le_bytes());
    }

    /// An area that holds only MXCSR and a header.
    fn with_mxcsr(value: u32, components: u64, format: u64) -> Box<Self> {
        let mut area = Self::filled(0);
        area.set_mxcsr(value);
        area.0[XSTATE_BV].copy_from_slice(&components.to_le_bytes());
        area.0[XCOMP_BV].copy_from_slice(&format.to_le_bytes());
        area
    }
}

/// The instructions of the family that this CPU has.
#[derive(Clone, Copy)]
struct Available {
    xsaveopt: bool,
    xsavec: bool,
}

/// `None` where the CPU has no XSAVE, or the kernel does not enable it.
static AVAILABLE: LazyLock<Option<Available>> = LazyLock::new(|| {
    if !std::arch::is_x86_feature_detected!("xsave") {
        eprintln!("skipped: this CPU has no XSAVE");
        return None;
    }
    let extensions = __cpuid_count(0xd, 1).eax;
    Some(Available { xsaveopt: extensions & 1 != 0, xsavec: extensions & 2 != 0 })
});

/// The components that are compared: those with registers whose every value is valid, as far as the
/// CPU has them and the kernel enables them. Without AMX, which needs a permission, and PKRU, with
/// which a test would lose access to its memory.
static COMPONENTS: LazyLock<u64> = LazyLock::new(|| {
    const OPMASK: u64 = 1 << 5;
    const ZMM_16_TO_31: u64 = 1 << 7;
    let (low, high): (u32, u32);
    // SAFETY: reading XCR0 has no side effect; `AVAILABLE` was checked, so the instruction is
    // enabled.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
    (u64::from(high) << 32 | u64::from(low)) & (X87 | SSE | AVX | OPMASK | ZMM_HIGH | ZMM_16_TO_31)
});

/// An instruction with the operand `[rbx]`, as the CPU executes it and as bytes.
struct Instruction {
    name: &'static str,
    bytes: &'static [u8],
    execute: fn(&Area, &mut Area, u64) -> Execution,
}

/// States around an instruction, as XSAVE64 of all components stores them.
struct Execution {
    before: Box<Area>,
    after: Box<Area>,
}

macro_rules! instruction {
    ($name:literal, $bytes:expr) => {
        Instruction {
            name: $name,
            bytes: &$bytes,
            // Loads the CPU with `state` and executes the instruction on `operand` with `mask`.
            execute: |state, operand, mask| {
                let all = *COMPONENTS;
                let mask = mask & all;
                let (mut own, mut before, mut after) = (Area::filled(0), Area::filled(0), Area::filled(0));
                // SAFETY: the CPU's own state is saved first and restored last; the areas have the
                // size and alignment that these components need, and contents that the CPU accepts.
                unsafe {
                    asm!(
                        "mov eax, {all:e}", "mov rdx, {all}", "shr rdx, 32",
                        "xsave64 [{own}]",
                        "xrstor64 [{state}]",
                        "xsave64 [{before}]",
                        "mov eax, {mask:e}", "mov rdx, {mask}", "shr rdx, 32",
                        concat!($name, " [{operand}]"),
                        "mov eax, {all:e}", "mov rdx, {all}", "shr rdx, 32",
                        "xsave64 [{after}]",
                        "xrstor64 [{own}]",
                        all = in(reg) all, mask = in(reg) mask, own = in(reg) &raw mut own.0,
                        state = in(reg) state, operand = in(reg) operand, before = in(reg) &raw mut before.0,
                        after = in(reg) &raw mut after.0, out("eax") _, out("edx") _,
                    );
                }
                Execution { before, after }
            },
        }
    };
}

const XSAVE64: Instruction = instruction!("xsave64", [0x48, 0x0f, 0xae, 0x23]);
const XSAVE: Instruction = instruction!("xsave", [0x0f, 0xae, 0x23]);
const XSAVEOPT64: Instruction = instruction!("xsaveopt64", [0x48, 0x0f, 0xae, 0x33]);
const XSAVEC64: Instruction = instruction!("xsavec64", [0x48, 0x0f, 0xc7, 0x23]);
const XSAVEC: Instruction = instruction!("xsavec", [0x0f, 0xc7, 0x23]);
const FXSAVE64: Instruction = instruction!("fxsave64", [0x48, 0x0f, 0xae, 0x03]);
const FXSAVE: Instruction = instruction!("fxsave", [0x0f, 0xae, 0x03]);
const XRSTOR64: Instruction = instruction!("xrstor64", [0x48, 0x0f, 0xae, 0x2b]);
const XRSTOR: Instruction = instruction!("xrstor", [0x0f, 0xae, 0x2b]);
const FXRSTOR64: Instruction = instruction!("fxrstor64", [0x48, 0x0f, 0xae, 0x0b]);
const FXRSTOR: Instruction = instruction!("fxrstor", [0x0f, 0xae, 0x0b]);

fn saves(available: Available) -> Vec<Instruction> {
    let mut saves = vec![XSAVE64, XSAVE, FXSAVE64, FXSAVE];
    if available.xsaveopt {
        saves.push(XSAVEOPT64);
    }
    if available.xsavec {
        saves.extend([XSAVEC64, XSAVEC]);
    }
    saves
}

/// What the manuals leave to the CPU, or describe for some CPUs only. Measured on the CPU alone:
/// what a completion does is compared wherever the CPU behaves as Intel's manual describes.
struct Traits {
    /// x87 error pointers are saved and restored without a pending exception. Not on AMD before
    /// Zen.
    error_pointers: bool,
    /// Reserved bytes of the legacy region are written as zero or left alone as on Intel.
    reserved_bytes: bool,
    /// MXCSR is saved and restored with AVX requested alone, restored in standard format without
    /// SSE in the header, and counts as state of SSE in compacted format.
    mxcsr: bool,
}

static TRAITS: LazyLock<Traits> = LazyLock::new(|| {
    let available = AVAILABLE.expect("checked by every test");
    let traits = Traits {
        error_pointers: keeps_error_pointers(),
        reserved_bytes: has_intels_reserved_bytes(),
        mxcsr: has_intels_rules_of_mxcsr(available),
    };
    for (name, present) in [
        ("x87 error pointers", traits.error_pointers),
        ("reserved bytes", traits.reserved_bytes),
        ("special cases of MXCSR", traits.mxcsr),
    ] {
        if !present {
            eprintln!("not compared, because this CPU differs from the manual: {name}");
        }
    }
    traits
});

fn keeps_error_pointers() -> bool {
    let state = Area::random(1, X87, 0);
    let mut narrow = Area::filled(0);
    let execution = (XSAVE.execute)(&state, &mut narrow, X87);
    let selectors = narrow.0[12..16].iter().chain(&narrow.0[20..24]);
    execution.before.0[ERROR_POINTERS] == state.0[ERROR_POINTERS]
        && narrow.0[6..12] == state.0[6..12]
        && narrow.0[16..20] == state.0[16..20]
        && selectors.copied().all(|byte| byte == 0)
}

fn has_intels_reserved_bytes() -> bool {
    const UNTOUCHED: u8 = 0xaa;
    [XSAVE64, FXSAVE64].iter().all(|instruction| {
        let mut area = Area::filled(UNTOUCHED);
        (instruction.execute)(&Area::random(2, X87 | SSE, 0), &mut area, X87 | SSE);
        let padding = (0..8).flat_map(|register| &area.0[32 + 16 * register + 10..][..6]);
        let unwritten = area.0[LEGACY_END].iter().chain(&area.0[HEADER_END]);
        area.0[5] == 0 && padding.copied().all(|byte| byte == 0) && unwritten.copied().all(|byte| byte == UNTOUCHED)
    })
}

fn has_intels_rules_of_mxcsr(available: Available) -> bool {
    const OTHER: u32 = 0x9f80;
    let initial = Area::with_mxcsr(MXCSR_INITIAL, 0, 0);
    let mut rules = vec![(XRSTOR64.execute)(&initial, &mut Area::with_mxcsr(OTHER, 0, 0), SSE).after.mxcsr() == OTHER];
    if *COMPONENTS & AVX != 0 {
        let mut state = Area::random(3, AVX, 0);
        state.set_mxcsr(OTHER);
        let after = (XRSTOR64.execute)(&initial, &mut Area::with_mxcsr(OTHER, 0, 0), AVX).after;
        let mut saved = Area::filled(0);
        (XSAVE64.execute)(&state, &mut saved, AVX);
        rules.extend([after.mxcsr() == OTHER, saved.mxcsr() == OTHER]);
        if available.xsavec {
            let mut saved = Area::filled(0);
            (XSAVEC64.execute)(&state, &mut saved, SSE);
            rules.extend([saved.components() == SSE, saved.mxcsr() == OTHER]);
        }
    }
    if available.xsavec {
        let mut state = Area::random(4, SSE, 0);
        state.set_mxcsr(OTHER);
        let after = |room, mask| {
            let mut operand = Area::with_mxcsr(0x1fa0, 0, room | COMPACTED);
            (XRSTOR64.execute)(&state, &mut operand, mask).after.mxcsr()
        };
        rules.extend([after(SSE, SSE) == MXCSR_INITIAL, after(X87, X87) == OTHER]);
    }
    rules.into_iter().all(|rule| rule)
}

/// The first byte that differs, of those that are compared on this CPU.
fn difference(expected: &[u8], found: &[u8]) -> Option<(usize, u8, u8)> {
    let traits = &*TRAITS;
    let is_padding = |at: usize| (32..160).contains(&at) && at % 16 >= 10;
    let is_reserved = |at: usize| at == 5 || is_padding(at) || LEGACY_END.contains(&at) || HEADER_END.contains(&at);
    let is_compared = |at: &usize| {
        (traits.error_pointers || !ERROR_POINTERS.contains(at)) && (traits.reserved_bytes || !is_reserved(*at))
    };
    let mut differing = (0..expected.len()).filter(|at| expected[*at] != found[*at]);
    differing.find(is_compared).map(|at| (at, expected[at], found[at]))
}

/// The inputs of one comparison.
struct Case {
    state: Box<Area>,
    operand: Box<Area>,
    mask: u64,
}

impl Case {
    /// From random values, without the special cases of MXCSR if this CPU has rules of its own for
    /// them.
    fn new((seed, in_use): (u64, u64), (other, held): (u64, u64), room: Option<u64>, mask: u64) -> Self {
        let components = *COMPONENTS;
        let (mut in_use, mut held, mut mask) = (in_use & components, held & components, mask);
        let mut room = room.map(|room| room & components);
        if !TRAITS.mxcsr {
            in_use |= SSE;
            held |= SSE;
            mask |= if mask & AVX != 0 { SSE } else { 0 };
            room = room.map(|room| room | SSE);
        }
        let operand = match room {
            Some(room) => Area::random(other, held & room, room | COMPACTED),
            None => Area::random(other, held, 0),
        };
        Self { state: Area::random_state(seed, in_use), operand, mask }
    }

    /// A guest on this CPU with the state `before`, about to execute `instruction` on a copy of the
    /// operand.
    fn guest(&self, instruction: &Instruction, before: &Area) -> Guest {
        guest(instruction.bytes, before, &self.operand, self.mask)
    }
}

fn guest(code: &[u8], state: &Area, operand: &Area, mask: u64) -> Guest {
    let mut guest = Guest::on(host_processor(), code);
    guest.vcpu.enabled_components = *COMPONENTS;
    let size = guest.vcpu.extended_state.len().min(SIZE);
    guest.vcpu.extended_state[..size].copy_from_slice(&state.0[..size]);
    guest.vcpu.registers.rax = mask & 0xffff_ffff;
    guest.vcpu.registers.rdx = mask >> 32;
    guest.vcpu.registers.rbx = BASE + OPERAND;
    guest.memory.write_slice(&operand.0, GuestAddress(OPERAND)).unwrap();
    guest
}

/// The guest's extended state, as XSAVE64 of all components stores it.
fn saved_state(guest: Guest) -> Vec<u8> {
    let mut state = Area::filled(0);
    let size = guest.vcpu.extended_state.len().min(SIZE);
    state.0[..size].copy_from_slice(&guest.vcpu.extended_state[..size]);
    let mut guest = self::guest(XSAVE64.bytes, &state, &Area::filled(0), u64::MAX);
    guest.succeed();
    guest.bytes(OPERAND, SIZE)
}

/// Saves with `instruction` on the CPU and in a guest, and compares what memory holds.
fn compare_save(instruction: &Instruction, case: &Case) -> Option<(usize, u8, u8)> {
    let mut expected = case.operand.clone();
    let execution = (instruction.execute)(&case.state, &mut expected, case.mask);
    let mut guest = case.guest(instruction, &execution.before);
    guest.succeed();
    difference(&expected.0, &guest.bytes(OPERAND, SIZE))
}

/// Restores with `instruction` on the CPU and in a guest, and compares what the registers hold.
fn compare_restore(instruction: &Instruction, case: &Case) -> Option<(usize, u8, u8)> {
    let mut execution = (instruction.execute)(&case.state, &mut case.operand.clone(), case.mask);
    let mut guest = case.guest(instruction, &execution.before);
    guest.succeed();
    let mut found = saved_state(guest);
    // CPUs differ in which initial components are in use.
    execution.after.0[XSTATE_BV].fill(0);
    found[XSTATE_BV].fill(0);
    difference(&execution.after.0, &found)
}

/// A task switch between two instructions of an execution may mark components as in use: repeats a
/// comparison that fails.
fn compare(compare: impl Fn() -> Option<(usize, u8, u8)>) -> Result<(), TestCaseError> {
    const ATTEMPTS: usize = 3;
    let mut differences = (0..ATTEMPTS).map(|_| compare());
    prop_assert!(differences.any(|difference| difference.is_none()), "offset, expected, found: {:?}", compare());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn saves_write_what_the_cpu_writes(seed: u64, in_use: u64, mask: u64, before: u64) {
        let Some(available) = *AVAILABLE else { return Ok(()) };
        let case = Case::new((seed, in_use), (before, before), None, mask);
        for instruction in saves(available) {
            compare(|| compare_save(&instruction, &case)).map_err(|error| error_in(&instruction, &error))?;
        }
    }

    #[test]
    fn restores_of_the_standard_format_load_what_the_cpu_loads(
        seed: u64, in_use: u64, mask: u64, other: u64, held: u64,
    ) {
        let Some(_) = *AVAILABLE else { return Ok(()) };
        let case = Case::new((seed, in_use), (other, held), None, mask);
        for instruction in [XRSTOR64, XRSTOR, FXRSTOR64, FXRSTOR] {
            compare(|| compare_restore(&instruction, &case)).map_err(|error| error_in(&instruction, &error))?;
        }
    }

    #[test]
    fn restores_of_the_compacted_format_load_what_the_cpu_loads(
        seed: u64, in_use: u64, mask: u64, other: u64, held: u64, room: u64,
    ) {
        let Some(Available { xsavec: true, .. }) = *AVAILABLE else { return Ok(()) };
        let case = Case::new((seed, in_use), (other, held), Some(room), mask);
        for instruction in [XRSTOR64, XRSTOR] {
            compare(|| compare_restore(&instruction, &case)).map_err(|error| error_in(&instruction, &error))?;
        }
    }
}

fn error_in(instruction: &Instruction, error: &TestCaseError) -> TestCaseError {
    TestCaseError::fail(format!("{}: {error}", instruction.name))
}

/// Whether x87 is in use while it has its initial values is the CPU's choice.
#[test]
fn state_after_fninit_is_saved_as_on_the_cpu() {
    let Some(available) = *AVAILABLE else { return };
    let mut state = Area::filled(0);
    state.0[X87_CONTROL][..2].copy_from_slice(&X87_CONTROL_INITIAL.to_le_bytes());
    state.set_mxcsr(MXCSR_INITIAL);
    for in_use in [0, X87] {
        state.0[XSTATE_BV][0] = in_use as u8;
        for instruction in saves(available) {
            let case = Case { state: state.clone(), operand: Area::random(5, 0, 0), mask: u64::MAX };
            let compared = compare(|| compare_save(&instruction, &case));
            compared.map_err(|error| error_in(&instruction, &error)).unwrap();
        }
    }
}
