// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The instruction completions of emulating hosts, with input that a guest can choose: the bytes at
//! RIP, all registers, the page tables, memory, the extended state. The CPU is one of several, of
//! both vendors.
#![no_main]

use kvm::software::testing::{MemoryVcpu, processors};
use kvm::software::{Processor, complete};
use kvm_bindings::{kvm_regs, kvm_segment};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory: two regions with a hole between them. The page tables are in the first.
const LOW: usize = 0x40000;
const HIGH: u64 = 0x80000;
const HIGH_SIZE: usize = 0x10000;
const ROOT: u64 = 0x1000;
const TABLE: u64 = 0x4000;
const BASE: u64 = 0xffff_8880_0000_0000;
const CODE: u64 = 0x8000;
const DATA: u64 = 0x10000;

/// The header of an XSAVE area; XSTATE_BV is its first word.
const HEADER: std::ops::Range<usize> = 512..576;
const MXCSR: std::ops::Range<usize> = 24..28;
/// x87, XMM and YMM: while they are in use, a host rejects an MXCSR with reserved bits.
const WITH_MXCSR: u64 = 7;

/// First bytes of the instructions in the table, or none; the fuzzer appends the rest.
#[rustfmt::skip] // One line per prefix would hide the rest of the file.
const PREFIXES: [&[u8]; 56] = [
    b"", b"", b"", b"\x0f\xae", b"\x48\x0f\xae", b"\x0f\xc7", b"\x48\x0f\xc7", b"\x66\x0f\xae", b"\xf3\x0f\xae",
    b"\xf3\x48\x0f\xae", b"\x0f\x01", b"\x0f\x01\xd0", b"\x0f\x01\xca", b"\x0f\x01\xcb", b"\x9b", b"\xdb\xe3",
    b"\xdb\xe2", b"\xdf\xe0", b"\xd9", b"\xdd", b"\x0f\x77", b"\xc5\xf8\x77", b"\xc5\xf8\xae", b"\xf0\x48\x0f\xc7",
    b"\xf3\x0f\xb8", b"\xf3\x48\x0f\xb8", b"\xf3\x0f\xbc", b"\xf3\x0f\xbd", b"\xc4\xe2\x78\xf2", b"\xc4\xe2\xf8\xf3",
    b"\xc4\xe2\x70\xf5", b"\xc4\xe2\x73\xf5", b"\xc4\xe2\x72\xf5", b"\xc4\xe2\xf3\xf6", b"\xc4\xe2\xf8\xf7",
    b"\xc4\xe2\x79\xf7", b"\xc4\xe2\xfa\xf7", b"\xc4\xe3\xfb\xf0", b"\x66\x0f\x38\xf6", b"\xf3\x48\x0f\x38\xf6",
    b"\xf2\x0f\x38\xf0", b"\xf2\x48\x0f\x38\xf1", b"\x0f\x38\xf0", b"\x0f\x38\xf1", b"\x0f\xc3", b"\x0f\x38\xf9",
    b"\xcc", b"\xf1", b"\x0f\x0b", b"\x0f\x09", b"\xf3\x0f\x1e", b"\x0f\x18", b"\x0f\x0d", b"\x0f\x1c",
    b"\x67\x48\x0f\xae", b"\x65\x48\x0f\xae",
];

static PROCESSORS: LazyLock<Vec<Arc<Processor>>> =
    LazyLock::new(|| processors().into_iter().map(|(_, processor)| Arc::new(processor)).collect());

#[derive(Arbitrary, Debug)]
struct Input {
    processor: u8,
    prefix: u8,
    code: [u8; 16],
    /// Offset of the instruction, counted from the last 256 bytes of its page.
    offset: u8,
    general: [u64; 16],
    /// Which of the general registers point into the mapped 2 MiB.
    pointers: u16,
    flags: u32,
    control_0: u32,
    control_4: u32,
    features: u16,
    /// Bit 0: user mode; bit 1: compatibility or legacy mode; bit 2: 32 bits in it; bit 3: a random
    /// CR3.
    mode: u8,
    bases: [u64; 2],
    enabled: u64,
    supervisor: u64,
    state: u64,
    seed: u64,
    /// Entries of the four page tables, by index.
    entries: Vec<(u16, u64)>,
    /// Words of memory, by address.
    words: Vec<(u32, u64)>,
    /// Header of the XSAVE area at DATA.
    header: [u64; 3],
}

