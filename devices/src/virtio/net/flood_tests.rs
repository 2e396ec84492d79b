// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A flood in both directions beside a disk: each device has an event loop of its own.

use super::bench::{MAC, RECEIVE, TRANSMIT, device};
use super::*;
use crate::event_loop::EventLoop;
use crate::rate_limit::RateLimits;
use crate::testing::{Buffer, Driver};
use crate::virtio::VirtioDevice;
use crate::virtio::block::{Block, BlockConfig};
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const REQUESTS: usize = 500;
/// Of the header before a frame.
const HEADER_SIZE: usize = 12;

/// Offers every buffer again as soon as it is returned.
fn flood_as_guest(driver: &mut Driver, stop: &AtomicBool) {
    let mut packet = vec![0; HEADER_SIZE + 1400];
    packet[HEADER_SIZE..HEADER_SIZE + 6].fill(0xff);
    packet[HEADER_SIZE + 6..HEADER_SIZE + 12].copy_from_slice(&MAC);
    for _ in 0..256 {
        driver.offer(TRANSMIT, &[Buffer::Readable(&packet)]);
        driver.offer(RECEIVE, &[Buffer::Writable(1526)]);
    }
    while !stop.load(Relaxed) {
        for queue in [TRANSMIT, RECEIVE] {
            while let Some((head, _)) = driver.returned(queue) {
                driver.offer_head(queue, head);
            }
            driver.notify(queue);
        }
    }
}

/// Takes every frame of the guest, and sends as many as the socket holds.
fn flood_as_host(network: &OwnedFd, stop: &AtomicBool) {
    let (frame, mut buffer) = (vec![0; HEADER_SIZE + 1400], vec![0; 4096]);
    while !stop.load(Relaxed) {
        while recv(network, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        let _ = send(network, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

fn read_first_sector(disk: &mut Driver) {
    let _ = disk.offer(0, &[Buffer::Readable(&[0; 16]), Buffer::Writable(512), Buffer::Writable(1)]);
    let _ = disk.wait_returned(0);
}

#[test]
fn disk_answers_every_request_in_a_flood_of_frames() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let config = BlockConfig {
        file: image.reopen().unwrap(),
        path: image.path().to_owned(),
        more: Vec::new(),
        read_only: true,
        scratch: false,
        serial: "root".to_owned(),
        limits: RateLimits::default(),
    };
    let mut block = Block::open(config).unwrap();
    let mut disk = Driver::new(&[256]);
    let (tap, network) = Tap::pair();
    let mut net = device(tap, None);
    let counters = net.handle();
    let mut guest = Driver::new(&[256, 256]);
    let loops = ["disk-0", "net-0"].map(|name| EventLoop::spawn(name).unwrap());
    let _ = loops[0].handle().add(block.activate(disk.activation(0)).unwrap().remove(0)).unwrap();
    let _ = loops[1].handle().add(net.activate(guest.activation(1 << 15)).unwrap().remove(0)).unwrap();
    let stop = AtomicBool::new(false);
    let passed = || {
        let counters = counters.counters();
        [&counters.tx_packets, &counters.rx_packets].map(|frames| frames.load(Relaxed))
    };
    let before = std::thread::scope(|scope| {
        scope.spawn(|| flood_as_guest(&mut guest, &stop));
        scope.spawn(|| flood_as_host(&network, &stop));
        let limit = Instant::now() + Duration::from_secs(60);
        while passed().iter().any(|frames| *frames < 1000) && Instant::now() < limit {
            std::thread::yield_now();
        }
        let before = passed();
        (0..REQUESTS).for_each(|_| read_first_sector(&mut disk));
        stop.store(true, Relaxed);
        before
    });
    let after = passed();
    assert!((0..2).all(|direction| after[direction] > before[direction]), "{before:?} {after:?}");
}
