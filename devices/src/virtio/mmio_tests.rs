// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The register window: what a driver may read and write, when, and that a reset ends all access to
//! its buffers.

use super::*;
use crate::event_loop::{EventLoop, Source};
use crate::testing::{Buffer, Driver};
use crate::turn::Turn;
use crate::virtio::queue::{Served, Virtqueue};
use crate::virtio::{ActivateError, DeviceIdentity, DeviceKind, Worker};
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use vmm_sys_util::epoll::EventSet;

const FEATURE: u64 = 1 << 5;

static KIND: DeviceKind = DeviceKind {
    device_id: 42,
    kernel_option: "CONFIG_LOOPBACK",
    kernel_module: "loopback",
    optional: false,
    savable: true,
    counters: None,
};

/// What the host cannot do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    None,
    Activate,
    /// Wait for a descriptor of the second worker.
    Watch,
}

/// Returns what it is sent, with one worker for each queue. Its configuration is "abcd", until it
/// is written.
struct Loopback {
    identity: DeviceIdentity,
    failure: Failure,
    config: [u8; 4],
    /// Receives the thread's name when a worker is started and dropped.
    lifecycle: Sender<(&'static str, String)>,
}

struct LoopbackWorker {
    queue: Virtqueue,
    watches_nothing: bool,
    lifecycle: Sender<(&'static str, String)>,
}

impl LoopbackWorker {
    fn report(&self, what: &'static str) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        // The bench may be gone before the loop.
        let _ = self.lifecycle.send((what, thread));
    }
}

impl Drop for LoopbackWorker {
    fn drop(&mut self) {
        self.report("drop");
    }
}

impl VirtioDevice for Loopback {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::super::read_config_bytes(&self.config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (position, byte) in (offset..).zip(data) {
            if let Some(place) = self.config.get_mut(position as usize) {
                *place = *byte;
            }
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        if self.failure == Failure::Activate {
            return Err(ActivateError { step: "make a worker", source: std::io::ErrorKind::OutOfMemory.into() });
        }
        let worker = |(number, queue)| {
            let watches_nothing = number == 1 && self.failure == Failure::Watch;
            Box::new(LoopbackWorker { queue, watches_nothing, lifecycle: self.lifecycle.clone() }) as _
        };
        Ok(activation.queues.into_iter().enumerate().map(worker).collect())
    }
}

impl Worker for LoopbackWorker {
    fn sources(&self) -> Vec<Source> {
        let closed: RawFd = -1;
        if self.watches_nothing {
            return vec![Source::changes(&closed, 0)];
        }
        vec![Source::event(self.queue.queue_event(), 0)]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.report("start");
        self.process(0, EventSet::IN, turn);
    }

    fn process(&mut self, _: u32, _: EventSet, turn: &mut Turn<'_>) {
        self.queue.serve(turn, |_| Served::Done(0));
    }
}

struct Bench {
    driver: Driver,
    transport: Arc<MmioTransport>,
    lifecycle: Receiver<(&'static str, String)>,
    _events: Vec<EventLoop>,
}

fn bench_with(failure: Failure, event_loops: &[&str]) -> Bench {
    let identity = DeviceIdentity {
        kind: &KIND,
        name: "loopback".to_owned(),
        features: FEATURE,
        queue_sizes: vec![8, 16],
        counters: None,
    };
    let driver = Driver::new(&[8, 16]);
    let events: Vec<EventLoop> = event_loops.iter().map(|name| EventLoop::spawn(name).unwrap()).collect();
    let (sender, lifecycle) = channel();
    let device = Box::new(Loopback { identity, failure, config: *b"abcd", lifecycle: sender });
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let handles = events.iter().map(EventLoop::handle).collect();
    let transport = Arc::new(MmioTransport::new(device, memory, interrupt, driver.queue_events(), handles));
    Bench { driver, transport, lifecycle, _events: events }
}

fn bench() -> Bench {
    bench_with(Failure::None, &["io"])
}

impl Bench {
    fn read(&self, register: u64) -> u32 {
        let mut value = [0xff; 4];
        self.transport.read(register, &mut value);
        u32::from_le_bytes(value)
    }

