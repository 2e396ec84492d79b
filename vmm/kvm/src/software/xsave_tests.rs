// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The XSAVE family on CPUs of both vendors, against a model of the manual: the same state, memory
//! and mask, and every byte compared. Checks and faults are tested by hand. `xsave_cpu_tests.rs`
//! compares with the CPU that runs the tests.

use super::extended_state::ExtendedState;
use super::registers::{CR0_TASK_SWITCHED, CR4_XSAVE};
use super::test_guest::{BASE, CODE, DATA, Guest, PRESENT, PROCESSORS, WRITABLE};
use super::xsave_layout::{
    AVX, COMPACTED, FIXED_SIZE, HEADER, MXCSR, MXCSR_INITIAL, MXCSR_MASK, SSE, X87, X87_CONTROL, X87_CONTROL_INITIAL,
    X87_REGISTERS, XCOMP_BV, XMM_REGISTERS, XSTATE_BV, extended,
};
use super::{Exception, Processor};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use vm_memory::{Bytes as _, GuestAddress};

/// Larger than an area with every component, AMX included.
const SIZE: usize = 0x3000;
/// Across two pages, as signal frames are.
const OPERAND: u64 = DATA + 0xdc0;
/// Bits of MXCSR that raise no exception: random values may differ in them.
const MXCSR_RANDOM: u32 = 0xe07f;

const XSAVE64: &[u8] = &[0x48, 0x0f, 0xae, 0x23];
const XSAVES64: &[u8] = &[0x48, 0x0f, 0xc7, 0x2b];
const XRSTOR64: &[u8] = &[0x48, 0x0f, 0xae, 0x2b];
const XRSTORS64: &[u8] = &[0x48, 0x0f, 0xc7, 0x1b];

/// An XSAVE area of random contents that every CPU accepts, with this header.
pub(super) fn random_area(seed: u64, size: usize, components: u64, format: u64) -> Vec<u8> {
    let mut area = vec![0; size];
    let mut random = seed;
    for word in area.as_chunks_mut::<8>().0 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *word = (random ^ random >> 29).to_le_bytes();
    }
    area[X87_CONTROL][..2].copy_from_slice(&(X87_CONTROL_INITIAL | (seed as u16) & 0xc00).to_le_bytes());
    area[X87_CONTROL][2..4].copy_from_slice(&((seed >> 16) as u16 & 0x7f00).to_le_bytes());
    area[5] = 0;
    area[7] &= 7;
    for pointer in [8, 16] {
        area[pointer + 5] &= 0x7f;
        area[pointer + 6..pointer + 8].fill(0);
    }
    for register in area[X87_REGISTERS].as_chunks_mut::<16>().0 {
        register[10..].fill(0);
    }
    let mxcsr = MXCSR_INITIAL | (seed >> 32) as u32 & MXCSR_RANDOM;
    area[MXCSR].copy_from_slice(&mxcsr.to_le_bytes());
    area[HEADER].fill(0);
    area[XSTATE_BV].copy_from_slice(&components.to_le_bytes());
    area[XCOMP_BV].copy_from_slice(&format.to_le_bytes());
    area
}

fn random_state(seed: u64, in_use: u64) -> Vec<u8> {
    random_area(seed, SIZE, in_use, 0)
}

/// A guest on `processor` with this state, about to execute `code` with `mask` on a copy of
/// `operand`.
fn guest(processor: &Arc<Processor>, code: &[u8], state: &[u8], operand: &[u8], mask: u64) -> Guest {
    let mut guest = Guest::on(processor, code);
    let size = guest.vcpu.extended_state.len();
    guest.vcpu.extended_state.copy_from_slice(&state[..size]);
    guest.vcpu.registers.rax = mask & 0xffff_ffff;
    guest.vcpu.registers.rdx = mask >> 32;
    guest.vcpu.registers.rbx = BASE + OPERAND;
    guest.memory.write_slice(operand, GuestAddress(OPERAND)).unwrap();
    guest
}

