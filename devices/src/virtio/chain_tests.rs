// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chains: which are accepted, which are rejected, and where their bytes are.

use super::*;
use crate::testing::{Driver, MEMORY_SIZE};
use proptest::prelude::*;

const SIZE: u16 = 8;
/// Where the driver puts the table of queue 0.
const TABLE: GuestAddress = GuestAddress(0x1_0000);

/// A chain that was walked.
#[derive(Debug)]
struct Walked<'m> {
    memory: &'m GuestMemory,
    buffers: Buffers,
}

impl Walked<'_> {
    fn chain(&self) -> Chain<'_> {
        self.buffers.chain(self.memory)
    }
}

fn walk_in(memory: &GuestMemory, indirect: bool, head: u16) -> Result<Walked<'_>, ChainError> {
    let mut buffers = Buffers::default();
    buffers.walk(memory, TABLE, SIZE, indirect, head)?;
    Ok(Walked { memory, buffers })
}

fn walk(driver: &Driver, head: u16) -> Result<Walked<'_>, ChainError> {
    walk_in(&driver.memory, true, head)
}

#[test]
fn readable_and_writable_bytes_have_the_order_of_the_chain() {
    let driver = Driver::new(&[SIZE]);
    driver.memory.write_slice(b"abcd", GuestAddress(0x20_0000)).unwrap();
    driver.write_descriptor(0, 3, 0x20_0000, 1, NEXT, 5);
    driver.write_descriptor(0, 5, 0x20_0001, 3, NEXT, 0);
    driver.write_descriptor(0, 0, 0x20_1000, 2, NEXT | WRITE, 1);
    driver.write_descriptor(0, 1, 0x20_2000, 2, WRITE, 0);
    let walked = walk(&driver, 3).unwrap();
    let mut chain = walked.chain();
    let (mut start, mut rest) = ([0; 3], [0; 1]);
    chain.readable.read_exact(&mut start).unwrap();
    chain.readable.read_exact(&mut rest).unwrap();
    assert_eq!((&start, &rest), (b"abc", b"d"));
    assert_eq!(chain.readable.read_exact(&mut rest), Err(TooShort));
    let mut tail = chain.writable.split_off(3);
    assert_eq!(chain.writable.write_all(b"wxyz"), Err(TooShort));
    chain.writable.write_all(b"wxy").unwrap();
    tail.write_all(b"z").unwrap();
    let mut written = [0; 2];
    driver.memory.read_slice(&mut written, GuestAddress(0x20_1000)).unwrap();
    assert_eq!(&written, b"wx");
    driver.memory.read_slice(&mut written, GuestAddress(0x20_2000)).unwrap();
    assert_eq!(&written, b"yz");
}

#[test]
fn walk_rejects_loops_and_indices_outside_the_table() {
    let driver = Driver::new(&[SIZE]);
    for (index, next) in [(0, 0), (1, 2), (2, 1), (3, 8), (4, 65535)] {
        driver.write_descriptor(0, index, 0x20_0000, 1, NEXT, next);
    }
    let rejected = [0, 1, 3, 4, 8, 65535].map(|head| walk(&driver, head).unwrap_err());
    use ChainError::{Index, TooLong};
    assert_eq!(rejected, [TooLong, TooLong, Index(8), Index(65535), Index(8), Index(65535)]);
}

#[test]
fn walk_accepts_a_chain_as_long_as_the_queue_and_no_longer() {
    let mut driver = Driver::new(&[SIZE]);
    let table = driver.allocate(16 * 9);
    for index in 0..u64::from(SIZE) {
        let flags = if index + 1 < u64::from(SIZE) { NEXT } else { 0 };
        driver.write_descriptor_at(table + 16 * index, 0x20_0000, 1, flags, index as u16 + 1);
    }
    driver.write_descriptor(0, 0, table, 16 * u32::from(SIZE), INDIRECT, 0);
    assert_eq!(walk(&driver, 0).unwrap().chain().readable.remaining(), usize::from(SIZE));
    driver.write_descriptor(0, 0, table, 16 * (u32::from(SIZE) + 1), INDIRECT, 0);
    assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::Indirect);
}