fn random_bytes(seed: u64, bytes: &mut [u8]) {
    let mut state = seed | 1;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn memory(input: &Input) -> GuestMemoryMmap<()> {
    let ranges = [(GuestAddress(0), LOW), (GuestAddress(HIGH), HIGH_SIZE)];
    let memory = GuestMemoryMmap::from_ranges(&ranges).expect("small ranges can be mapped");
    let poke = |address: u64, value: u64| {
        // Fails outside memory: that input has one word less.
        let _ = memory.write_obj(value, GuestAddress(address));
    };
    for (level, table) in [(4, ROOT), (3, 0x2000), (2, 0x3000)] {
        poke(table + 8 * ((BASE >> (12 + 9 * (level - 1))) & 0x1ff), (table + 0x1000) | 7);
    }
    for page in 0..512_u64 {
        poke(TABLE + 8 * page, (page << 12) | 7);
    }
    let mut area = [0; 4096];
    random_bytes(input.seed, &mut area);
    area[MXCSR].copy_from_slice(&(input.seed as u32 & 0x7_ffff).to_le_bytes());
    area[HEADER].fill(0);
    let _ = memory.write_slice(&area, GuestAddress(DATA));
    for (index, word) in input.header.iter().enumerate() {
        poke(DATA + HEADER.start as u64 + 8 * index as u64, *word);
    }
    for (address, value) in &input.words {
        poke(u64::from(*address), *value);
    }
    for (index, value) in &input.entries {
        poke(ROOT + 8 * u64::from(*index % 2048), *value);
    }
    memory
}

fn registers(input: &Input) -> kvm_regs {
    let value = |number: usize| {
        let random = input.general[number];
        if input.pointers & (1 << number) != 0 { BASE + random % (2 << 20) } else { random }
    };
    kvm_regs {
        rax: value(0),
        rbx: if input.pointers & 2 != 0 { BASE + DATA } else { value(1) },
        rcx: value(2),
        rdx: value(3),
        rsi: value(4),
        rdi: value(5),
        rsp: value(6),
        rbp: value(7),
        r8: value(8),
        r9: value(9),
        r10: value(10),
        r11: value(11),
        r12: value(12),
        r13: value(13),
        r14: value(14),
        r15: value(15),
        rip: BASE + CODE + 0xf00 + u64::from(input.offset),
        rflags: u64::from(input.flags),
    }
}

fn vcpu(input: &Input) -> MemoryVcpu {
    let processor = &PROCESSORS[usize::from(input.processor) % PROCESSORS.len()];
    let mut vcpu = MemoryVcpu::new(Arc::clone(processor));
    vcpu.registers = registers(input);
    vcpu.special.cr0 = 0x8000_0001 ^ u64::from(input.control_0);
    vcpu.special.cr3 = if input.mode & 8 != 0 { input.bases[0] } else { ROOT };
    vcpu.special.cr4 = u64::from(input.control_4) ^ (1 << 18 | 1 << 9);
    vcpu.special.efer = 0xd00 ^ u64::from(input.features);
    let long = input.mode & 2 == 0;
    let db = u8::from(input.mode & 4 != 0);
    vcpu.special.cs = kvm_segment { l: long.into(), db, limit: u32::MAX, ..Default::default() };
    vcpu.special.ss.dpl = if input.mode & 1 != 0 { 3 } else { 0 };
    (vcpu.special.fs.base, vcpu.special.gs.base) = (input.bases[0], input.bases[1]);
    if !long {
        vcpu.registers.rip &= 0xffff_ffff;
    }
    vcpu.enabled_components = input.enabled | 1;
    vcpu.supervisor_components = input.supervisor;
    random_bytes(input.seed.rotate_left(32), &mut vcpu.extended_state);
    vcpu.extended_state[HEADER].fill(0);
    vcpu.extended_state[HEADER.start] = input.state as u8;
    vcpu.extended_state[MXCSR].copy_from_slice(&0x1f80_u32.to_le_bytes());
    vcpu
}

fuzz_target!(|input: Input| {
    let memory = memory(&input);
    let mut vcpu = vcpu(&input);
    let mut code = PREFIXES[usize::from(input.prefix) % PREFIXES.len()].to_vec();
    code.extend(input.code);
    let rip = CODE + 0xf00 + u64::from(input.offset);
    memory.write_slice(&code, GuestAddress(rip)).expect("the code is in the first region");

    let before = vcpu.clone();
    let result = complete(&mut vcpu, &memory);
    let state = &vcpu.extended_state;
    let word = |at: usize| u64::from_le_bytes(state[at..at + 8].try_into().expect("eight bytes"));
    match result {
        Err(incomplete) => {
            assert_eq!(vcpu.registers, before.registers, "{incomplete}");
            assert_eq!(*state, before.extended_state, "{incomplete}");
        }
        Ok(completed) => {
            let at_fault = completed.exception.is_some() && vcpu.registers.rip == before.registers.rip;
            if at_fault {
                assert_eq!(vcpu.registers, before.registers, "{completed:?}");
                assert_eq!(*state, before.extended_state, "{completed:?}");
            }
            assert_eq!(vcpu.raised, completed.exception);
        }
    }
    assert!(state[HEADER][8..].iter().all(|byte| *byte == 0), "the host accepts the standard format only");
    let components = word(HEADER.start) & !before.extended_state[HEADER.start] as u64;
    assert_eq!(components & !(vcpu.enabled_components | 3), 0, "a component that is not enabled came into use");
    if word(HEADER.start) & WITH_MXCSR != 0 {
        let mxcsr = u32::from_le_bytes(state[MXCSR].try_into().expect("four bytes"));
        assert_eq!(mxcsr & !vcpu.processor.mxcsr_mask, 0, "the host rejects these bits of MXCSR");
    }
});
