// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk behind its registers that grows while its driver uses it.

use super::super::device::{Block, BlockConfig};
use super::*;
use crate::bus::BusDevice as _;
use crate::event_loop::EventLoop;
use crate::rate_limit::RateLimits;
use crate::testing::{Buffer, Driver};
use std::os::unix::fs::FileExt as _;
use tempfile::NamedTempFile;

const READ: u32 = 0;
const WRITE: u32 = 1;
const INTERRUPT_STATUS: u64 = 0x60;
const CONFIG_INTERRUPT: u32 = 2;
const GENERATION: u64 = 0xfc;
const CAPACITY: u64 = 0x100;

/// A disk of 4 sectors.
struct Machine {
    image: NamedTempFile,
    handle: BlockHandle,
    driver: Driver,
    transport: MmioTransport,
    _events: EventLoop,
}

fn image() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&[7; 2048], 0).unwrap();
    image
}

fn machine_over(image: NamedTempFile, driver: Driver, read_only: bool) -> Machine {
    let file = File::options().read(true).write(!read_only).open(image.path()).unwrap();
    let (path, limits) = (image.path().to_owned(), RateLimits::default());
    let config = BlockConfig { file, path, more: Vec::new(), read_only, scratch: false, serial: "data".into(), limits };
    let block = Block::open(config).unwrap();
    let (handle, events) = (block.handle(), EventLoop::spawn("disk-0").unwrap());
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport =
        MmioTransport::new(Box::new(block), memory, interrupt, driver.queue_events(), vec![events.handle()]);
    Machine { image, handle, driver, transport, _events: events }
}

fn machine() -> Machine {
    machine_over(image(), Driver::new(&[256]), false)
}

impl Machine {
    fn resize(&self, size: Option<u64>) -> Result<u64, ResizeError> {
        self.handle.resize(size, &self.transport)
    }

    fn refusal(&self, size: Option<u64>) -> String {
        self.resize(size).unwrap_err().to_string()
    }

    fn read<const N: usize>(&self, register: u64) -> [u8; N] {
        let mut value = [0xff; N];
        self.transport.read(register, &mut value);
        value
    }

    fn register(&self, register: u64) -> u32 {
        u32::from_le_bytes(self.read(register))
    }

    fn capacity(&self) -> u64 {
        u64::from_le_bytes(self.read(CAPACITY))
    }

    /// Status of a request for one sector.
    fn status(&mut self, kind: u32, sector: u64) -> u8 {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        let data = if kind == READ { Buffer::Writable(512) } else { Buffer::Readable(&[9; 512]) };
        let offered = self.driver.offer(0, &[Buffer::Readable(&header), data, Buffer::Writable(1)]);
        self.driver.wait_returned(0);
        self.driver.contents(&offered, 2)[0]
    }

    fn length(&self) -> u64 {
        self.image.as_file().metadata().unwrap().len()
    }
}

#[test]
fn resized_disk_has_its_capacity_and_takes_requests_there() {
    let mut machine = machine();
    machine.driver.start(&machine.transport, 0);
    assert_eq!((machine.capacity(), machine.register(GENERATION)), (4, 0));
    assert_eq!([machine.status(READ, 4), machine.status(WRITE, 4)], [1, 1]);
    machine.transport.write(0x64, &3u32.to_le_bytes());
    let _ = machine.driver.interrupts();

    assert_eq!(machine.resize(Some(4096)).unwrap(), 4096);
    assert_eq!((machine.capacity(), machine.register(GENERATION), machine.length()), (8, 1, 4096));
    assert_eq!((machine.register(INTERRUPT_STATUS), machine.driver.interrupts()), (CONFIG_INTERRUPT, 1));
    assert_eq!([machine.status(WRITE, 4), machine.status(READ, 7), machine.status(READ, 8)], [0, 0, 1]);
    assert_eq!(std::fs::read(machine.image.path()).unwrap()[2048..], [[9; 512], [0; 512], [0; 512], [0; 512]].concat());

    // Another process adds space.
    machine.image.as_file().set_len(8192).unwrap();
    assert_eq!(machine.status(READ, 8), 1);
    assert_eq!((machine.resize(None).unwrap(), machine.capacity(), machine.status(READ, 15)), (8192, 16, 0));
    let generation = machine.register(GENERATION);
    assert_eq!((machine.resize(None).unwrap(), machine.resize(Some(8192)).unwrap()), (8192, 8192));
    assert_eq!(machine.register(GENERATION), generation, "nothing has changed");
}

#[test]
fn disk_without_a_driver_is_resized_without_an_interrupt() {
    let mut machine = machine();
    assert_eq!(machine.resize(Some(4096)).unwrap(), 4096);
    assert_eq!((machine.capacity(), machine.register(GENERATION), machine.driver.interrupts()), (8, 1, 0));
    machine.driver.start(&machine.transport, 0);
    assert_eq!([machine.status(READ, 7), machine.status(READ, 8)], [0, 1]);
}

#[test]
fn refused_sizes_change_nothing() {
    let machine = machine();
    for (size, reason) in [
        (1536, "1536 bytes are less than its 2048"),
        (0, "0 bytes are less than"),
        (2049, "2049 bytes are not a multiple of 512"),
        (u64::MAX - 511, "cannot make its file larger"),
    ] {
        assert!(machine.refusal(Some(size)).starts_with(reason), "{}", machine.refusal(Some(size)));
    }
    for (length, size, reason) in [
        (2560, Some(2048), "its file has 2560 bytes, more than 2048"),
        (2559, None, "2559 bytes are not a multiple of 512"),
        (1024, None, "its file has 1024 bytes, and the guest's disk 2048"),
        (1024, Some(4096), "its file has 1024 bytes, and the guest's disk 2048"),
    ] {
        machine.image.as_file().set_len(length).unwrap();
        assert!(machine.refusal(size).starts_with(reason), "{}", machine.refusal(size));
        assert_eq!(machine.length(), length);
    }
    assert_eq!((machine.capacity(), machine.register(GENERATION)), (4, 0));
    let read_only = machine_over(image(), Driver::new(&[256]), true);
    read_only.image.as_file().set_len(4096).unwrap();
    assert_eq!((read_only.refusal(None), read_only.capacity()), ("it is read-only".to_owned(), 4));
}

#[test]
fn resized_disk_is_saved_and_restored() {
    let mut machine = machine();
    machine.driver.start(&machine.transport, 0);
    machine.resize(Some(4096)).unwrap();
    let state = machine.transport.save().unwrap();
    machine.resize(Some(8192)).unwrap();
    machine.transport.restore(&state).unwrap();
    assert_eq!([machine.status(WRITE, 15), machine.status(READ, 16)], [0, 1]);

    let state = machine.transport.save().unwrap();
    let copied = NamedTempFile::new().unwrap();
    std::fs::copy(machine.image.path(), copied.path()).unwrap();
    let mut copy = machine_over(copied, machine.driver.copy(), false);
    copy.transport.restore(&state).unwrap();
    assert_eq!((copy.capacity(), copy.register(GENERATION)), (16, 2));
    assert_eq!([copy.status(READ, 15), copy.status(READ, 16)], [0, 1]);
    assert_eq!((copy.resize(Some(16384)).unwrap(), copy.status(WRITE, 31)), (16384, 0));
}
