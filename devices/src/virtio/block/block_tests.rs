// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The block device behind its queue: requests as a driver writes them, on real files.

use super::super::{VirtioDevice, Worker};
use super::device::*;
use crate::event_loop::EventLoop;
use crate::rate_limit::{Rate, RateLimits};
use crate::testing::{Buffer, Driver, NEXT};
use crate::turn::{MAX_STEP_BYTES, MAX_TURN_BYTES, Turn};
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

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
const FLUSH_FEATURE: u64 = 1 << 9;

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
    BlockConfig {
        file,
        path: image.path().to_owned(),
        more: Vec::new(),
        read_only,
        scratch: false,
        serial: "root".to_owned(),
        limits: RateLimits::default(),
    }
}

fn bench_with(read_only: bool, features: u64) -> Bench {
    let image = image();
    let mut block = Block::open(config(&image, read_only)).unwrap();
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(features)).unwrap().remove(0);
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
    /// Status, used length and what was read, of a request with `data` to the device and `room`
    /// bytes for its answer.
    fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> (u8, u32, Vec<u8>) {
        let header = header(kind, sector);
        let mut buffers = vec![Buffer::Readable(&header)];
        if !data.is_empty() {
            buffers.push(Buffer::Readable(data));
        }
        if room > 0 {
            buffers.push(Buffer::Writable(room));
        }
        buffers.push(Buffer::Writable(1));
        let offered = self.driver.offer(0, &buffers);
        self.worker.start(&mut Turn::unlimited());
        let (head, length) = self.driver.returned(0).unwrap();
        assert_eq!(head, offered.head);
        let last = offered.buffers.len() - 1;
        let read = if room > 0 { self.driver.contents(&offered, last - 1) } else { Vec::new() };
        (self.driver.contents(&offered, last)[0], length, read)
    }

    fn status(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> u8 {
        self.request(kind, sector, data, room).0
    }

    /// Four bytes of the configuration space.
    fn config(&self, offset: u64) -> [u8; 4] {
        let mut config = [0xff; 4];
        self.block.read_config(offset, &mut config);
        config
    }

    /// Bytes of zeroes in the first 32 MiB of the image, in whole blocks of 4 KiB.
    fn zeroes(&self) -> u64 {
        self.image()[..32 << 20].chunks(4096).filter(|block| **block == [0; 4096]).count() as u64 * 4096
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.image.path()).unwrap()
    }
}

#[test]
fn block_reads_and_writes_the_right_sectors_and_counts_them() {
    let mut bench = bench();
    assert_eq!(bench.request(READ, 3, &[], 1024), (OK, 1025, [[3; 512], [4; 512]].concat()));
    assert_eq!(bench.request(WRITE, 15, &[0xee; 512], 0), (OK, 1, vec![]));
    assert_eq!(bench.image()[14 * 512..], [[14; 512], [0xee; 512]].concat());
    let counters = bench.block.counters();
    let counts = [&counters.read_bytes, &counters.write_bytes, &counters.read_requests, &counters.write_requests];
    assert_eq!(counts.map(|count| count.load(Ordering::Relaxed)), [1024, 512, 1, 1]);
}

#[test]
fn request_in_many_unequal_buffers_is_one_run_of_bytes() {
    let mut bench = bench();
    let bytes: Vec<u8> = (0..1024).map(|i| (i % 251) as u8).collect();
    let header = header(WRITE, 2);
    let buffers = [
        Buffer::Readable(&header[..5]),
        Buffer::Readable(&header[5..]),
        Buffer::Readable(&bytes[..1]),
        Buffer::Readable(&bytes[1..1000]),
        Buffer::Readable(&bytes[1000..]),
        Buffer::Writable(1),
    ];
    bench.driver.offer(0, &buffers);
    bench.worker.start(&mut Turn::unlimited());
    assert_eq!(bench.driver.returned(0).unwrap().1, 1);
    assert_eq!(bench.image()[1024..2048], bytes);
}

#[test]
fn access_past_the_end_or_of_partial_sectors_returns_ioerr() {
    let mut bench = bench();
    for (sector, room) in [(15, 1024), (16, 512), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511), (0, 513)] {
        assert_eq!(bench.request(READ, sector, &[], room).0, IO_ERROR, "{sector} {room}");
        assert_eq!(bench.request(WRITE, sector, &vec![0; room as usize], 0).0, IO_ERROR, "{sector} {room}");
    }
    assert_eq!(bench.image().len(), 16 * 512);
    assert_eq!(bench.block.counters().errors.load(Ordering::Relaxed), 12);
}

