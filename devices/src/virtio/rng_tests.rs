// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entropy device, worker alone and behind its transport.

use super::*;
use crate::event_loop::EventLoop;
use crate::testing::{Buffer, Driver};
use crate::virtio::mmio::MmioTransport;

#[test]
fn a_small_request_is_filled_and_a_huge_one_is_capped() {
    let mut driver = Driver::new(&[16]);
    let small = driver.offer(0, &[Buffer::Room(64)]);
    let huge = driver.offer(0, &[Buffer::Room(1 << 20)]);
    Rng::new().activate(driver.activation(0)).unwrap().start();
    assert_eq!(driver.returned(0), Some((small.head, 64)));
    assert_eq!(driver.returned(0), Some((huge.head, REQUEST_LIMIT as u32)));
    // 64 random bytes are all zero once in 2^512.
    assert_ne!(driver.contents(&small, 0), [0; 64]);
    assert!(driver.contents(&huge, 0)[REQUEST_LIMIT..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_request_without_room_is_returned_empty() {
    let mut driver = Driver::new(&[16]);
    let offered = driver.offer(0, &[Buffer::Send(b"give me")]);
    Rng::new().activate(driver.activation(0)).unwrap().start();
    assert_eq!(driver.returned(0), Some((offered.head, 0)));
}

#[test]
fn it_works_through_registers_kicks_and_an_event_loop_and_again_after_a_reset() {
    let mut driver = Driver::new(&[16]);
    let events = EventLoop::spawn("io").unwrap();
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport = MmioTransport::new(Box::new(Rng::new()), memory, interrupt, driver.kicks(), events.handle());
    assert!(!transport.is_claimed());
    for _ in 0..2 {
        driver.start(&transport, 0);
        assert!(transport.is_claimed());
        let offered = driver.offer(0, &[Buffer::Room(32)]);
        assert_eq!(driver.wait_returned(0), (offered.head, 32));
        driver.forget();
    }
    events.stop();
}