    fn write(&self, register: u64, value: u32) {
        assert_eq!(self.transport.write(register, &value.to_le_bytes()), Action::None);
    }

    /// Everything before features are written.
    fn acknowledge(&self) {
        [0, 1, 3].into_iter().for_each(|status| self.write(STATUS, status));
    }

    fn accept(&self, select: u32, features: u32) {
        self.write(DRIVER_FEATURES_SELECT, select);
        self.write(DRIVER_FEATURES, features);
    }
}

#[test]
fn window_identifies_the_device_and_its_queues() {
    let bench = bench();
    let identity = [MAGIC_VALUE, VERSION, DEVICE_ID, VENDOR_ID].map(|register| bench.read(register));
    assert_eq!(identity, [0x7472_6976, 2, 42, VENDOR]);
    let sizes = [0, 1, 2, u32::MAX].map(|queue| {
        bench.write(QUEUE_SELECT, queue);
        bench.read(QUEUE_SIZE_MAX)
    });
    assert_eq!(sizes, [8, 16, 0, 0]);
    let features = [0, 1, 2].map(|select| {
        bench.write(DEVICE_FEATURES_SELECT, select);
        bench.read(DEVICE_FEATURES)
    });
    assert_eq!(features, [FEATURE as u32 | 1 << 28 | 1 << 29, 1, 0]);
}

#[test]
fn registers_take_only_aligned_four_byte_accesses() {
    let bench = bench();
    for (offset, width) in
        [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (0x74, 4), (QUEUE_NOTIFY, 4), (QUEUE_SIZE, 4), (0xb0, 4)]
    {
        let mut data = vec![0xff; width];
        bench.transport.read(offset, &mut data);
        assert_eq!(data, vec![0xff; width], "{offset:#x} {width}");
    }
    assert_eq!(bench.transport.write(STATUS, &[1]), Action::None);
    assert_eq!(bench.transport.write(STATUS, &[1, 0, 0, 0, 0, 0, 0, 0]), Action::None);
    bench.write(MAGIC_VALUE, 0);
    assert_eq!((bench.read(STATUS), bench.read(MAGIC_VALUE)), (0, MAGIC));
}

#[test]
fn config_reads_have_any_width_and_end_with_the_space() {
    let bench = bench();
    let mut data = [0xff; 8];
    bench.transport.read(CONFIG + 1, &mut data);
    assert_eq!(&data, b"bcd\xff\xff\xff\xff\xff");
    let mut byte = [0xff];
    bench.transport.read(CONFIG + 3, &mut byte);
    assert_eq!(&byte, b"d");
    assert_eq!(bench.read(CONFIG), u32::from_le_bytes(*b"abcd"));
    assert_eq!(bench.read(CONFIG + 0xefc), u32::MAX);
}

#[test]
fn config_writes_of_any_width_reach_the_device() {
    let bench = bench();
    assert_eq!(bench.transport.write(CONFIG + 1, b"B"), Action::None);
    assert_eq!(bench.transport.write(CONFIG + 3, b"Dxxxxxxx"), Action::None);
    assert_eq!(bench.read(CONFIG), u32::from_le_bytes(*b"aBcD"));
    bench.write(CONFIG + 0xefc, 0);
    assert_eq!(bench.read(CONFIG), u32::from_le_bytes(*b"aBcD"));
}

/// Its configuration is one number, which the host changes.
struct Number(DeviceIdentity, Arc<AtomicU64>);

impl VirtioDevice for Number {
    fn identity(&self) -> &DeviceIdentity {
        &self.0
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::super::read_config_bytes(&self.1.load(Ordering::Relaxed).to_le_bytes(), offset, data);
    }

