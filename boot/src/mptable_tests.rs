// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table is parsed as in a kernel: pointer, header, then entry by entry.

use super::*;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Splits a table into its entries.
fn read_entries(table: &[u8]) -> Vec<&[u8]> {
    let length = usize::from(u16::from_le_bytes(table[20..22].try_into().unwrap()));
    let count = u16::from_le_bytes(table[16 + 34..16 + 36].try_into().unwrap());
    let mut rest = &table[16 + 44..16 + length];
    let mut entries = Vec::new();
    for _ in 0..count {
        let (entry, following) = rest.split_at(if rest[0] == ENTRY_PROCESSOR { 20 } else { 8 });
        entries.push(entry);
        rest = following;
    }
    assert!(rest.is_empty(), "the header's length and count agree");
    entries
}

#[test]
fn table_fits_with_zero_sums_for_every_number_of_cpus() {
    for cpus in 1..=layout::MAX_CPUS {
        let table = table(cpus);
        assert!(table.len() as u64 <= layout::MP_TABLE_SIZE);
        assert_eq!(&table[..4], b"_MP_");
        assert_eq!(sum(&table[..16]), 0);
        assert_eq!(&table[16..20], b"PCMP");
        assert_eq!(sum(&table[16..]), 0);
        assert_eq!(read_entries(&table).len(), usize::from(cpus) + 28);
    }
}

#[test]
fn floating_pointer_points_to_the_table_behind_it() {
    let table = table(2);
    let address = u64::from(u32::from_le_bytes(table[4..8].try_into().unwrap()));
    assert_eq!(address, layout::MP_TABLE.0 + 16);
}

#[test]
fn processors_have_their_index_as_id_and_the_first_boots() {
    let table = table(3);
    let processors: Vec<(u8, u8)> = read_entries(&table)
        .iter()
        .filter(|entry| entry[0] == ENTRY_PROCESSOR)
        .map(|entry| (entry[1], entry[3]))
        .collect();
    assert_eq!(processors, [(0, ENABLED | BOOT_PROCESSOR), (1, ENABLED), (2, ENABLED)]);
}

#[test]
fn every_virtio_line_goes_to_the_pin_of_its_number() {
    let table = table(4);
    let entries = read_entries(&table);
    let io_apics: Vec<u8> = entries.iter().filter(|entry| entry[0] == ENTRY_IO_APIC).map(|entry| entry[1]).collect();
    assert_eq!(io_apics, [4]);
    for line in layout::FIRST_VIRTIO_IRQ..=layout::LAST_VIRTIO_IRQ {
        let line = line as u8;
        let found = entries.iter().find(|entry| entry[0] == ENTRY_IO_INTERRUPT && entry[5] == line).unwrap();
        assert_eq!((found[6], found[7]), (4, line));
    }
}
