// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several pairs of queues, on a tap with as many.

use super::bench::*;
use super::*;
use crate::rate_limit::{Rate, RateLimits};
use crate::testing::{Buffer, Driver, Offered};
use crate::turn::Turn;
use crate::virtio::{VirtioDevice, Worker};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use vmm_sys_util::epoll::EventSet;

const PAIRS: usize = 3;
const MQ: u64 = 1 << 17 | 1 << 22;
/// Queues of a driver that knows all pairs.
const COMMANDS: usize = 2 * PAIRS;

struct Pairs {
    net: Net,
    driver: Driver,
    worker: Box<dyn Worker>,
    networks: Vec<OwnedFd>,
}

fn pairs(features: u64, limits: RateLimits) -> Pairs {
    let (tap, networks) = Tap::pairs(PAIRS);
    let config =
        NetConfig { name: "net-0".to_owned(), backend: tap.into(), internal_host: None, mac: MAC, mtu: None, limits };
    let mut net = Net::open(config).unwrap();
    let driver = Driver::new(&net.identity().queue_sizes);
    let mut worker = net.activate(driver.activation(features)).unwrap().remove(0);
    worker.start(&mut Turn::unlimited());
    Pairs { net, driver, worker, networks }
}

impl Pairs {
    fn process(&mut self, token: usize) {
        self.worker.process(token as u32, EventSet::IN, &mut Turn::unlimited());
    }

    /// Something to read on a queue of the tap.
    fn tap_changed(&mut self, queue: usize) {
        let token = if queue == 0 { worker::BACKEND as usize } else { worker::BACKEND_QUEUES as usize + queue };
        self.process(token);
    }

    /// Sets the pairs by queue `queue`, and returns the answer.
    fn set_pairs(&mut self, queue: usize, pairs: u16) -> u8 {
        let command = [&[4, 0][..], &pairs.to_le_bytes()].concat();
        let offered = self.driver.offer(queue, &[Buffer::Readable(&command), Buffer::Writable(1)]);
        self.process(worker::CONTROL as usize);
        assert_eq!(self.driver.returned(queue), Some((offered.head, 1)));
        self.driver.contents(&offered, 1)[0]
    }

    fn offer(&mut self, pair: usize) -> Offered {
        let offered = self.driver.offer(2 * pair, &[Buffer::Writable(1526)]);
        self.process(2 * pair);
        offered
    }

    /// The network sends on one queue of the tap; the pair in whose buffer the frame is.
    fn receive(&mut self, queue: usize) -> Option<usize> {
        assert!(send(&self.networks[queue], &packet(&noise(60, queue)), SendFlags::DONTWAIT).is_ok());
        self.tap_changed(queue);
        (0..PAIRS).find(|&pair| self.driver.returned(2 * pair).is_some())
    }

    /// The guest sends by one pair; the queue of the tap that has the frame.
    fn send(&mut self, pair: usize) -> Option<usize> {
        self.driver.offer(2 * pair + 1, &[Buffer::Readable(&packet(&noise(60, pair)))]);
        self.process(2 * pair + 1);
        self.networks.iter().position(|network| recv(network, &mut [0; 100], RecvFlags::DONTWAIT).is_ok())
    }
}

#[test]
fn pairs_are_offered_for_each_queue_of_a_tap() {
    let Pairs { net, .. } = pairs(0, RateLimits::default());
    assert_eq!(net.identity().features & 1 << 22, 1 << 22);
    assert_eq!(net.identity().queue_sizes, [256, 256, 256, 256, 256, 256, 64]);
    let mut pairs = [0xff; 2];
    net.read_config(8, &mut pairs);
    assert_eq!(u16::from_le_bytes(pairs), 3);
    let net = device(Tap::pair().0, None);
    assert_eq!((net.identity().features & 1 << 22, net.identity().queue_sizes.len()), (0, 3));
}

#[test]
fn driver_without_several_pairs_gets_all_frames_and_commands_on_the_third_queue() {
    let mut one = pairs(1 << 17, RateLimits::default());
    for queue in 0..PAIRS {
        one.offer(0);
        assert_eq!(one.receive(queue), Some(0));
    }
    assert_eq!(one.send(0), Some(0));
    assert_eq!(one.set_pairs(2, 1), 1, "the feature was not accepted");
}

