// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The block device through its queue: requests as a driver writes them, on real files.

use super::super::{VirtioDevice, Worker};
use super::device::*;
use crate::testing::{Buffer, Driver};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use tempfile::NamedTempFile;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const DISCARD_FEATURES: u64 = 1 << 13 | 1 << 14;

/// A disk of 16 sectors, each filled with its number, and its driver.
struct Bench {
    image: NamedTempFile,
    block: Block,
    driver: Driver,
    worker: Box<dyn Worker>,
}

fn image() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    (0..16u8).for_each(|sector| image.as_file().write_all_at(&[sector; 512], u64::from(sector) * 512).unwrap());
    image
}

fn config(image: &NamedTempFile, read_only: bool) -> BlockConfig {
    let file = File::options().read(true).write(!read_only).open(image.path()).unwrap();
    BlockConfig { file, path: image.path().to_owned(), read_only, scratch: false, serial: "root".to_owned() }
}

fn bench_with(read_only: bool, features: u64) -> Bench {
    let image = image();
    let mut block = Block::open(config(&image, read_only)).unwrap();
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(features)).unwrap();
    Bench { image, block, driver, worker }
}

fn bench() -> Bench {
    bench_with(false, DISCARD_FEATURES)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

impl Bench {
    /// Status, used length and what was read, of a request with `data` to the device and `room` bytes for its answer.
    fn ask(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> (u8, u32, Vec<u8>) {
        let header = header(kind, sector);
        let mut buffers = vec![Buffer::Send(&header)];
        if !data.is_empty() {
            buffers.push(Buffer::Send(data));
        }
        if room > 0 {
            buffers.push(Buffer::Room(room));
        }
        buffers.push(Buffer::Room(1));
        let offered = self.driver.offer(0, &buffers);
        self.worker.start();
        let (head, length) = self.driver.returned(0).unwrap();
        assert_eq!(head, offered.head);
        let last = offered.buffers.len() - 1;
        let read = if room > 0 { self.driver.contents(&offered, last - 1) } else { Vec::new() };
        (self.driver.contents(&offered, last)[0], length, read)
    }

    fn status(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> u8 {
        self.ask(kind, sector, data, room).0
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.image.path()).unwrap()
    }
}

#[test]
fn sectors_are_read_and_written_where_they_belong_and_counted() {
    let mut bench = bench();
    assert_eq!(bench.ask(READ, 3, &[], 1024), (OK, 1025, [[3; 512], [4; 512]].concat()));
    assert_eq!(bench.ask(WRITE, 15, &[0xee; 512], 0), (OK, 1, vec![]));
    assert_eq!(bench.image()[14 * 512..], [[14; 512], [0xee; 512]].concat());
    let counters = bench.block.counters();
    let counts = [&counters.read_bytes, &counters.write_bytes, &counters.read_requests, &counters.write_requests];
    assert_eq!(counts.map(|count| count.load(Ordering::Relaxed)), [1024, 512, 1, 1]);
}

#[test]
fn a_request_in_many_unequal_buffers_is_one_run_of_bytes() {
    let mut bench = bench();
    let bytes: Vec<u8> = (0..1024).map(|i| (i % 251) as u8).collect();
    let header = header(WRITE, 2);
    let buffers = [
        Buffer::Send(&header[..5]),
        Buffer::Send(&header[5..]),
        Buffer::Send(&bytes[..1]),
        Buffer::Send(&bytes[1..1000]),
        Buffer::Send(&bytes[1000..]),
        Buffer::Room(1),
    ];
    bench.driver.offer(0, &buffers);
    bench.worker.start();
    assert_eq!(bench.driver.returned(0).unwrap().1, 1);
    assert_eq!(bench.image()[1024..2048], bytes);
}

#[test]
fn what_is_not_wholly_on_the_disk_or_not_whole_sectors_is_an_error() {
    let mut bench = bench();
    for (sector, room) in [(15, 1024), (16, 512), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511), (0, 513)] {
        assert_eq!(bench.ask(READ, sector, &[], room).0, IO_ERROR, "{sector} {room}");
        assert_eq!(bench.ask(WRITE, sector, &vec![0; room as usize], 0).0, IO_ERROR, "{sector} {room}");
    }
    assert_eq!(bench.image().len(), 16 * 512);
    assert_eq!(bench.block.counters().errors.load(Ordering::Relaxed), 12);
}

#[test]
fn unknown_kinds_are_unsupported_and_flushes_with_data_are_errors() {
    let mut bench = bench();
    for kind in [2, 3, 5, 7, 9, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(bench.status(kind, 0, &[], 0), UNSUPPORTED, "{kind}");
    }
    assert_eq!(bench.status(FLUSH, 0, &[], 0), OK);
    assert_eq!(bench.status(FLUSH, 0, &[0; 512], 0), IO_ERROR);
    assert_eq!(bench.status(READ, 0, &[0; 512], 512), IO_ERROR);
    assert_eq!(bench.status(WRITE, 0, &[0; 512], 512), IO_ERROR);
    assert_eq!(bench.image()[..512], [0; 512]);
}

#[test]
fn the_id_is_the_serial_padded_with_zeroes_and_needs_its_room() {
    let mut bench = bench();
    let (status, length, id) = bench.ask(GET_ID, 0, &[], 20);
    assert_eq!((status, length, &id[..]), (OK, 21, &b"root\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..]));
    assert_eq!(bench.status(GET_ID, 0, &[], 19), IO_ERROR);
}

#[test]
fn discards_and_zeroes_change_exactly_their_ranges_or_nothing() {
    let mut bench = bench();
    let two = [range(1, 2, 1), range(8, 1, 0)].concat();
    assert_eq!(bench.status(WRITE_ZEROES, 0, &two, 0), OK);
    let expected: Vec<u8> =
        (0..16 * 512).map(|i| i / 512).map(|s| if [1, 2, 8].contains(&s) { 0 } else { s as u8 }).collect();
    assert_eq!(bench.image(), expected);
    assert_eq!(bench.status(DISCARD, 0, &range(0, 8, 0), 0), OK);
    assert_eq!(bench.image().len(), 16 * 512);
    let before = bench.image();
    let half_wrong = [range(10, 1, 0), range(16, 1, 0)].concat();
    for bad in
        [half_wrong, range(15, 2, 0), range(u64::MAX, 1, 0), range(0, u32::MAX, 0), vec![0; 15], vec![0; 17 * 16]]
    {
        assert_eq!(bench.status(WRITE_ZEROES, 0, &bad, 0), IO_ERROR);
        assert_eq!(bench.status(DISCARD, 0, &bad, 0), IO_ERROR);
    }
    assert_eq!(bench.status(DISCARD, 0, &range(10, 1, 1), 0), UNSUPPORTED);
    assert_eq!(bench.status(WRITE_ZEROES, 0, &range(10, 1, 2), 0), UNSUPPORTED);
    assert_eq!(bench.image(), before);
}

#[test]
fn discards_that_were_not_negotiated_are_unsupported() {
    let mut bench = bench_with(false, 0);
    assert_eq!(bench.status(DISCARD, 0, &range(0, 1, 0), 0), UNSUPPORTED);
    assert_eq!(bench.status(WRITE_ZEROES, 0, &range(0, 1, 0), 0), UNSUPPORTED);
}

#[test]
fn a_read_only_disk_refuses_every_change_whatever_was_negotiated() {
    for features in [0, DISCARD_FEATURES] {
        let mut bench = bench_with(true, features);
        let before = bench.image();
        assert_eq!(bench.status(WRITE, 0, &[0; 512], 0), IO_ERROR);
        assert_eq!(bench.status(DISCARD, 0, &range(0, 1, 0), 0), IO_ERROR);
        assert_eq!(bench.status(WRITE_ZEROES, 0, &range(0, 1, 0), 0), IO_ERROR);
        assert_eq!(bench.status(READ, 0, &[], 512), OK);
        assert_eq!(bench.image(), before);
        assert_eq!(bench.block.identity().features & (1 << 5 | 1 << 9 | DISCARD_FEATURES), 1 << 5);
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_used_is_an_error_beyond_its_end_and_lives_before_it() {
    let mut bench = bench();
    bench.image.as_file().set_len(512).unwrap();
    assert_eq!(bench.status(READ, 1, &[], 512), IO_ERROR);
    assert_eq!(bench.status(READ, 0, &[], 512), OK);
}

#[test]
fn chains_without_room_for_a_status_or_with_half_a_header_hurt_nobody() {
    let mut bench = bench();
    let header = header(WRITE, 0);
    let silent = bench.driver.offer(0, &[Buffer::Send(&header), Buffer::Send(&[0xee; 512])]);
    let short = bench.driver.offer(0, &[Buffer::Send(&header[..15]), Buffer::Room(1)]);
    bench.worker.start();
    assert_eq!(bench.driver.returned(0), Some((silent.head, 0)));
    assert_eq!(bench.driver.returned(0), Some((short.head, 1)));
    assert_eq!(bench.driver.contents(&short, 1), [IO_ERROR]);
    assert_eq!(bench.image()[..512], [0; 512]);
}

#[test]
fn the_configuration_tells_capacity_and_limits() {
    let block = bench().block;
    let mut config = [0xff; 64];
    block.read_config(0, &mut config);
    assert_eq!(config[..8], 16u64.to_le_bytes());
    assert_eq!(config[12..16], 254u32.to_le_bytes());
    assert_eq!(config[20..24], 512u32.to_le_bytes());
    assert_eq!(config[36..40], (1u32 << 22).to_le_bytes());
    assert_eq!((config[56], &config[60..]), (1, &[0xff; 4][..]));
}

#[test]
fn a_disk_is_locked_against_writers_and_a_writer_against_everybody() {
    let image = image();
    let reader = Block::open(config(&image, true)).unwrap();
    let another = Block::open(config(&image, true)).unwrap();
    assert!(matches!(Block::open(config(&image, false)), Err(BlockError::Locked { .. })));
    drop((reader, another));
    let writer = Block::open(config(&image, false)).unwrap();
    assert!(matches!(Block::open(config(&image, true)), Err(BlockError::Locked { .. })));
    drop(writer);
    Block::open(config(&image, true)).unwrap();
}

#[test]
fn files_of_odd_size_of_another_type_or_open_the_wrong_way_are_refused() {
    let image = image();
    for size in [0, 1, 511, 513] {
        image.as_file().set_len(size).unwrap();
        assert!(matches!(Block::open(config(&image, true)), Err(BlockError::Size { size: s, .. }) if s == size));
    }
    image.as_file().set_len(512).unwrap();
    let folder = File::open(std::env::temp_dir()).unwrap();
    let wrong_type = BlockConfig { file: folder, ..config(&image, true) };
    assert!(matches!(Block::open(wrong_type), Err(BlockError::Type { .. })));
    let read_only_file = BlockConfig { read_only: false, ..config(&image, true) };
    assert!(matches!(Block::open(read_only_file), Err(BlockError::Access { needed: "writing", .. })));
    let long_serial = BlockConfig { serial: "x".repeat(21), ..config(&image, true) };
    assert!(matches!(Block::open(long_serial), Err(BlockError::Serial(_))));
}

#[test]
fn the_device_can_be_activated_again_with_the_file_and_the_lock_it_had() {
    let Bench { image, mut block, driver, worker } = bench();
    drop((worker, driver));
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(0)).unwrap();
    let mut bench = Bench { image, block, driver, worker };
    assert_eq!(bench.ask(READ, 7, &[], 512).2, [7; 512]);
    assert!(matches!(Block::open(config(&bench.image, true)), Err(BlockError::Locked { .. })));
}
