// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The register window: what a driver may read and write, when, and that a reset ends all access to its buffers.

use super::*;
use crate::event_loop::{EventLoop, Source};
use crate::testing::{Buffer, Driver};
use crate::virtio::queue::Served;
use crate::virtio::{ActivateError, DeviceIdentity, Worker};
use std::sync::Arc;
use vmm_sys_util::epoll::EventSet;

const FEATURE: u64 = 1 << 5;

/// Returns what it is sent; its configuration is "abcd".
struct Loopback {
    identity: DeviceIdentity,
    /// The host has nothing left.
    fails: bool,
}

struct LoopbackWorker(Activation);

impl VirtioDevice for Loopback {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::super::read_config_bytes(b"abcd", offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        if self.fails {
            return Err(ActivateError { step: "make a worker", source: std::io::ErrorKind::OutOfMemory.into() });
        }
        Ok(Box::new(LoopbackWorker(activation)))
    }
}

impl Worker for LoopbackWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::kick(self.0.queues[0].kick(), 0)]
    }

    fn start(&mut self) {
        let Activation { memory, queues, .. } = &mut self.0;
        queues[0].serve(memory, |_| Served::Done(0));
    }

    fn process(&mut self, _: u32, _: EventSet) {
        self.start();
    }
}

struct Bench {
    driver: Driver,
    transport: Arc<MmioTransport>,
    _events: EventLoop,
}

fn bench_with(fails: bool) -> Bench {
    let identity = DeviceIdentity {
        device_id: 42,
        name: "loopback".to_owned(),
        kernel_option: "CONFIG_LOOPBACK",
        features: FEATURE,
        queue_sizes: vec![8, 16],
    };
    let driver = Driver::new(&[8, 16]);
    let events = EventLoop::spawn("io").unwrap();
    let device = Box::new(Loopback { identity, fails });
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport = Arc::new(MmioTransport::new(device, memory, interrupt, driver.kicks(), events.handle()));
    Bench { driver, transport, _events: events }
}

fn bench() -> Bench {
    bench_with(false)
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

    /// Up to the point where features are written.
    fn meet(&self) {
        [0, 1, 3].into_iter().for_each(|status| self.write(STATUS, status));
    }

    fn accept(&self, select: u32, features: u32) {
        self.write(DRIVER_FEATURES_SELECT, select);
        self.write(DRIVER_FEATURES, features);
    }
}

#[test]
fn the_window_identifies_the_device_and_its_queues() {
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
fn only_aligned_four_byte_accesses_in_the_right_direction_reach_a_register() {
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
fn configuration_reads_have_any_width_and_end_where_it_ends() {
    let bench = bench();
    let mut data = [0xff; 8];
    bench.transport.read(CONFIG + 1, &mut data);
    assert_eq!(&data, b"bcd\xff\xff\xff\xff\xff");
    let mut byte = [0xff];
    bench.transport.read(CONFIG + 3, &mut byte);
    assert_eq!(&byte, b"d");
    bench.write(CONFIG, 0);
    assert_eq!(bench.read(CONFIG), u32::from_le_bytes(*b"abcd"));
    assert_eq!(bench.read(CONFIG + 0xefc), u32::MAX);
}

#[test]
fn features_must_be_offered_and_include_version_1() {
    let good = (FEATURE as u32, 1, 0);
    for (low, high, beyond) in [good, (1, 1, 0), (0, 0, 0), (0, 1 | 1 << 31, 0), (0, 1, 1)] {
        let bench = bench();
        bench.meet();
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
    let offered = bench.driver.offer(0, &[Buffer::Send(b"x")]);
    assert_eq!(bench.driver.wait_returned(0), (offered.head, 0));
}

#[test]
fn a_plain_write_to_the_notification_register_kicks() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, 0);
    bench.driver.describe(0, 0, 0x20_0000, 1, 0, 0);
    bench.driver.offer_head(0, 0);
    bench.write(QUEUE_NOTIFY, 7);
    bench.write(QUEUE_NOTIFY, 0);
    assert_eq!(bench.driver.wait_returned(0), (0, 0));
    assert_eq!(bench.read(INTERRUPT_STATUS), 1);
    bench.write(INTERRUPT_ACKNOWLEDGE, 1);
    assert_eq!(bench.read(INTERRUPT_STATUS), 0);
}

#[test]
fn a_queue_outside_memory_makes_the_device_need_a_reset_which_cures_it() {
    let bench = bench();
    bench.meet();
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
fn a_device_that_the_host_cannot_activate_needs_a_reset() {
    let bench = bench_with(true);
    bench.driver.start(&bench.transport, 0);
    assert_eq!(bench.read(STATUS), 15 | 64);
    assert!(!bench.transport.is_claimed());
}

#[test]
fn after_a_reset_nothing_in_memory_is_touched() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, 0);
    bench.write(STATUS, 0);
    bench.driver.offer(0, &[Buffer::Send(b"late")]);
    bench.write(QUEUE_NOTIFY, 0);
    // The next activation is served by the same loop, after anything that could have been left behind.
    let late = bench.driver.returned(0);
    bench.driver.forget();
    bench.driver.start(&bench.transport, 0);
    assert_eq!((late, bench.driver.returned(0)), (None, None));
    let registers = [QUEUE_READY, INTERRUPT_STATUS].map(|register| bench.read(register));
    assert_eq!(registers, [1, 0]);
}

#[test]
fn queues_cannot_be_configured_before_features_were_agreed_upon() {
    let bench = bench();
    bench.meet();
    bench.write(QUEUE_READY, 1);
    assert_eq!(bench.read(QUEUE_READY), 0);
}

#[test]
fn a_broken_ring_shows_as_needs_reset_and_a_configuration_interrupt() {
    let mut bench = bench();
    bench.driver.start(&bench.transport, 0);
    bench.driver.offer_head(0, 8);
    bench.driver.kick(0);
    while bench.read(STATUS) & 64 == 0 {
        std::thread::yield_now();
    }
    assert_eq!(bench.read(INTERRUPT_STATUS) & 2, 2);
}
