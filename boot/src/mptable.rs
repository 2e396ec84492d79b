// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CPUs and interrupt lines for kernels without ACPI: the tables of Intel's MultiProcessor
//! Specification 1.4. Pure.
//!
//! Floating pointer and configuration table share the last KiB of base memory, the second area that
//! Linux searches. The third one, the BIOS area, would cost it 64 KiB of reads.
//!
//! | entry | count | holds |
//! |---|---|---|
//! | processor | one per vCPU | APIC id = index of the vCPU; the first one boots |
//! | bus | 1 | ISA, number 0 |
//! | I/O APIC | 1 | its id follows the processors' |
//! | I/O interrupt | 24 | line n of the bus at pin n, edge-triggered and active high, the bus's default |
//! | local interrupt | 2 | the PIC at LINT0 of the first processor, NMI at LINT1 of all |

use crate::layout;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Pins of KVM's I/O APIC.
const PINS: u8 = 24;

#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct FloatingPointer {
    signature: [u8; 4],
    table: U32,
    /// In units of 16 bytes.
    length: u8,
    revision: u8,
    checksum: u8,
    features: [u8; 5],
}

#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ConfigurationHeader {
    signature: [u8; 4],
    length: U16,
    revision: u8,
    checksum: u8,
    maker: [u8; 8],
    product: [u8; 12],
    oem_table: U32,
    oem_table_size: U16,
    entries: U16,
    local_apic: U32,
    extended_length: U16,
    extended_checksum: u8,
    reserved: u8,
}

#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Processor {
    entry: u8,
    apic_id: u8,
    apic_version: u8,
    flags: u8,
    signature: U32,
    features: U32,
    reserved: [U32; 2],
}

#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Bus {
    entry: u8,
    id: u8,
    kind: [u8; 6],
}

#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct IoApic {
    entry: u8,
    id: u8,
    version: u8,
    flags: u8,
    address: U32,
}

/// An I/O interrupt or a local one: `destination` is an I/O APIC or a local APIC.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct InterruptSource {
    entry: u8,
    kind: u8,
    /// Polarity and trigger mode; 0 is the bus's default.
    flags: U16,
    bus: u8,
    bus_line: u8,
    destination: u8,
    destination_pin: u8,
}

const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_IO_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;

const REVISION_1_4: u8 = 4;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
const ENABLED: u8 = 1 << 0;
const BOOT_PROCESSOR: u8 = 1 << 1;
/// Family 6; the kernel reads the rest from CPUID.
const PROCESSOR_SIGNATURE: u32 = 0x600;
/// FPU and APIC.
const PROCESSOR_FEATURES: u32 = 1 << 0 | 1 << 9;
const ISA_BUS: u8 = 0;
const KIND_INTERRUPT: u8 = 0;
const KIND_NMI: u8 = 1;
const KIND_EXTERNAL: u8 = 3;
const ALL_LOCAL_APICS: u8 = 0xff;

const POINTER_SIZE: usize = size_of::<FloatingPointer>();
/// Size of floating pointer and table for `cpus`.
const fn size(cpus: u8) -> usize {
    POINTER_SIZE
        + size_of::<ConfigurationHeader>()
        + cpus as usize * size_of::<Processor>()
        + size_of::<Bus>()
        + size_of::<IoApic>()
        + (PINS as usize + 2) * size_of::<InterruptSource>()
}
const _: () = assert!(size(layout::MAX_CPUS) as u64 <= layout::MP_TABLE_SIZE, "the MP table has one KiB");
const _: () = assert!(layout::LAST_VIRTIO_IRQ < PINS as u32, "each line has a pin");
const _: () = assert!(layout::MP_TABLE.0.is_multiple_of(16), "the floating pointer is found at multiples of 16");

/// Floating pointer and configuration table for `cpus` processors, to be written to
/// [`layout::MP_TABLE`].
pub(crate) fn table(cpus: u8) -> Vec<u8> {
    let entries = entries(cpus);
    let header = ConfigurationHeader {
        signature: *b"PCMP",
        length: ((size(cpus) - POINTER_SIZE) as u16).into(),
        revision: REVISION_1_4,
        checksum: 0,
        maker: *b"CORACLE ",
        product: *b"MICROVM     ",
        oem_table: 0.into(),
        oem_table_size: 0.into(),
        entries: (u16::from(cpus) + u16::from(PINS) + 4).into(),
        local_apic: (layout::LOCAL_APIC.0 as u32).into(),
        extended_length: 0.into(),
        extended_checksum: 0,
        reserved: 0,
    };
    let header = ConfigurationHeader { checksum: checksum(&[header.as_bytes(), &entries]), ..header };
    let pointer = FloatingPointer {
        signature: *b"_MP_",
        table: (layout::MP_TABLE.0 as u32 + POINTER_SIZE as u32).into(),
        length: 1,
        revision: REVISION_1_4,
        checksum: 0,
        features: [0; 5],
    };
    let pointer = FloatingPointer { checksum: checksum(&[pointer.as_bytes()]), ..pointer };
    [pointer.as_bytes(), header.as_bytes(), &entries].concat()
}

fn entries(cpus: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size(cpus));
    for index in 0..cpus {
        let processor = Processor {
            entry: ENTRY_PROCESSOR,
            apic_id: index,
            apic_version: LOCAL_APIC_VERSION,
            flags: if index == 0 { ENABLED | BOOT_PROCESSOR } else { ENABLED },
            signature: PROCESSOR_SIGNATURE.into(),
            features: PROCESSOR_FEATURES.into(),
            reserved: [0.into(); 2],
        };
        bytes.extend_from_slice(processor.as_bytes());
    }
    let io_apic_id = cpus;
    bytes.extend_from_slice(Bus { entry: ENTRY_BUS, id: ISA_BUS, kind: *b"ISA   " }.as_bytes());
    let io_apic = IoApic {
        entry: ENTRY_IO_APIC,
        id: io_apic_id,
        version: IO_APIC_VERSION,
        flags: ENABLED,
        address: (layout::IO_APIC.0 as u32).into(),
    };
    bytes.extend_from_slice(io_apic.as_bytes());
    for pin in 0..PINS {
        bytes.extend_from_slice(source(ENTRY_IO_INTERRUPT, KIND_INTERRUPT, pin, io_apic_id, pin).as_bytes());
    }
    bytes.extend_from_slice(source(ENTRY_LOCAL_INTERRUPT, KIND_EXTERNAL, 0, 0, 0).as_bytes());
    bytes.extend_from_slice(source(ENTRY_LOCAL_INTERRUPT, KIND_NMI, 0, ALL_LOCAL_APICS, 1).as_bytes());
    bytes
}

fn source(entry: u8, kind: u8, bus_line: u8, destination: u8, destination_pin: u8) -> InterruptSource {
    InterruptSource { entry, kind, flags: 0.into(), bus: ISA_BUS, bus_line, destination, destination_pin }
}

/// Returns the byte that makes the sum of all bytes 0.
fn checksum(parts: &[&[u8]]) -> u8 {
    parts.iter().flat_map(|part| part.iter()).fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
#[path = "mptable_tests.rs"]
mod tests;
