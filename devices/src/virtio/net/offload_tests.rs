// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Headers, merged buffers and lengths, on a tap that is a pair of sockets.

use super::bench::*;
use super::*;
use crate::testing::{Buffer, Driver};
use crate::turn::{MAX_TURN_BYTES, Turn};
use crate::virtio::VirtioDevice;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

const MERGE: u64 = 1 << 15;
/// A header that asks for segments of TCP over IPv4, each of 1448 bytes.
const TCP4: [u8; 12] = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];

fn pair(features: u64) -> (Bench, OwnedFd) {
    let (tap, network) = Tap::pair();
    (bench(tap, features), network)
}

fn send_packet(network: &OwnedFd, packet: &[u8]) {
    assert_eq!(send(network, packet, SendFlags::DONTWAIT), Ok(packet.len()));
}

fn receive_packet(network: &OwnedFd) -> Option<Vec<u8>> {
    let mut packet = vec![0; 70_000];
    let (_, length) = recv(network, &mut packet, RecvFlags::DONTWAIT).ok()?;
    packet.truncate(length);
    Some(packet)
}

/// A segmented packet of this length.
fn segmented(length: usize) -> Vec<u8> {
    let mut frame = noise(length, 3);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[23] = 6;
    [&TCP4, &frame[..]].concat()
}

#[test]
fn large_packet_fills_as_many_buffers_as_it_needs() {
    let (mut bench, network) = pair(ALL);
    for length in [1514, 1515, 3040, 3041, 9000, 65_553] {
        let packet = segmented(length);
        send_packet(&network, &packet);
        let mut buffers = bench.offer((12 + length).div_ceil(1526), 1526);
        let received = bench.wait_received(&mut buffers);
        assert_eq!(received[..10], packet[..10]);
        assert_eq!(usize::from(received[10]), (12 + length).div_ceil(1526));
        assert_eq!(received[12..], packet[12..], "{length}");
        assert!(buffers.is_empty());
    }
    assert_eq!(bench.passed(), (6, 0));
}

#[test]
fn large_packet_waits_for_all_of_its_buffers() {
    let (mut bench, network) = pair(ALL);
    send_packet(&network, &segmented(4000));
    let mut buffers = bench.offer(2, 1526);
    bench.backend_changed();
    assert_eq!(bench.received(&mut buffers), None);
    assert!(bench.driver.is_notification_wanted(RECEIVE));
    buffers.extend(bench.offer(1, 1526));
    assert_eq!(bench.received(&mut buffers).map(|packet| packet.len()), Some(4012));
}

#[test]
fn buffers_that_can_never_hold_a_packet_are_no_dead_end() {
    let (mut bench, network) = pair(ALL);
    send_packet(&network, &segmented(65_000));
    send_packet(&network, &packet(&noise(60, 1)));
    // All that the queue has, and still too little.
    let mut buffers = bench.offer(256, 100);
    bench.backend_changed();
    let received = bench.received(&mut buffers).expect("the small packet");
    assert_eq!(bench.passed(), (1, 1));
    assert!(received.len() >= 72 && received[12..72] == noise(60, 1));
}

#[test]
fn buffers_shorter_than_a_header_are_returned_empty() {
    let (mut bench, network) = pair(MERGE);
    send_packet(&network, &packet(&noise(60, 1)));
    let short = bench.driver.offer(RECEIVE, &[Buffer::Writable(11)]);
    let unreadable = bench.driver.offer(RECEIVE, &[Buffer::Readable(&[0; 100])]);
    let mut buffers = bench.offer(1, 100);
    assert_eq!(bench.driver.returned(RECEIVE), Some((short.head, 0)));
    assert_eq!(bench.driver.returned(RECEIVE), Some((unreadable.head, 0)));
    assert_eq!(bench.received(&mut buffers).map(|packet| packet.len()), Some(72));
}

#[test]
fn packet_is_scattered_over_the_parts_of_a_chain() {
    let (mut bench, network) = pair(MERGE);
    send_packet(&network, &packet(&noise(3000, 9)));
    let parts = [12, 1, 1499, 1000].map(Buffer::Writable);
    let first = bench.driver.offer(RECEIVE, &parts);
    let second = bench.driver.offer(RECEIVE, &parts);
    bench.backend_changed();
    assert_eq!(bench.driver.returned(RECEIVE), Some((first.head, 2512)));
    assert_eq!(bench.driver.returned(RECEIVE), Some((second.head, 500)));
    let bytes = |offered| (0..4).flat_map(|part| bench.driver.contents(offered, part)).collect::<Vec<_>>();
    let all = [&bytes(&first)[..], &bytes(&second)[..500]].concat();
    assert_eq!((&all[10..12], &all[12..]), (&[2, 0][..], &noise(3000, 9)[..]));
}

#[test]
fn packet_is_dropped_if_buffers_are_not_merged_and_too_small() {
    let (mut bench, network) = pair(ALL & !MERGE);
    (0..3).for_each(|_| send_packet(&network, &segmented(4000)));
    send_packet(&network, &packet(&noise(60, 1)));
    let mut buffers = bench.offer(4, 1526);
    bench.backend_changed();
    assert_eq!(bench.received(&mut buffers).map(|packet| packet.len()), Some(72));
    assert_eq!(bench.passed(), (1, 3));
}