fn word(bytes: &[u8], range: Range<usize>) -> u64 {
    u64::from_le_bytes(bytes[range].try_into().unwrap())
}

/// The format of an instruction of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `FXSAVE`, `FXRSTOR`.
    Legacy,
    Standard,
    /// `XSAVEOPT`.
    StandardInUse,
    Compacted,
}

/// Name, bytes, format, 64-bit x87 pointers.
type Instruction = (&'static str, &'static [u8], Format, bool);

const SAVES: [Instruction; 10] = [
    ("xsave64", XSAVE64, Format::Standard, true),
    ("xsave", &[0x0f, 0xae, 0x23], Format::Standard, false),
    ("xsaveopt64", &[0x48, 0x0f, 0xae, 0x33], Format::StandardInUse, true),
    ("xsaveopt", &[0x0f, 0xae, 0x33], Format::StandardInUse, false),
    ("xsavec64", &[0x48, 0x0f, 0xc7, 0x23], Format::Compacted, true),
    ("xsavec", &[0x0f, 0xc7, 0x23], Format::Compacted, false),
    ("xsaves64", XSAVES64, Format::Compacted, true),
    ("xsaves", &[0x0f, 0xc7, 0x2b], Format::Compacted, false),
    ("fxsave64", &[0x48, 0x0f, 0xae, 0x03], Format::Legacy, true),
    ("fxsave", &[0x0f, 0xae, 0x03], Format::Legacy, false),
];

const RESTORES: [Instruction; 6] = [
    ("xrstor64", XRSTOR64, Format::Standard, true),
    ("xrstor", &[0x0f, 0xae, 0x2b], Format::Standard, false),
    ("xrstors64", XRSTORS64, Format::Compacted, true),
    ("xrstors", &[0x0f, 0xc7, 0x1b], Format::Compacted, false),
    ("fxrstor64", &[0x48, 0x0f, 0xae, 0x0b], Format::Legacy, true),
    ("fxrstor", &[0x0f, 0xae, 0x0b], Format::Legacy, false),
];

/// What a CPU holds, component by component.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registers {
    /// Control words, pointers and registers of the x87 unit, as in the legacy region.
    x87: Vec<u8>,
    mxcsr: u32,
    xmm: Vec<u8>,
    extended: Vec<(usize, Vec<u8>)>,
}

impl Registers {
    fn initial(processor: &Processor) -> Self {
        let numbers = extended(processor.xstate.user_components());
        let mut x87 = vec![0; 152];
        x87[..2].copy_from_slice(&X87_CONTROL_INITIAL.to_le_bytes());
        Self {
            x87,
            mxcsr: MXCSR_INITIAL,
            xmm: vec![0; 256],
            extended: numbers.map(|number| (number, vec![0; processor.xstate.standard(number).len()])).collect(),
        }
    }

    /// Loads the components in `set` from `area`; `offset` is that of an extended component.
    fn load(&mut self, area: &[u8], set: u64, wide: bool, offset: impl Fn(usize) -> usize) {
        if set & X87 != 0 {
            self.x87 = [&area[..24], &area[32..160]].concat();
            if !wide {
                self.x87[12..16].fill(0);
                self.x87[20..24].fill(0);
            }
        }
        if set & SSE != 0 {
            self.xmm.copy_from_slice(&area[160..416]);
        }
        for (number, bytes) in &mut self.extended {
            if set & 1 << *number != 0 {
                let size = bytes.len();
                bytes.copy_from_slice(&area[offset(*number)..][..size]);
            }
        }
    }

    /// Resets the components in `set`, without MXCSR.
    fn reset(&mut self, set: u64, processor: &Processor) {
        let initial = Self::initial(processor);
        if set & X87 != 0 {
            self.x87 = initial.x87;
        }
        if set & SSE != 0 {
            self.xmm = initial.xmm;
        }
        for ((number, bytes), (_, zero)) in self.extended.iter_mut().zip(initial.extended) {
            if set & 1 << *number != 0 {
                *bytes = zero;
            }
        }
    }