#[test]
fn unknown_types_are_unsupported_and_flush_with_data_is_ioerr() {
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
fn id_is_the_serial_padded_with_zeroes_and_needs_20_bytes() {
    let mut bench = bench();
    let (status, length, id) = bench.request(GET_ID, 0, &[], 20);
    assert_eq!((status, length, &id[..]), (OK, 21, &b"root\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..]));
    assert_eq!(bench.status(GET_ID, 0, &[], 19), IO_ERROR);
}

#[test]
fn used_length_counts_only_written_bytes_from_the_start() {
    let mut bench = bench();
    // The status is behind bytes that were not written, so it does not count (virtio 1.3, 2.7.8.2).
    let (status, length, id) = bench.request(GET_ID, 0, &[], 512);
    assert_eq!((status, length, &id[..5], &id[20..]), (OK, 20, &b"root\0"[..], &[0; 492][..]));
    assert_eq!(bench.request(READ, 16, &[], 512), (IO_ERROR, 0, vec![0; 512]));
    assert_eq!(bench.request(WRITE, 16, &[0; 512], 0), (IO_ERROR, 1, vec![]));
}

#[test]
fn write_without_flush_negotiated_is_durable_when_answered() {
    for (features, scratch, durable) in [(0, false, true), (FLUSH_FEATURE, false, false), (0, true, false)] {
        let image = image();
        let mut block = Block::open(BlockConfig { scratch, ..config(&image, false) }).unwrap();
        let driver = Driver::new(&[256]);
        let worker = block.activate(driver.activation(features | DISCARD_FEATURES)).unwrap().remove(0);
        let mut bench = Bench { image, block, driver, worker };
        for (kind, data) in [(WRITE, vec![1; 512]), (WRITE_ZEROES, range(1, 1, 0))] {
            assert_eq!(bench.status(kind, 0, &data, 0), OK);
            assert_eq!(!bench.block.disk.dirty.load(Ordering::Relaxed), durable, "{features:#x} {scratch}");
        }
        assert_eq!(bench.block.counters().flushes.load(Ordering::Relaxed), 0, "the guest has flushed nothing");
        bench.block.disk.flush_failed.store(true, Ordering::Relaxed);
        assert_eq!(bench.status(WRITE, 0, &[1; 512], 0), if durable { IO_ERROR } else { OK });
    }
}

/// A disk of `size` bytes, all zeroes and sparse.
fn large_bench(size: u64) -> Bench {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(size).unwrap();
    let mut block = Block::open(config(&image, false)).unwrap();
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(DISCARD_FEATURES | FLUSH_FEATURE)).unwrap().remove(0);
    Bench { image, block, driver, worker }
}

/// Offers a request that reads or writes `buffers` times the same `length` bytes of guest memory,
/// through an indirect table. Returns its head and the place of its status.
fn offer_aliased(driver: &mut Driver, kind: u32, buffers: u16, length: u32) -> (u16, u64) {
    let (header_at, table) = (driver.allocate(16), driver.allocate(16 * (u32::from(buffers) + 2)));
    let (data, status) = (driver.allocate(length), driver.allocate(1));
    driver.memory.write_slice(&header(kind, 0), GuestAddress(header_at)).unwrap();
    driver.write_descriptor_at(table, header_at, 16, NEXT, 1);
    for index in 1..=buffers {
        let flags = if kind == READ { NEXT | crate::testing::WRITE } else { NEXT };
        driver.write_descriptor_at(table + 16 * u64::from(index), data, length, flags, index + 1);
    }
    driver.write_descriptor_at(table + 16 * u64::from(buffers + 1), status, 1, crate::testing::WRITE, 0);
    driver.memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
    driver.write_descriptor(0, 0, table, 16 * (u32::from(buffers) + 2), crate::testing::INDIRECT, 0);
    driver.offer_head(0, 0);
    (0, status)
}

#[test]
fn request_above_the_offered_limits_returns_ioerr() {
    let segment = u32::from_le_bytes(bench().config(8));
    let segments = u32::from_le_bytes(bench().config(12));
    assert_eq!((segment, segments), (128 << 10, 254));
    for kind in [READ, WRITE] {
        for (length, expected) in [(segment, OK), (segment + 512, IO_ERROR)] {
            let mut bench = large_bench(64 << 20);
            let (head, status) = offer_aliased(&mut bench.driver, kind, segments as u16, length);
            bench.worker.start(&mut Turn::unlimited());
            let written =
                if kind == READ && expected == OK { segment * segments + 1 } else { u32::from(kind == WRITE) };
            assert_eq!(bench.driver.returned(0), Some((head, written)));
            let found: u8 = bench.driver.memory.read_obj(GuestAddress(status)).unwrap();
            assert_eq!(found, expected, "request {kind} of {segments} times {length} bytes");
        }
    }
}

#[test]
fn large_request_is_done_in_turns_and_answered_once() {
    let mut bench = large_bench(64 << 20);
    bench.image.as_file().write_all_at(&[7; 512], (16 << 20) - 512).unwrap();
    let (head, status) = offer_aliased(&mut bench.driver, READ, 128, 128 << 10);
    let stop = AtomicBool::new(false);
    let mut turns = 0;
    let returned = loop {
        bench.worker.process(0, vmm_sys_util::epoll::EventSet::IN, &mut Turn::new(&stop));
        turns += 1;
        match bench.driver.returned(0) {
            Some(returned) => break returned,
            None => assert!(bench.driver.queue_events()[0].read().is_ok(), "it is rescheduled after turn {turns}"),
        }
    };
    // A turn is 4 MiB at most, and ends earlier on a busy host.
    assert!(turns >= 4, "{turns}");
    assert_eq!(returned, (head, (16 << 20) + 1));
    assert_eq!(bench.driver.returned(0), None);
    assert_eq!(bench.driver.memory.read_obj::<u8>(GuestAddress(status)).unwrap(), OK);
    let counters = bench.block.counters();
    assert_eq!([&counters.read_requests, &counters.read_bytes].map(|c| c.load(Ordering::Relaxed)), [1, 16 << 20]);
}

#[test]
fn stop_ends_a_long_write_zeroes_between_two_steps() {
    for kind in [WRITE_ZEROES, DISCARD] {
        let mut bench = large_bench(64 << 20);
        bench.image.as_file().write_all_at(&vec![1; 32 << 20], 0).unwrap();
        let header = header(kind, 0);
        let whole = range(0, 1 << 16, 0);
        bench.driver.offer(0, &[Buffer::Readable(&header), Buffer::Readable(&whole), Buffer::Writable(1)]);
        // Stopped before it begins: nothing is done.
        let stop = AtomicBool::new(true);
        bench.worker.start(&mut Turn::new(&stop));
        assert_eq!((bench.driver.returned(0), bench.zeroes()), (None, 0));
        // One turn does some steps of it.
        let stop = AtomicBool::new(false);
        while bench.zeroes() == 0 {
            bench.worker.start(&mut Turn::new(&stop));
        }
        let done = bench.zeroes();
        assert!(done.is_multiple_of(MAX_STEP_BYTES) && done <= MAX_TURN_BYTES, "{done}");
        stop.store(true, Ordering::Relaxed);
        bench.worker.start(&mut Turn::new(&stop));
        bench.worker.drain();
        assert_eq!((bench.driver.returned(0), bench.zeroes()), (None, done));
        // A machine that was only paused goes on.
        bench.worker.start(&mut Turn::unlimited());
        assert_eq!(bench.driver.returned(0).unwrap().1, 1);
        assert_eq!(bench.zeroes(), 32 << 20);
    }
}

#[test]
fn stop_does_not_wait_for_queued_write_zeroes() {
    // tmpfs has no ZERO_RANGE, so that the zeroes are written.
    let image = NamedTempFile::new_in("/dev/shm").or_else(|_| NamedTempFile::new()).unwrap();
    image.as_file().set_len(32 << 20).unwrap();
    let mut block = Block::open(BlockConfig { scratch: true, ..config(&image, false) }).unwrap();
    let mut driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(DISCARD_FEATURES)).unwrap().remove(0);
    let (header, whole) = (header(WRITE_ZEROES, 0), range(0, 1 << 16, 0));
    let (header_at, whole_at) = (driver.allocate(16), driver.allocate(16));
    driver.memory.write_slice(&header, GuestAddress(header_at)).unwrap();
    driver.memory.write_slice(&whole, GuestAddress(whole_at)).unwrap();
    for head in 0..200 {
        let (table, status) = (driver.allocate(48), driver.allocate(1));
        driver.write_descriptor_at(table, header_at, 16, NEXT, 1);
        driver.write_descriptor_at(table + 16, whole_at, 16, NEXT, 2);
        driver.write_descriptor_at(table + 32, status, 1, crate::testing::WRITE, 0);
        driver.write_descriptor(0, head, table, 48, crate::testing::INDIRECT, 0);
        driver.offer_head(0, head);
    }
    let events = EventLoop::spawn("disk-0").unwrap();
    events.handle().add(worker).unwrap();
    let started = std::time::Instant::now();
    events.stop();
    // 6.25 GiB are queued. It took 41 s when a turn was not bounded, and takes milliseconds now,
    // more on a busy host.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    assert!(std::iter::from_fn(|| driver.returned(0)).count() < 200);
}

#[test]
fn reset_forgets_a_request_that_is_not_done() {
    let mut bench = large_bench(64 << 20);
    offer_aliased(&mut bench.driver, READ, 128, 128 << 10);
    let stop = AtomicBool::new(false);
    bench.worker.start(&mut Turn::new(&stop));
    assert_eq!(bench.driver.returned(0), None);
    drop(bench.worker);
    assert!(!bench.driver.interrupt.is_reset_needed());
    bench.driver.reset();
    let worker = bench.block.activate(bench.driver.activation(0)).unwrap().remove(0);
    let mut bench = Bench { worker, ..bench };
    assert_eq!(bench.request(READ, 0, &[], 512), (OK, 513, vec![0; 512]));
}

/// A loop device with blocks of 4 KiB; detached when it is closed. `None` where that is not
/// permitted.
fn large_block_device(image: &NamedTempFile) -> Option<File> {
    let losetup = |arguments: &[&str]| {
        let output = std::process::Command::new("losetup").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    let device = losetup(&["--find", "--show", "--sector-size", "4096", image.path().to_str()?])?;
    let file = File::options().read(true).write(true).open(&device).ok();
    losetup(&["--detach", &device])?;
    file
}

#[test]
fn disk_with_4k_blocks_takes_unaligned_discards_and_zeroes() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&vec![0xaa; 1 << 20], 0).unwrap();
    let Some(file) = large_block_device(&image) else {
        #[allow(clippy::disallowed_macros, reason = "a skipped test prints its reason")]
        {
            eprintln!("skipped: loop devices are not permitted here");
        }
        return;
    };
    let file_config = BlockConfig { file, ..config(&image, false) };
    let mut block = Block::open(file_config).unwrap();
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(DISCARD_FEATURES)).unwrap().remove(0);
    let mut bench = Bench { image, block, driver, worker };
    assert_eq!(bench.config(36 + 8), 8u32.to_le_bytes());
    // Sectors 1 to 23: whole blocks are 8 to 23.
    for (kind, flags, expected) in [(DISCARD, 0, 8..24), (WRITE_ZEROES, 0, 1..24), (WRITE_ZEROES, 1, 1..24)] {
        assert_eq!(bench.status(WRITE, 0, &[0xaa; 32 * 512], 0), OK);
        assert_eq!(bench.status(kind, 0, &range(1, 23, flags), 0), OK);
        let read = bench.request(READ, 0, &[], 32 * 512).2;
        for (sector, bytes) in read.chunks(512).enumerate() {
            let byte = if expected.contains(&sector) { 0 } else { 0xaa };
            assert_eq!(bytes, [byte; 512], "request {kind}, sector {sector}");
        }
    }
}