#[test]
fn every_length_passes_in_both_directions_or_is_dropped() {
    let (mut bench, network) = pair(MERGE);
    let (mut passed, mut dropped) = (0, 0);
    for length in [0, 1, 11, 12, 13, 14, 15, 59, 60, 1513, 1514, 1515, 65_535, 65_552, 65_553, 65_554, 66_000] {
        let packet = packet(&noise(length, length));
        let is_valid = (14..=65_553).contains(&length);
        *(if is_valid { &mut passed } else { &mut dropped }) += 1;
        assert_eq!(bench.send(&packet), (passed, dropped), "{length} from the guest");
        assert_eq!(receive_packet(&network), is_valid.then_some(packet.clone()));
        send_packet(&network, &packet);
        let mut buffers = bench.offer(2, 33_000);
        bench.backend_changed();
        let received = bench.received(&mut buffers);
        assert_eq!(received.map(|packet| packet[12..].to_vec()), is_valid.then(|| packet[12..].to_vec()));
        // What was not used stays with the device.
        bench.activate(MERGE);
    }
    assert_eq!(bench.passed(), (passed, dropped));
}

/// Passes a packet whose header has one field changed, in every way that matters, in both
/// directions. What is accepted must be what `is_valid` accepts.
fn change_field(place: usize, values: impl Iterator<Item = u16>, is_valid: impl Fn(u16) -> bool) {
    let (mut bench, network) = pair(ALL);
    for value in values {
        let mut packet = segmented(400);
        match place {
            0 | 1 => packet[place] = value as u8,
            _ => packet[place..place + 2].copy_from_slice(&value.to_le_bytes()),
        }
        let before = bench.sent().0;
        assert_eq!(bench.send(&packet).0 - before, u64::from(is_valid(value)), "field {place} = {value:#x}");
        assert_eq!(receive_packet(&network), is_valid(value).then_some(packet));
        bench.activate(ALL);
    }
}

#[test]
fn each_value_of_each_header_field_from_the_guest_is_checked() {
    let edges = || [0, 1, 2, 13, 14, 15, 16, 17, 34, 66, 380, 381, 399, 400, 401, 0x7fff, 0x8000, 0xffff].into_iter();
    // Flags: the checksum is required here, and nothing else is known.
    change_field(0, 0..256, |flags| flags == 1);
    // Types: none, TCP over IPv4, with and without congestion bits.
    change_field(1, 0..256, |kind| [0, 1, 0x81].contains(&kind));
    change_field(2, edges(), |header_length| header_length <= 400);
    change_field(4, edges(), |size| size > 0);
    change_field(6, edges(), |start| (14..=380).contains(&start));
    change_field(8, edges(), |offset| offset == 16);
    // The number of buffers means nothing in this direction.
    change_field(10, edges(), |_| true);
}

#[test]
fn flood_of_large_packets_is_bounded_by_the_turn() {
    let (mut bench, network) = pair(ALL);
    let packet = segmented(60_000);
    let offered = bench.driver.offer(TRANSMIT, &[Buffer::Readable(&packet)]);
    let stop = AtomicBool::new(false);
    // The network reads nothing: what it does not hold waits with the guest.
    let worker = bench.worker.as_mut().unwrap();
    for _ in 0..1000 {
        worker.start(&mut Turn::new(&stop));
        while bench.driver.returned(TRANSMIT).is_some() {
            bench.driver.offer_head(TRANSMIT, offered.head);
        }
    }
    let (sent, dropped) = bench.sent();
    assert!(sent * 60_000 < MAX_TURN_BYTES && sent > 0, "{sent}");
    assert_eq!(dropped, 0);
    let _ = receive_packet(&network);
    bench.backend_changed();
    assert!(bench.sent().0 > sent, "it goes on when the network reads");
}

#[test]
fn mtu_is_shown_and_holds_if_the_driver_knows_it() {
    let (tap, network) = Tap::pair();
    let mut net = device(tap, Some(1400));
    let mut mtu = [0xff; 4];
    net.read_config(8, &mut mtu);
    assert_eq!(mtu, [1, 0, 0x78, 5], "one pair of queues, and the MTU");
    let mut sent = |features| {
        let mut driver = Driver::new(&[256, 256]);
        let mut worker = net.activate(driver.activation(features)).unwrap().remove(0);
        [1418, 1419].map(|length| {
            driver.offer(TRANSMIT, &[Buffer::Readable(&packet(&noise(length, 1)))]);
            worker.start(&mut Turn::unlimited());
            receive_packet(&network).is_some()
        })
    };
    assert_eq!(sent(1 << 3), [true, false]);
    assert_eq!(sent(0), [true, true]);
}

#[test]
fn link_that_the_host_takes_down_carries_nothing_until_it_is_up() {
    let (mut bench, network) = pair(MERGE);
    let mut buffers = bench.offer(1, 1526);
    bench.handle.set_link(false);
    bench.process(worker::LINK);
    assert_eq!((bench.status(), bench.driver.interrupts()), (0, 1));
    assert!(bench.handle.is_connected());
    send_packet(&network, &packet(&noise(60, 1)));
    bench.backend_changed();
    assert_eq!(bench.received(&mut buffers), None);
    assert_eq!(bench.send(&packet(&noise(60, 2))), (0, 1));
    let _ = bench.driver.interrupts();
    bench.handle.set_link(true);
    bench.process(worker::LINK);
    assert_eq!(bench.status(), 1);
    assert!(bench.received(&mut buffers).is_some());
    assert!(bench.driver.interrupts() >= 1);
    assert_eq!(bench.send(&packet(&noise(60, 2))), (1, 1));
}