    /// The state that a host returns in standard format, with components that are not in use.
    fn of_state(state: &[u8], processor: &Processor) -> Self {
        let in_use = word(state, XSTATE_BV);
        let mut registers = Self::initial(processor);
        registers.load(state, in_use, true, |number| processor.xstate.standard(number).start);
        if in_use & (SSE | AVX) != 0 {
            registers.mxcsr = u32::from_le_bytes(state[MXCSR].try_into().unwrap());
        }
        registers
    }
}

/// Offset of a component in an area that is compacted to those in `room`.
fn compacted_offset(processor: &Processor, room: u64, number: usize) -> usize {
    // Only AMX is aligned.
    let aligned = |offset: usize, number| if number == 17 || number == 18 { offset.div_ceil(64) * 64 } else { offset };
    let before = extended(room).filter(|before| *before < number);
    let end =
        before.fold(FIXED_SIZE, |offset, before| aligned(offset, before) + processor.xstate.standard(before).len());
    aligned(end, number)
}

/// What the manual says a save instruction leaves in `memory`.
fn saved(processor: &Processor, format: Format, wide: bool, state: &[u8], memory: &[u8], mask: u64) -> Vec<u8> {
    let registers = Registers::of_state(state, processor);
    let requested = if format == Format::Legacy { X87 | SSE } else { mask & processor.xstate.user_components() };
    let in_use = word(state, XSTATE_BV) & requested;
    let (written, mxcsr) = match format {
        Format::Legacy => (requested, true),
        Format::Standard => (requested, requested & (SSE | AVX) != 0),
        Format::StandardInUse => (in_use, requested & (SSE | AVX) != 0),
        Format::Compacted => {
            let written = in_use | if registers.mxcsr != MXCSR_INITIAL { requested & SSE } else { 0 };
            (written, written & SSE != 0)
        }
    };
    let mut memory = memory.to_vec();
    if written & X87 != 0 {
        memory[..24].copy_from_slice(&registers.x87[..24]);
        memory[32..160].copy_from_slice(&registers.x87[24..]);
        if !wide {
            memory[12..16].fill(0);
            memory[20..24].fill(0);
        }
    }
    if mxcsr {
        memory[MXCSR].copy_from_slice(&registers.mxcsr.to_le_bytes());
        memory[MXCSR_MASK].copy_from_slice(&processor.mxcsr_mask.to_le_bytes());
    }
    if written & SSE != 0 {
        memory[160..416].copy_from_slice(&registers.xmm);
    }
    for (number, bytes) in registers.extended.iter().filter(|(number, _)| written & 1 << *number != 0) {
        let start = match format {
            Format::Compacted => compacted_offset(processor, requested, *number),
            _ => processor.xstate.standard(*number).start,
        };
        memory[start..start + bytes.len()].copy_from_slice(bytes);
    }
    let header = match format {
        Format::Legacy => word(&memory, XSTATE_BV),
        Format::Compacted => written,
        _ => word(&memory, XSTATE_BV) & !requested | in_use,
    };
    memory[XSTATE_BV].copy_from_slice(&header.to_le_bytes());
    if format == Format::Compacted {
        memory[XCOMP_BV].copy_from_slice(&(requested | COMPACTED).to_le_bytes());
    }
    memory
}

/// What the manual says the CPU holds after a restore instruction.
fn restored(processor: &Processor, format: Format, wide: bool, state: &[u8], area: &[u8], mask: u64) -> Registers {
    let mut registers = Registers::of_state(state, processor);
    let requested = if format == Format::Legacy { X87 | SSE } else { mask & processor.xstate.user_components() };
    let held = if format == Format::Legacy { requested } else { word(area, XSTATE_BV) & requested };
    let room = word(area, XCOMP_BV) & !COMPACTED;
    registers.reset(requested & !held, processor);
    registers.load(area, held, wide, |number| match format {
        Format::Compacted => compacted_offset(processor, room, number),
        _ => processor.xstate.standard(number).start,
    });
    let loaded = u32::from_le_bytes(area[MXCSR].try_into().unwrap());
    registers.mxcsr = match format {
        Format::Compacted if held & SSE != 0 => loaded,
        Format::Compacted if requested & SSE != 0 => MXCSR_INITIAL,
        Format::Compacted => registers.mxcsr,
        _ if requested & (SSE | AVX) != 0 => loaded,
        _ => registers.mxcsr,
    };
    registers
}

