// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entropy device: its worker alone, and behind a transport.

use super::*;
use crate::event_loop::EventLoop;
use crate::testing::{Buffer, Driver};
use crate::virtio::mmio::MmioTransport;

fn start(driver: &Driver) {
    let workers = Rng::new().activate(driver.activation(0)).unwrap();
    workers.into_iter().for_each(|mut worker| worker.start(&mut Turn::unlimited()));
}

#[test]
fn rng_fills_a_small_request_and_caps_a_huge_one() {
    let mut driver = Driver::new(&[16]);
    let small = driver.offer(0, &[Buffer::Writable(64)]);
    let huge = driver.offer(0, &[Buffer::Writable(1 << 20)]);
    start(&driver);
    assert_eq!(driver.returned(0), Some((small.head, 64)));
    assert_eq!(driver.returned(0), Some((huge.head, MAX_REQUEST_BYTES as u32)));
    // 64 random bytes are all zero once in 2^512.
    assert_ne!(driver.contents(&small, 0), [0; 64]);
    assert!(driver.contents(&huge, 0)[MAX_REQUEST_BYTES..].iter().all(|&byte| byte == 0));
}

#[test]
fn rng_returns_a_request_without_space_empty() {
    let mut driver = Driver::new(&[16]);
    let offered = driver.offer(0, &[Buffer::Readable(b"give me")]);
    start(&driver);
    assert_eq!(driver.returned(0), Some((offered.head, 0)));
}

#[test]
fn rng_works_behind_registers_and_again_after_a_reset() {
    let mut driver = Driver::new(&[16]);
    let events = EventLoop::spawn("io").unwrap();
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport =
        MmioTransport::new(Box::new(Rng::new()), memory, interrupt, driver.queue_events(), vec![events.handle()]);
    assert!(!transport.is_claimed());
    for _ in 0..2 {
        driver.start(&transport, 0);
        assert!(transport.is_claimed());
        let offered = driver.offer(0, &[Buffer::Writable(32)]);
        assert_eq!(driver.wait_returned(0), (offered.head, 32));
        driver.reset();
    }
    events.stop();
}
