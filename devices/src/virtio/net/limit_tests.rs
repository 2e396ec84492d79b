// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device with limits: what may pass, in bytes and packets, in each direction.

use super::bench::*;
use super::*;
use crate::event_loop::EventLoop;
use crate::rate_limit::{Rate, RateLimits};
use crate::testing::{Buffer, Driver};
use crate::virtio::VirtioDevice;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const FRAME_BYTES: usize = 1000;

fn rate(bytes: u64, operations: u64) -> Rate {
    Rate { bytes: NonZeroU64::new(bytes), operations: NonZeroU64::new(operations) }
}

/// A device on an event loop, whose timer is a real one.
struct Limited {
    net: Net,
    driver: Driver,
    network: OwnedFd,
    _events: EventLoop,
}

fn limited(limits: RateLimits) -> Limited {
    let (tap, network) = Tap::pair();
    let config =
        NetConfig { name: "net-0".to_owned(), backend: tap.into(), internal_host: None, mac: MAC, mtu: None, limits };
    let mut net = Net::open(config).unwrap();
    let driver = Driver::new(&[256, 256]);
    let events = EventLoop::spawn("net-0").unwrap();
    events.handle().add(net.activate(driver.activation(0)).unwrap().remove(0)).unwrap();
    Limited { net, driver, network, _events: events }
}

impl Limited {
    /// Time until the guest has sent so many frames.
    fn send(&mut self, count: usize) -> Duration {
        let start = Instant::now();
        let packet = packet(&noise(FRAME_BYTES, 1));
        (0..count).for_each(|_| _ = self.driver.offer(TRANSMIT, &[Buffer::Readable(&packet)]));
        for _ in 0..count {
            let _ = self.driver.wait_returned(TRANSMIT);
            assert!(recv(&self.network, &mut [0; 2000], RecvFlags::DONTWAIT).is_ok());
        }
        start.elapsed()
    }

    /// Time until the guest has received so many frames.
    fn receive(&mut self, count: usize) -> Duration {
        let start = Instant::now();
        let packet = packet(&noise(FRAME_BYTES, 1));
        (0..count).for_each(|_| assert!(send(&self.network, &packet, SendFlags::DONTWAIT).is_ok()));
        (0..count).for_each(|_| _ = self.driver.offer(RECEIVE, &[Buffer::Writable(1526)]));
        (0..count).for_each(|_| _ = self.driver.wait_returned(RECEIVE));
        start.elapsed()
    }
}

#[test]
fn bytes_and_packets_are_limited_in_each_direction() {
    // 100 frames or 100,000 bytes for each second, of which a twentieth passes at once.
    for limit in [rate(100_000, 0), rate(0, 100)] {
        let mut sender = limited(RateLimits { from_guest: limit, to_guest: Rate::default() });
        let least = Duration::from_millis(135);
        assert!(sender.receive(20) < least, "the other direction is free");
        let taken = sender.send(20);
        assert!(taken >= least, "{taken:?} for 20 frames of which 6 pass at once");
        let mut receiver = limited(RateLimits { to_guest: limit, from_guest: Rate::default() });
        assert!(receiver.send(20) < least);
        let taken = receiver.receive(20);
        assert!(taken >= least, "{taken:?} for 20 frames of which 6 pass at once");
    }
}

#[test]
fn new_limits_hold_at_once() {
    let mut limited = limited(RateLimits::default());
    assert!(limited.send(20) < Duration::from_millis(140));
    let rates = limited.net.handle().rates();
    rates.set(RateLimits { from_guest: rate(0, 100), to_guest: Rate::default() });
    // The worker sees it when its timer has expired, some microseconds later.
    assert!((0..1000).any(|_| limited.send(1) >= Duration::from_millis(5)));
    assert!(limited.send(20) >= Duration::from_millis(180));
    rates.set(RateLimits::default());
    assert!(limited.send(100) < Duration::from_millis(900));
}

#[test]
fn reset_gives_no_tokens() {
    let (tap, network) = Tap::pair();
    let limits = RateLimits { from_guest: rate(0, 1), to_guest: Rate::default() };
    let config =
        NetConfig { name: "net-0".to_owned(), backend: tap.into(), internal_host: None, mac: MAC, mtu: None, limits };
    let mut net = Net::open(config).unwrap();
    let mut sent = 0;
    for _ in 0..10 {
        let mut driver = Driver::new(&[256, 256]);
        let mut worker = net.activate(driver.activation(0)).unwrap().remove(0);
        driver.offer(TRANSMIT, &[Buffer::Readable(&packet(&noise(60, 1)))]);
        worker.start(&mut crate::turn::Turn::unlimited());
        sent += usize::from(recv(&network, &mut [0; 100], RecvFlags::DONTWAIT).is_ok());
    }
    // The burst of one, and one that is a debt.
    assert!(sent <= 2, "{sent}");
}

#[test]
fn segments_count_as_the_packets_that_they_become() {
    let (tap, network) = Tap::pair();
    let limits = RateLimits { from_guest: rate(0, 1000), to_guest: Rate::default() };
    let config =
        NetConfig { name: "net-0".to_owned(), backend: tap.into(), internal_host: None, mac: MAC, mtu: None, limits };
    let mut net = Net::open(config).unwrap();
    let mut driver = Driver::new(&[256, 256]);
    let mut worker = net.activate(driver.activation(ALL)).unwrap().remove(0);
    let mut frame = noise(60_000, 1);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[23] = 17;
    // 600 segments of 100 bytes: more than the 50 packets that pass at once.
    let segmented = [&[1, 5, 42, 0, 100, 0, 34, 0, 6, 0, 0, 0], &frame[..]].concat();
    for _ in 0..3 {
        driver.offer(TRANSMIT, &[Buffer::Readable(&segmented)]);
    }
    worker.start(&mut crate::turn::Turn::unlimited());
    let passed = std::iter::from_fn(|| recv(&network, &mut [0; 100], RecvFlags::DONTWAIT).ok()).count();
    assert_eq!(passed, 1);
}