#[test]
fn walk_rejects_buffers_that_are_empty_or_outside_memory() {
    let driver = Driver::new(&[SIZE]);
    let end = MEMORY_SIZE as u64;
    for (address, length) in [(end - 1, 2), (end, 1), (0, u32::MAX), (u64::MAX, 1), (u64::MAX - 1, 2), (u64::MAX, 2)] {
        driver.write_descriptor(0, 0, address, length, 0, 0);
        assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::OutsideMemory(address, length), "{address:#x}");
    }
    driver.write_descriptor(0, 0, 0x20_0000, 0, 0, 0);
    assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::Empty(0x20_0000));
    driver.write_descriptor(0, 0, end - 2, 2, 0, 0);
    assert_eq!(walk(&driver, 0).unwrap().chain().readable.remaining(), 2);
}

#[test]
fn walk_rejects_four_gib_in_all() {
    // Only the arithmetic matters: the memory is an unused gigabyte of address space.
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 30)]).unwrap();
    for index in 0..4 {
        let descriptor = Descriptor::new(0, 1 << 30, if index < 3 { NEXT } else { 0 }, index + 1);
        memory.write_obj(descriptor, GuestAddress(TABLE.0 + 16 * u64::from(index))).unwrap();
    }
    let result = walk_in(&memory, false, 0);
    assert_eq!(result.unwrap_err(), ChainError::TooLarge);
}

#[test]
fn walk_rejects_readable_after_writable_buffers() {
    let driver = Driver::new(&[SIZE]);
    driver.write_descriptor(0, 0, 0x20_0000, 1, NEXT | WRITE, 1);
    driver.write_descriptor(0, 1, 0x20_0000, 1, 0, 0);
    assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::Order);
}

#[test]
fn walk_rejects_invalid_indirect_tables() {
    let mut driver = Driver::new(&[SIZE]);
    let table = driver.allocate(64);
    driver.write_descriptor_at(table, 0x20_0000, 4, 0, 0);
    driver.write_descriptor(0, 0, table, 16, INDIRECT, 0);
    assert_eq!(walk(&driver, 0).unwrap().chain().readable.remaining(), 4);
    let not_negotiated = walk_in(&driver.memory, false, 0);
    assert_eq!(not_negotiated.unwrap_err(), ChainError::Indirect);
    for (length, flags) in [(0, INDIRECT), (8, INDIRECT), (17, INDIRECT), (65535 * 16, INDIRECT), (16, INDIRECT | NEXT)]
    {
        driver.write_descriptor(0, 0, table, length, flags, 0);
        assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::Indirect, "{length} {flags}");
    }
    driver.write_descriptor(0, 0, table, 16, INDIRECT, 0);
    driver.write_descriptor_at(table, table, 16, INDIRECT, 0);
    assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::Indirect);
    driver.write_descriptor(0, 0, MEMORY_SIZE as u64, 16, INDIRECT, 0);
    assert_eq!(walk(&driver, 0).unwrap_err(), ChainError::OutsideMemory(MEMORY_SIZE as u64, 16));
}

#[test]
fn buffer_in_two_adjacent_regions_is_one_run_of_bytes() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x2_0000), (GuestAddress(0x2_0000), 0x1000)]).unwrap();
    memory.write_obj(Descriptor::new(0x1_ffff, 2, WRITE, 0), TABLE).unwrap();
    let walked = walk_in(&memory, false, 0).unwrap();
    let mut chain = walked.chain();
    assert_eq!(chain.writable.slices().count(), 2);
    chain.writable.write_all(b"ab").unwrap();
    assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x1_ffff)).unwrap(), *b"ab");
}

proptest! {
    #[test]
    fn walk_of_any_table_yields_at_most_a_queue_of_buffers(
        descriptors in prop::collection::vec((0..0x50_0000u64, 0..0x3000u32, 0..8u16, 0..10u16), 8),
        head in 0..10u16,
    ) {
        let driver = Driver::new(&[SIZE]);
        for (index, (address, length, flags, next)) in (0..).zip(descriptors) {
            driver.write_descriptor(0, index, address, length, flags, next);
        }
        if let Ok(walked) = walk(&driver, head) {
            let chain = walked.chain();
            prop_assert!(chain.readable.slices().count() + chain.writable.slices().count() <= usize::from(SIZE));
        }
    }
}
