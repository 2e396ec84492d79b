// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tables are followed from their root, as in a kernel, and their AML is searched for the
//! encoded devices.

use super::*;
use vm_memory::GuestAddress;

fn devices(count: u32) -> Vec<MmioDevice> {
    let device = |number: u32| MmioDevice {
        window: GuestAddress(layout::VIRTIO_MMIO_BASE.0 + u64::from(number) * layout::VIRTIO_MMIO_WINDOW),
        line: layout::FIRST_VIRTIO_IRQ + number,
    };
    (0..count).map(device).collect()
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Returns the table at a guest-physical address, after verifying its checksum.
fn table(tables: &[u8], address: u64) -> &[u8] {
    let table = &tables[usize::try_from(address - layout::ACPI_TABLES.0).unwrap()..];
    let table = &table[..usize::try_from(number(table, 4, 4)).unwrap()];
    assert_eq!(sum(table), 0, "checksum of {}", String::from_utf8_lossy(&table[..4]));
    table
}

/// Returns FADT, MADT and DSDT, found from the root pointer.
fn follow(tables: &[u8]) -> [&[u8]; 3] {
    assert_eq!(&tables[..8], b"RSD PTR ");
    assert_eq!((sum(&tables[..20]), sum(&tables[..36])), (0, 0));
    let xsdt = table(tables, number(tables, 24, 8));
    assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 2 * 8));
    let (fadt, madt) = (table(tables, number(xsdt, 36, 8)), table(tables, number(xsdt, 44, 8)));
    let dsdt = table(tables, number(fadt, 140, 8));
    assert_eq!([&fadt[..4], &madt[..4], &dsdt[..4]], [b"FACP", b"APIC", b"DSDT"]);
    [fadt, madt, dsdt]
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn tables_of_the_largest_machine_fit() {
    let tables = tables(layout::MAX_CPUS, &devices(layout::VIRTIO_MMIO_COUNT));
    follow(&tables);
    assert!(tables.len() as u64 <= layout::ACPI_TABLES_SIZE, "{} bytes", tables.len());
}

#[test]
fn fadt_is_hardware_reduced_and_has_the_power_registers() {
    let tables = tables(1, &[]);
    let [fadt, ..] = follow(&tables);
    let (hardware_reduced, reset_supported) = (1 << 20, 1 << 10);
    let flags = number(fadt, 112, 4);
    assert_eq!(flags & (hardware_reduced | reset_supported), hardware_reduced | reset_supported);
    let register = |at: usize| (fadt[at..at + 4].to_vec(), number(fadt, at + 4, 8));
    // Port space, eight bits from bit 0, byte access (5.2.3.2).
    let port = |number: u16| (vec![1, 8, 0, 1], u64::from(number));
    assert_eq!((register(116), fadt[128]), (port(layout::ACPI_RESET), layout::ACPI_RESET_VALUE));
    assert_eq!(register(244), port(layout::SLEEP_CONTROL));
    assert_eq!(register(256), port(layout::SLEEP_STATUS));
}

#[test]
fn madt_has_all_processors_one_io_apic_and_no_override() {
    let tables = tables(3, &[]);
    let [_, madt, _] = follow(&tables);
    assert_eq!((number(madt, 36, 4), number(madt, 40, 4)), (layout::LOCAL_APIC.0, 0), "no PIC");
    let processor = |index: u8| [0, 8, index, index, 1, 0, 0, 0];
    let mut expected: Vec<u8> = (0..3).flat_map(processor).collect();
    expected.extend([1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    assert_eq!(madt[44..], expected);
}

#[test]
fn device_has_its_window_and_an_edge_triggered_line() {
    let devices = devices(19);
    let tables = tables(1, &devices);
    let [_, _, dsdt] = follow(&tables);
    for (index, device) in devices.iter().enumerate() {
        assert!(contains(dsdt, format!("V{index:03}\x08_HID\x0dLNRO0005\0").as_bytes()), "{index}");
        let mut window = vec![0x86, 9, 0, 1];
        window.extend((device.window.0 as u32).to_le_bytes());
        window.extend((layout::VIRTIO_MMIO_WINDOW as u32).to_le_bytes());
        assert!(contains(dsdt, &window), "{index}");
        assert!(contains(dsdt, &[0x89, 6, 0, 3, 1, device.line as u8, 0, 0, 0]), "{index}");
    }
}

#[test]
fn dsdt_has_the_serial_port_and_the_off_value() {
    let tables = tables(1, &[]);
    let [_, _, dsdt] = follow(&tables);
    // An I/O port descriptor for eight ports from 0x3f8, then line 4.
    assert!(contains(dsdt, &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0]));
    // _S5_, a package of two bytes.
    assert!(contains(dsdt, b"_S5_\x12\x06\x02\x0a\x05\x0a\x05"));
}