#[test]
fn pairs_are_used_when_the_driver_commands_it() {
    let mut several = pairs(MQ, RateLimits::default());
    (0..PAIRS).for_each(|pair| _ = several.offer(pair));
    assert_eq!(several.receive(2), Some(0), "the first pair alone");
    assert_eq!(several.send(1), None);
    for wrong in [0, 4, 0x8000, 0xffff] {
        assert_eq!(several.set_pairs(COMMANDS, wrong), 1);
    }
    assert_eq!(several.set_pairs(COMMANDS, 3), 0);
    // What was offered before is sent now.
    assert!(recv(&several.networks[1], &mut [0; 100], RecvFlags::DONTWAIT).is_ok());
    several.offer(0);
    for pair in [2, 0, 1] {
        assert_eq!((several.receive(pair), several.send(pair)), (Some(pair), Some(pair)));
    }
    assert_eq!(several.set_pairs(COMMANDS, 2), 0);
    several.offer(0);
    assert_eq!(several.receive(2), Some(0), "of the queues of the tap each has a pair");
    let counters = several.net.handle().counters();
    assert_eq!((counters.rx_packets.load(Relaxed), counters.tx_packets.load(Relaxed)), (5, 4));
}

#[test]
fn frame_that_waits_for_buffers_goes_to_the_pair_of_its_queue_then() {
    let mut several = pairs(MQ | 1 << 15, RateLimits::default());
    assert_eq!(several.set_pairs(COMMANDS, 3), 0);
    assert_eq!(several.receive(1), None);
    assert_eq!(several.set_pairs(COMMANDS, 1), 0);
    several.offer(0);
    assert!(several.driver.returned(0).is_some());
}

#[test]
fn drain_sends_what_every_pair_has_and_a_reset_keeps_no_pair() {
    let mut several = pairs(MQ, RateLimits::default());
    assert_eq!(several.set_pairs(COMMANDS, 3), 0);
    for pair in 0..PAIRS {
        several.driver.offer(2 * pair + 1, &[Buffer::Readable(&packet(&noise(60, 1)))]);
    }
    several.worker.drain();
    for network in &several.networks {
        assert!(recv(network, &mut [0; 100], RecvFlags::DONTWAIT).is_ok());
    }
    let Pairs { mut net, worker, networks, .. } = several;
    drop(worker);
    let driver = Driver::new(&net.identity().queue_sizes);
    let mut worker = net.activate(driver.activation(MQ)).unwrap().remove(0);
    worker.start(&mut Turn::unlimited());
    let mut again = Pairs { net, driver, worker, networks };
    again.offer(0);
    assert_eq!((again.receive(2), again.send(2)), (Some(0), None));
}

#[test]
fn limits_are_those_of_the_interface_and_no_pair_starves() {
    let rate = Rate { bytes: None, operations: NonZeroU64::new(100) };
    let limits = RateLimits { from_guest: rate, to_guest: Rate::default() };
    let mut several = pairs(MQ, limits);
    assert_eq!(several.set_pairs(COMMANDS, 3), 0);
    let start = std::time::Instant::now();
    for _ in 0..20 {
        for pair in 0..PAIRS {
            several.driver.offer(2 * pair + 1, &[Buffer::Readable(&packet(&noise(60, 1)))]);
        }
    }
    let mut sent = [0; PAIRS];
    while sent.iter().sum::<usize>() < 30 {
        several.process(worker::LIMITS as usize);
        for (network, sent) in several.networks.iter().zip(&mut sent) {
            *sent += std::iter::from_fn(|| recv(network, &mut [0; 100], RecvFlags::DONTWAIT).ok()).count();
        }
    }
    // A twentieth of a second passes at once, and a debt of one packet.
    assert!(start.elapsed() >= std::time::Duration::from_millis(230), "{:?}", start.elapsed());
    assert!(sent.iter().all(|&count| count >= 3), "{sent:?}");
}

#[test]
fn tap_with_several_queues_is_attached_to_with_all_or_is_busy() {
    if !enter_namespace(&["tuntap add many0 mode tap multi_queue", "tuntap add one0 mode tap"]) {
        return;
    }
    assert_eq!(Tap::open("one0", 4).unwrap().queues(), 1);
    let tap = Tap::open("many0", 4).unwrap();
    assert_eq!(tap.queues(), 4);
    assert!(matches!(Tap::open("many0", 1), Err(TapError::Busy(_))));
    drop(tap);
    assert_eq!(Tap::open("many0", 1).unwrap().queues(), 1);
    let made = Tap::create("new0", 2).unwrap();
    assert_eq!(made.queues(), 2);
    assert!(matches!(Tap::create("new0", 2), Err(TapError::Busy(_))));
    drop(made);
    assert!(matches!(Tap::open("new0", 2), Err(TapError::Missing(_))), "it ends with its descriptors");
}