    fn activate(&mut self, _: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        Ok(Vec::new())
    }
}

#[test]
fn config_change_between_two_reads_shows_in_the_generation() {
    const VALUES: [u64; 2] = [0xffff_ffff, 0x1_0000_0000];
    let (driver, events, number) = (Driver::new(&[]), EventLoop::spawn("io").unwrap(), Arc::new(VALUES[0].into()));
    let identity =
        DeviceIdentity { kind: &KIND, name: "number".into(), features: 0, queue_sizes: Vec::new(), counters: None };
    let device = Box::new(Number(identity, Arc::clone(&number)));
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport = MmioTransport::new(device, memory, interrupt, Vec::new(), vec![events.handle()]);
    driver.start(&transport, 0);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for change in 1..20_000 {
                transport.change_config(|| number.store(VALUES[change % 2], Ordering::Relaxed));
            }
            ended.store(true, Ordering::Relaxed);
        });
        let read = |register: u64| {
            let mut value = [0; 4];
            transport.read(register, &mut value);
            u32::from_le_bytes(value)
        };
        while !ended.load(Ordering::Relaxed) {
            let before = read(CONFIG_GENERATION);
            let value = u64::from(read(CONFIG)) | u64::from(read(CONFIG + 4)) << 32;
            if read(CONFIG_GENERATION) == before {
                assert!(VALUES.contains(&value), "{value:#x}");
            }
        }
    });
    assert!(driver.interrupts() > 0);
}

#[test]
fn device_without_writable_configuration_ignores_writes() {
    let driver = Driver::new(&[16]);
    let events = EventLoop::spawn("io").unwrap();
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let device = Box::new(crate::virtio::rng::Rng::new());
    let transport = MmioTransport::new(device, memory, interrupt, driver.queue_events(), vec![events.handle()]);
    assert_eq!(transport.write(CONFIG, &[0; 4]), Action::None);
    let mut data = [0xff; 4];
    transport.read(CONFIG, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn features_must_be_offered_and_include_version_1() {
    let good = (FEATURE as u32, 1, 0);
    for (low, high, beyond) in [good, (1, 1, 0), (0, 0, 0), (0, 1 | 1 << 31, 0), (0, 1, 1)] {
        let bench = bench();
        bench.acknowledge();
        bench.accept(0, low);
        bench.accept(1, high);
        bench.accept(2, beyond);
        bench.write(STATUS, 11);
        let expected = if (low, high, beyond) == good { 11 } else { 3 };
        assert_eq!(bench.read(STATUS), expected, "{low:#x} {high:#x} {beyond:#x}");
    }
}

#[test]
fn features_and_queues_are_fixed_once_the_driver_is_ready() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, FEATURE);
    bench.accept(0, 0);
    bench.write(QUEUE_SELECT, 0);
    bench.write(QUEUE_READY, 0);
    bench.write(QUEUE_DESCRIPTOR_LOW, 0x5000);
    assert_eq!((bench.read(STATUS), bench.read(QUEUE_READY)), (15, 1));
    let offered = bench.driver.offer(0, &[Buffer::Readable(b"x")]);
    assert_eq!(bench.driver.wait_returned(0), (offered.head, 0));
}

#[test]
fn plain_write_to_the_notification_register_notifies() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, 0);
    bench.driver.write_descriptor(0, 0, 0x20_0000, 1, 0, 0);
    bench.driver.offer_head(0, 0);
    bench.write(QUEUE_NOTIFY, 7);
    bench.write(QUEUE_NOTIFY, 0);
    assert_eq!(bench.driver.wait_returned(0), (0, 0));
    assert_eq!(bench.read(INTERRUPT_STATUS), 1);
    bench.write(INTERRUPT_ACKNOWLEDGE, 1);
    assert_eq!(bench.read(INTERRUPT_STATUS), 0);
}