fn difference(expected: &[u8], found: &[u8]) -> Option<(usize, u8, u8)> {
    (0..expected.len()).find(|at| expected[*at] != found[*at]).map(|at| (at, expected[at], found[at]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn saves_write_what_the_manual_says(seed: u64, in_use: u64, mask: u64, before: u64) {
        let operand = random_area(before, SIZE, before, 0);
        for (name, processor) in PROCESSORS.iter() {
            let state = random_state(seed, in_use & processor.xstate.user_components());
            for (instruction, code, format, wide) in SAVES {
                let expected = saved(processor, format, wide, &state, &operand, mask);
                let mut guest = guest(processor, code, &state, &operand, mask);
                guest.succeed();
                let found = guest.bytes(OPERAND, SIZE);
                prop_assert_eq!(difference(&expected, &found), None, "{} on {}", instruction, name);
            }
        }
    }

    #[test]
    fn restores_load_what_the_manual_says(
        seed: u64, in_use: u64, mask: u64, other: u64, held: u64, room: u64,
    ) {
        for (name, processor) in PROCESSORS.iter() {
            let components = processor.xstate.user_components();
            let state = random_state(seed, in_use & components);
            for (instruction, code, format, wide) in RESTORES {
                let operand = match format {
                    Format::Compacted => random_area(other, SIZE, held & room & components, room & components | COMPACTED),
                    _ => random_area(other, SIZE, held & components, 0),
                };
                let expected = restored(processor, format, wide, &state, &operand, mask);
                let mut guest = guest(processor, code, &state, &operand, mask);
                guest.succeed();
                let found = Registers::of_state(&guest.vcpu.extended_state, processor);
                prop_assert_eq!(&found, &expected, "{} on {}", instruction, name);
            }
        }
    }
}

#[test]
fn components_are_where_their_cpu_has_them() {
    const PKRU: usize = 9;
    const PKRU_SET: u64 = 1 << PKRU;
    let processor = |name: &str| &PROCESSORS.iter().find(|(found, _)| found.contains(name)).unwrap().1.xstate;
    let (intel, amd) = (processor("Skylake"), processor("Zen 4, with"));
    assert_eq!((intel.standard(PKRU), amd.standard(PKRU)), (2688..2696, 2432..2440));
    assert_eq!((intel.standard_size(), amd.standard_size()), (2696, 2440));
    for layout in [intel, amd] {
        assert_eq!(layout.compacted(PKRU, PKRU_SET), 576..584);
        assert_eq!(layout.compacted(PKRU, PKRU_SET | AVX), 832..840);
    }
    let (amx, lwp) = (processor("AMX"), processor("LWP"));
    assert_eq!(amx.compacted(18, 3 << 17 | PKRU_SET), 704..8896, "tiles are aligned");
    assert_eq!((lwp.standard(62), lwp.compacted(62, 1 << 62)), (832..960, 576..704));
    assert!(lwp.holds(X87 | SSE | AVX | 1 << 62) && !amd.holds(1 << 62));
    assert!(!amd.holds(1 << 11), "the standard format holds no supervisor component");
}

#[test]
fn state_survives_xsaves_and_xrstors() {
    for (name, processor) in PROCESSORS.iter() {
        let state = random_state(7, processor.xstate.user_components());
        let mut saver = guest(processor, XSAVES64, &state, &[0; SIZE], u64::MAX);
        saver.succeed();
        let saved = saver.bytes(OPERAND, SIZE);
        let mut restorer = guest(processor, XRSTORS64, &[0; SIZE], &saved, u64::MAX);
        restorer.succeed();
        let held = |guest: &Guest| Registers::of_state(&guest.vcpu.extended_state, processor);
        assert_eq!(held(&restorer), held(&saver), "{name}");
    }
}

#[test]
fn initial_x87_is_saved_alike_whether_or_not_it_is_in_use() {
    let mut intel = vec![0; SIZE];
    intel[..2].copy_from_slice(&X87_CONTROL_INITIAL.to_le_bytes());
    let amd = intel.clone();
    intel[XSTATE_BV.start] = X87 as u8;
    for (name, processor) in PROCESSORS.iter() {
        let save = |state: &[u8]| {
            let mut guest = guest(processor, XSAVE64, state, &[0xaa; SIZE], X87);
            guest.succeed();
            guest.bytes(OPERAND, SIZE)
        };
        let (intel, amd) = (save(&intel), save(&amd));
        assert_eq!(difference(&intel, &amd), Some((XSTATE_BV.start, 0xab, 0xaa)), "{name}");
        assert_eq!(difference(&intel[XSTATE_BV.start + 1..], &amd[XSTATE_BV.start + 1..]), None, "{name}");
    }
}

#[test]
fn invalid_header_is_a_general_protection_fault() {
    let reserved = 1 << 61;
    for (name, processor) in PROCESSORS.iter() {
        let enabled = processor.xstate.user_components();
        let cases: [(&[u8], u64, u64); 7] = [
            (XRSTOR64, enabled | reserved, 0),
            (XRSTOR64, X87, SSE),
            (XRSTOR64, X87, COMPACTED | SSE),
            (XRSTOR64, X87, COMPACTED | reserved | X87),
            (XRSTORS64, X87, 0),
            (XRSTORS64, X87 | SSE, COMPACTED | X87),
            (XRSTORS64, 0, COMPACTED | reserved),
        ];
        let fault = |code, operand: &[u8]| guest(processor, code, &[0; SIZE], operand, u64::MAX).fault();
        for (code, components, format) in cases {
            let operand = random_area(1, SIZE, components, format);
            assert_eq!(fault(code, &operand), Exception::GENERAL_PROTECTION, "{name}");
        }
        for at in [HEADER.start + 16, HEADER.start + 56] {
            let mut operand = random_area(1, SIZE, X87, COMPACTED | X87);
            operand[at] = 1;
            assert_eq!(fault(XRSTOR64, &operand), Exception::GENERAL_PROTECTION, "{name}");
        }
    }
}

#[test]
fn reserved_bits_of_mxcsr_fault_only_when_loaded() {
    const MISALIGNED: u32 = 1 << 17;
    for (name, processor) in PROCESSORS.iter() {
        let mut operand = random_area(1, SIZE, X87 | SSE, 0);
        for bit in [1 << 16, MISALIGNED, 1 << 18] {
            operand[MXCSR].copy_from_slice(&(MXCSR_INITIAL | bit).to_le_bytes());
            guest(processor, XRSTOR64, &[0; SIZE], &operand, X87).succeed();
            let mut loading = guest(processor, XRSTOR64, &[0; SIZE], &operand, SSE);
            if processor.mxcsr_mask & bit != 0 {
                loading.succeed();
                assert_eq!(loading.vcpu.extended_state[MXCSR], operand[MXCSR], "{name}");
            } else {
                assert_eq!(loading.fault(), Exception::GENERAL_PROTECTION, "{name}");
            }
        }
    }
}

fn on_first_processor(code: &[u8], state: &[u8], operand: &[u8], mask: u64) -> Guest {
    guest(&PROCESSORS[0].1, code, state, operand, mask)
}

#[test]
fn area_must_be_aligned_enabled_and_not_lazily_switched() {
    let area = [0; SIZE];
    let mut unaligned = on_first_processor(XSAVE64, &area, &area, 3);
    unaligned.vcpu.registers.rbx += 32;
    assert_eq!(unaligned.fault(), Exception::GENERAL_PROTECTION);
    let mut disabled = on_first_processor(XSAVE64, &area, &area, 3);
    disabled.vcpu.special.cr4 &= !CR4_XSAVE;
    assert_eq!(disabled.fault(), Exception::INVALID_OPCODE);
    let mut switched = on_first_processor(XSAVE64, &area, &area, 3);
    switched.vcpu.special.cr0 |= CR0_TASK_SWITCHED;
    assert_eq!(switched.fault(), Exception::DEVICE_NOT_AVAILABLE);
    let mut user = on_first_processor(XSAVES64, &area, &area, 3);
    user.vcpu.special.ss.dpl = 3;
    user.map(DATA, DATA | 7);
    user.map(CODE, CODE | 7);
    assert_eq!(user.fault(), Exception::GENERAL_PROTECTION);
}

#[test]
fn fault_in_the_second_page_changes_neither_page_nor_state() {
    let components = PROCESSORS[0].1.xstate.user_components();
    let (state, before) = (random_state(3, components), random_area(4, SIZE, 0, 0));
    let mut saver = on_first_processor(XSAVE64, &state, &before, u64::MAX);
    saver.map(DATA + 0x1000, (DATA + 0x1000) | PRESENT);
    assert_eq!(saver.fault(), Exception::page_fault(BASE + DATA + 0x1000, 3));
    assert_eq!(saver.bytes(OPERAND, SIZE), before);

    let operand = random_area(5, SIZE, components, 0);
    let mut restorer = on_first_processor(XRSTOR64, &state, &operand, u64::MAX);
    restorer.map(DATA + 0x1000, 0);
    let unchanged = restorer.vcpu.extended_state.clone();
    assert_eq!(restorer.fault(), Exception::page_fault(BASE + DATA + 0x1000, 0));
    assert_eq!(restorer.vcpu.extended_state, unchanged);
    restorer.map(DATA + 0x1000, (DATA + 0x1000) | PRESENT | WRITABLE);
    restorer.succeed();
    assert_eq!(restorer.vcpu.extended_state[XMM_REGISTERS], operand[XMM_REGISTERS]);
}

#[test]
fn component_that_the_host_lacks_ends_the_vm() {
    let area = [0; SIZE];
    let mut guest = on_first_processor(XSAVE64, &area, &area, u64::MAX);
    guest.vcpu.enabled_components |= 1 << 40;
    assert!(guest.complete().unwrap_err().reason.contains("components"));
}

#[test]
fn xgetbv_returns_enabled_components_and_those_in_use() {
    const XGETBV: &[u8] = &[0x0f, 0x01, 0xd0];
    for (name, processor) in PROCESSORS.iter() {
        for (selector, expected) in [(0, processor.xstate.user_components()), (1, X87)] {
            let mut guest = guest(processor, XGETBV, &random_state(1, X87), &[0; SIZE], 0);
            guest.vcpu.registers.rcx = selector;
            guest.succeed();
            assert_eq!(guest.vcpu.registers.rdx << 32 | guest.vcpu.registers.rax, expected, "{name}");
        }
        let mut guest = guest(processor, XGETBV, &[0; SIZE], &[0; SIZE], 0);
        guest.vcpu.registers.rcx = 2;
        assert_eq!(guest.fault(), Exception::GENERAL_PROTECTION, "{name}");
    }
}

#[test]
fn state_shorter_than_a_component_does_not_hold_it() {
    for (name, processor) in PROCESSORS.iter() {
        let mut bytes = vec![0; HEADER.end];
        let state = ExtendedState::new(&mut bytes, processor);
        assert!(state.holds(X87 | SSE), "{name}");
        assert!(!state.holds(AVX), "{name}");
        assert!(!state.holds(1 << 40), "{name}");
    }
}