#[test]
fn discard_and_write_zeroes_change_their_ranges_or_nothing() {
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
fn discard_that_was_not_negotiated_is_unsupported() {
    let mut bench = bench_with(false, 0);
    assert_eq!(bench.status(DISCARD, 0, &range(0, 1, 0), 0), UNSUPPORTED);
    assert_eq!(bench.status(WRITE_ZEROES, 0, &range(0, 1, 0), 0), UNSUPPORTED);
}

#[test]
fn read_only_disk_rejects_every_change() {
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
fn file_that_shrinks_is_ioerr_past_its_new_end_only() {
    let mut bench = bench();
    bench.image.as_file().set_len(512).unwrap();
    assert_eq!(bench.status(READ, 1, &[], 512), IO_ERROR);
    assert_eq!(bench.status(READ, 0, &[], 512), OK);
}

/// A disk of these files, whose sectors have consecutive numbers in all of them.
fn files(sectors: &[u8]) -> Vec<NamedTempFile> {
    let mut number = 0..;
    let file = |count: &u8| {
        let file = NamedTempFile::new().unwrap();
        for (sector, number) in (0..u64::from(*count)).zip(&mut number) {
            file.as_file().write_all_at(&[number; 512], sector * 512).unwrap();
        }
        file
    };
    sectors.iter().map(file).collect()
}

fn config_of(files: &[NamedTempFile]) -> BlockConfig {
    let file = |file: &NamedTempFile| DiskFile { file: file.reopen().unwrap(), path: file.path().to_owned() };
    BlockConfig { more: files[1..].iter().map(file).collect(), ..config(&files[0], true) }
}

fn bench_of(files: &[NamedTempFile]) -> Bench {
    let mut block = Block::open(config_of(files)).unwrap();
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(0)).unwrap().remove(0);
    Bench { image: NamedTempFile::new().unwrap(), block, driver, worker }
}

#[test]
fn files_are_one_disk_at_every_border() {
    for sectors in [&[1, 2, 0, 3, 1, 0][..], &[0, 0, 7], &[7], &[1; 7]] {
        let files = files(sectors);
        let mut bench = bench_of(&files);
        assert_eq!((bench.block.size(), bench.config(0)), (7 * 512, 7u32.to_le_bytes()), "{sectors:?}");
        for start in 0..7 {
            for end in start + 1..=7u8 {
                let expected: Vec<u8> = (start..end).flat_map(|number| [number; 512]).collect();
                let (status, length, read) = bench.request(READ, start.into(), &[], expected.len() as u32);
                assert_eq!((status, length), (OK, expected.len() as u32 + 1), "{sectors:?} {start} {end}");
                assert!(read == expected, "{sectors:?} {start} {end}");
            }
        }
        assert_eq!(bench.request(READ, 6, &[], 1024).0, IO_ERROR);
        let counters = bench.block.counters();
        assert_eq!([&counters.read_requests, &counters.errors].map(|c| c.load(Ordering::Relaxed)), [28, 1]);
    }
}

#[test]
fn read_over_files_in_unequal_buffers_is_one_run_of_bytes() {
    let files = files(&[1, 1, 1]);
    let mut bench = bench_of(&files);
    let header = header(READ, 0);
    let sizes = [1, 510, 2, 1000, 23];
    let mut buffers = vec![Buffer::Readable(&header)];
    buffers.extend(sizes.map(Buffer::Writable));
    buffers.push(Buffer::Writable(1));
    let offered = bench.driver.offer(0, &buffers);
    bench.worker.start(&mut Turn::unlimited());
    assert_eq!(bench.driver.returned(0).unwrap().1, 1537);
    let read: Vec<u8> = (1..=sizes.len()).flat_map(|index| bench.driver.contents(&offered, index)).collect();
    assert_eq!(read, [[0; 512], [1; 512], [2; 512]].concat());
}

#[test]
fn file_of_several_that_shrinks_is_ioerr_in_its_sectors_only() {
    let files = files(&[2, 2, 2]);
    let mut bench = bench_of(&files);
    files[1].as_file().set_len(512).unwrap();
    for (sector, count, expected) in [(0, 3, OK), (3, 1, IO_ERROR), (2, 3, IO_ERROR), (4, 2, OK), (0, 6, IO_ERROR)] {
        assert_eq!(bench.status(READ, sector, &[], count * 512), expected, "{sector} {count}");
    }
}

#[test]
fn each_of_several_files_is_checked_and_locked() {
    let several = files(&[1, 1, 1]);
    let third = || config(&several[2], false);
    let path = |error| match error {
        Err(BlockError::Locked { path } | BlockError::Size { path, .. } | BlockError::SeveralFiles { path }) => path,
        other => panic!("{other:?}"),
    };
    let disk = Block::open(config_of(&several)).unwrap();
    let same = Block::open(config_of(&several)).unwrap();
    assert_eq!(path(Block::open(third())), several[2].path());
    drop((disk, same));
    let _writer = Block::open(third()).unwrap();
    assert_eq!(path(Block::open(config_of(&several))), several[2].path());
    Block::open(config_of(&several[..2])).unwrap();
    several[1].as_file().set_len(511).unwrap();
    assert_eq!(path(Block::open(config_of(&several))), several[1].path());
    let writable = BlockConfig { read_only: false, ..config_of(&several) };
    assert_eq!(path(Block::open(writable)), several[0].path());
    let empty = files(&[0, 0]);
    assert_eq!(path(Block::open(config_of(&empty))), empty[0].path());
}

#[test]
fn chains_without_status_or_with_half_a_header_are_returned() {
    let mut bench = bench();
    let header = header(WRITE, 0);
    let silent = bench.driver.offer(0, &[Buffer::Readable(&header), Buffer::Readable(&[0xee; 512])]);
    let short = bench.driver.offer(0, &[Buffer::Readable(&header[..15]), Buffer::Writable(1)]);
    bench.worker.start(&mut Turn::unlimited());
    assert_eq!(bench.driver.returned(0), Some((silent.head, 0)));
    assert_eq!(bench.driver.returned(0), Some((short.head, 1)));
    assert_eq!(bench.driver.contents(&short, 1), [IO_ERROR]);
    assert_eq!(bench.image()[..512], [0; 512]);
}

#[test]
fn configuration_has_capacity_and_limits() {
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
fn lock_excludes_writers_and_a_writer_excludes_all() {
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
fn open_rejects_files_of_wrong_size_type_or_access() {
    let image = image();
    for size in [0, 1, 511, 513] {
        image.as_file().set_len(size).unwrap();
        assert!(matches!(Block::open(config(&image, true)), Err(BlockError::Size { size: s, .. }) if s == size));
    }
    image.as_file().set_len(512).unwrap();
    let directory = File::open(std::env::temp_dir()).unwrap();
    let wrong_type = BlockConfig { file: directory, ..config(&image, true) };
    assert!(matches!(Block::open(wrong_type), Err(BlockError::Type { .. })));
    let read_only_file = BlockConfig { read_only: false, ..config(&image, true) };
    assert!(matches!(Block::open(read_only_file), Err(BlockError::Access { needed: "writing", .. })));
    let long_serial = BlockConfig { serial: "x".repeat(21), ..config(&image, true) };
    assert!(matches!(Block::open(long_serial), Err(BlockError::Serial(_))));
}

#[test]
fn device_is_activated_again_with_its_file_and_lock() {
    let Bench { image, mut block, driver, worker } = bench();
    drop((worker, driver));
    let driver = Driver::new(&[256]);
    let worker = block.activate(driver.activation(0)).unwrap().remove(0);
    let mut bench = Bench { image, block, driver, worker };
    assert_eq!(bench.request(READ, 7, &[], 512).2, [7; 512]);
    assert!(matches!(Block::open(config(&bench.image, true)), Err(BlockError::Locked { .. })));
}

#[test]
fn reads_and_writes_are_limited_in_bytes_and_requests() {
    let limit = |bytes, operations| Rate { bytes: NonZeroU64::new(bytes), operations: NonZeroU64::new(operations) };
    // 10 requests of 8 KiB: 80 KiB or 10 requests, of which a twentieth of a second's passes at once.
    for (limit, least) in [(limit(400_000, 0), 130), (limit(0, 60), 95)] {
        for kind in [READ, WRITE] {
            let image = image();
            let (to_guest, from_guest) = if kind == READ { (limit, Rate::default()) } else { (Rate::default(), limit) };
            let limits = RateLimits { to_guest, from_guest };
            let mut block = Block::open(BlockConfig { limits, ..config(&image, false) }).unwrap();
            let mut driver = Driver::new(&[256]);
            let events = EventLoop::spawn("disk-0").unwrap();
            events.handle().add(block.activate(driver.activation(FLUSH_FEATURE)).unwrap().remove(0)).unwrap();
            let mut run = |kind| {
                let started = std::time::Instant::now();
                for _ in 0..10 {
                    let (header, data) = (header(kind, 0), [0; 8192]);
                    let data = if kind == READ { Buffer::Writable(8192) } else { Buffer::Readable(&data) };
                    driver.offer(0, &[Buffer::Readable(&header), data, Buffer::Writable(1)]);
                }
                (0..10).for_each(|_| _ = driver.wait_returned(0));
                started.elapsed().as_millis()
            };
            assert!(run(READ + WRITE - kind) < least, "the other direction is free");
            let taken = run(kind);
            assert!(taken >= least, "{taken} ms for requests of type {kind}");
            block.rates().set(RateLimits::default());
            assert!(run(kind) < 900);
        }
    }
}
