// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What devices take from the host once the machine runs: no descriptor when they are activated,
//! and no memory for each request.
#![allow(
    unsafe_code,
    reason = "an allocator that counts, and a descriptor table of a test's own, have no safe wrapper"
)]

use super::block::{Block, BlockConfig, DiskFile};
use super::console::{Console, PortConfig, PortInput, PortMonitor, PortOutput};
use super::hostile_tests::devices;
use super::mmio::MmioTransport;
use super::net::{Net, NetConfig, Tap};
use super::rng::Rng;
use super::*;
use crate::event_loop::EventLoop;
use crate::rate_limit::RateLimits;
use crate::testing::{Buffer, Driver};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

/// The system's allocator, which counts for each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it is. The counter allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/thread-self/fd").unwrap().count()
}

#[test]
fn activation_makes_no_descriptors() {
    // SAFETY: the thread gets a descriptor table of its own, so that other tests do not count. Rust
    // does not rely on threads sharing one.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
    for device in devices() {
        let name = device.identity().name.clone();
        let driver = Driver::new(&device.identity().queue_sizes);
        let events = EventLoop::spawn("io").unwrap();
        let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
        let transport = MmioTransport::new(device, memory, interrupt, driver.queue_events(), vec![events.handle()]);
        let before = descriptors();
        for _ in 0..3 {
            driver.start(&transport, 0);
            assert_eq!(descriptors(), before, "{name}");
        }
    }
}

/// Has `device` process what `offer` offers, again and again on `queue`. Returns the allocations of
/// the last rounds: the first may set up what is used again.
fn allocations(mut device: impl VirtioDevice, features: u64, queue: u32, mut offer: impl FnMut(&mut Driver)) -> u64 {
    let mut driver = Driver::new(&device.identity().queue_sizes);
    let mut worker = device.activate(driver.activation(features)).unwrap().remove(0);
    let mut process = |driver: &mut Driver| {
        (0..4).for_each(|_| offer(driver));
        let before = ALLOCATIONS.get();
        worker.process(queue, EventSet::IN, &mut Turn::unlimited());
        let count = ALLOCATIONS.get() - before;
        let returned = std::iter::from_fn(|| driver.returned(queue as usize)).count();
        assert_eq!(returned, 4, "all were served");
        count
    };
    process(&mut driver);
    (0..8).map(|_| process(&mut driver)).sum()
}

#[test]
fn block_requests_allocate_nothing() {
    for (kind, length) in [(0u32, 0), (1, 8192), (4, 0), (8, 0), (11, 16), (13, 16), (99, 0)] {
        let file = |size| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(size).unwrap();
            file
        };
        // A read passes from one file to the next.
        let more = DiskFile { file: file(1 << 20), path: "test".into() };
        let (size, more) = if kind == 0 { (512, vec![more]) } else { (1 << 20, Vec::new()) };
        let config = BlockConfig {
            file: file(size),
            path: "test".into(),
            more,
            read_only: kind == 0,
            scratch: true,
            serial: "test".to_owned(),
            limits: RateLimits::default(),
        };
        let header = [&kind.to_le_bytes()[..], &[0; 12]].concat();
        let range = [&[0; 8][..], &8u32.to_le_bytes(), &[0; 4]].concat();
        let data = if length == 16 { range } else { vec![0; length] };
        let count = allocations(Block::open(config).unwrap(), 1 << 9 | 1 << 13 | 1 << 14, 0, |driver| {
            let mut buffers = vec![Buffer::Readable(&header)];
            if !data.is_empty() {
                buffers.push(Buffer::Readable(&data));
            }
            match kind {
                0 => buffers.extend([Buffer::Writable(4096), Buffer::Writable(4096)]),
                8 => buffers.push(Buffer::Writable(20)),
                _ => {}
            }
            buffers.push(Buffer::Writable(1));
            driver.offer(0, &buffers);
        });
        assert_eq!(count, 0, "request type {kind}");
    }
}

#[test]
fn rng_and_net_requests_allocate_nothing() {
    let request = |driver: &mut Driver| _ = driver.offer(0, &[Buffer::Writable(64)]);
    assert_eq!(allocations(Rng::new(), 0, 0, request), 0);
    let (tap, _network) = Tap::pair();
    let net = Net::open(NetConfig {
        name: "net-0".to_owned(),
        backend: tap.into(),
        internal_host: None,
        mac: [2; 6],
        mtu: None,
        limits: RateLimits::default(),
    })
    .unwrap();
    let packet = |driver: &mut Driver| _ = driver.offer(1, &[Buffer::Readable(&[0; 12]), Buffer::Readable(&[0; 60])]);
    assert_eq!(allocations(net, 0, 1, packet), 0);
}

#[test]
fn console_streams_allocate_nothing() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (_output, out) = std::io::pipe().unwrap();
    let console = || {
        Console::new(vec![PortConfig {
            name: "console",
            is_console: true,
            input: Some(PortInput::new(reader.try_clone().unwrap().into()).unwrap()),
            output: Some(PortOutput::descriptor(out.try_clone().unwrap().into()).unwrap()),
            monitor: Arc::new(PortMonitor::new().unwrap()),
        }])
    };
    let sent = |driver: &mut Driver| _ = driver.offer(1, &[Buffer::Readable(&[b'x'; 100])]);
    assert_eq!(allocations(console(), 0, 1, sent), 0);
    let received = |driver: &mut Driver| {
        writer.write_all(b"y").unwrap();
        driver.offer(0, &[Buffer::Writable(1)]);
    };
    assert_eq!(allocations(console(), 0, 0, received), 0);
}