#[test]
fn queue_outside_memory_needs_a_reset_which_cures_it() {
    let bench = bench();
    bench.acknowledge();
    bench.accept(1, 1);
    bench.write(STATUS, 11);
    bench.write(QUEUE_DESCRIPTOR_HIGH, 0xffff_ffff);
    bench.write(QUEUE_READY, 1);
    bench.write(STATUS, 15);
    assert_eq!(bench.read(STATUS), 15 | 64);
    assert_eq!(bench.read(INTERRUPT_STATUS), 2);
    assert!(!bench.transport.is_claimed());
    bench.driver.start(&bench.transport, 0);
    assert_eq!((bench.read(STATUS), bench.read(INTERRUPT_STATUS)), (15, 0));
}

#[test]
fn device_that_the_host_cannot_activate_is_a_host_error() {
    let bench = bench_with(Failure::Activate, &["io"]);
    let action = bench.driver.try_start(&bench.transport, 0);
    let line = "loopback: cannot activate the device: make a worker: out of memory";
    assert_eq!(action, Action::HostError(line.to_owned()));
    assert_eq!(bench.read(STATUS), 15 | 64);
    assert!(!bench.transport.is_claimed());
}

#[test]
fn worker_that_the_host_cannot_watch_is_a_host_error() {
    let bench = bench_with(Failure::Watch, &["io"]);
    let Action::HostError(line) = bench.driver.try_start(&bench.transport, 0) else { panic!("it was activated") };
    assert!(line.starts_with("loopback: cannot activate the device: cannot wait for descriptor -1: "), "{line}");
    assert_eq!(bench.read(STATUS), 15 | 64);
    assert!(!bench.transport.is_claimed());
    let mut lifecycle: Vec<&str> = bench.lifecycle.try_iter().map(|(what, _)| what).collect();
    lifecycle.sort_unstable();
    assert_eq!(lifecycle, ["drop", "drop", "start"]);
}

#[test]
fn workers_spread_over_event_loops_and_reset_drops_them() {
    for (event_loops, expected) in [(vec!["io"], ["io", "io"]), (vec!["net-0", "net-1"], ["net-0", "net-1"])] {
        let mut bench = bench_with(Failure::None, &event_loops);
        bench.driver.start(&bench.transport, 0);
        let started: Vec<_> = bench.lifecycle.try_iter().collect();
        assert_eq!(started, expected.map(|event_loop| ("start", event_loop.to_owned())));
        for queue in 0..2 {
            let offered = bench.driver.offer(queue, &[Buffer::Readable(b"x")]);
            assert_eq!(bench.driver.wait_returned(queue), (offered.head, 0));
        }
        bench.write(STATUS, 0);
        let dropped: Vec<&str> = bench.lifecycle.try_iter().map(|(what, _)| what).collect();
        assert_eq!(dropped, ["drop", "drop"]);
    }
}

#[test]
fn reset_ends_all_access_to_memory() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, 0);
    bench.write(STATUS, 0);
    bench.driver.offer(0, &[Buffer::Readable(b"late")]);
    bench.write(QUEUE_NOTIFY, 0);
    // The next activation is served by the same loop, after anything that could have been left
    // behind.
    let late = bench.driver.returned(0);
    bench.driver.reset();
    bench.driver.start(&bench.transport, 0);
    assert_eq!((late, bench.driver.returned(0)), (None, None));
    let registers = [QUEUE_READY, INTERRUPT_STATUS].map(|register| bench.read(register));
    assert_eq!(registers, [1, 0]);
}

#[test]
fn queues_are_not_configured_before_features_are_accepted() {
    let bench = bench();
    bench.acknowledge();
    bench.write(QUEUE_READY, 1);
    assert_eq!(bench.read(QUEUE_READY), 0);
}

#[test]
fn broken_ring_shows_as_needs_reset_and_config_interrupt() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, 0);
    bench.driver.offer_head(0, 8);
    bench.driver.notify(0);
    // The cause is the last that is set.
    while bench.read(INTERRUPT_STATUS) & 2 == 0 {
        std::thread::yield_now();
    }
    assert_eq!(bench.read(STATUS) & 64, 64);
}
