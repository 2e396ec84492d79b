// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device on a stream socket, with a peer that follows the protocol or does not.

use super::bench::*;
use super::*;
use crate::event_loop::EventLoop;
use crate::testing::{Buffer, Driver};
use crate::turn::Turn;
use crate::virtio::VirtioDevice;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::AtomicBool;
use vmm_sys_util::epoll::EventSet;

const MERGE: u64 = 1 << 15;
const LENGTHS: [usize; 10] = [14, 15, 59, 60, 61, 1514, 9000, 65_535, 65_552, 65_553];

fn stream(features: u64) -> (Bench, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    (bench(StreamSocket::new(ours.into()).unwrap(), features), peer)
}

fn prefixed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn read_frame(peer: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn frames_of_each_length_pass_in_both_directions() {
    let (mut bench, mut peer) = stream(MERGE);
    for (index, length) in LENGTHS.into_iter().enumerate() {
        let frame = noise(length, index);
        assert_eq!(bench.send(&packet(&frame)).1, 0);
        assert_eq!(read_frame(&mut peer), frame);
        peer.write_all(&prefixed(&frame)).unwrap();
        let mut buffers = bench.offer((12 + length).div_ceil(8192), 8192);
        let received = bench.wait_received(&mut buffers);
        assert_eq!((&received[..10], &received[12..]), (&[0; 10][..], &frame[..]));
    }
    assert_eq!((bench.sent(), bench.passed()), ((10, 0), (10, 0)));
}

#[test]
fn many_frames_are_read_at_once_and_sent_at_once() {
    let (mut bench, mut peer) = stream(MERGE);
    let frames: Vec<_> = (0..50).map(|index| noise(14 + index * 13, index)).collect();
    peer.write_all(&frames.iter().flat_map(|frame| prefixed(frame)).collect::<Vec<_>>()).unwrap();
    let mut buffers = bench.offer(50, 1526);
    for frame in &frames {
        assert_eq!(bench.received(&mut buffers).map(|packet| packet[12..].to_vec()), Some(frame.clone()));
    }
    for frame in &frames {
        bench.driver.offer(TRANSMIT, &[Buffer::Readable(&packet(frame))]);
    }
    bench.process(TRANSMIT as u32);
    // All of it with one call.
    let all = frames.iter().flat_map(|frame| prefixed(frame)).collect::<Vec<_>>();
    let mut read = vec![0; all.len() + 1];
    assert_eq!(peer.read(&mut read).unwrap(), all.len());
    assert_eq!(read[..all.len()], all);
}

#[test]
fn frame_that_arrives_in_parts_is_passed_when_it_is_whole() {
    let (mut bench, mut peer) = stream(MERGE);
    let frames = [noise(14, 1), noise(60, 2), noise(300, 3)];
    let bytes = frames.iter().flat_map(|frame| prefixed(frame)).collect::<Vec<_>>();
    let mut buffers = bench.offer(3, 1526);
    let mut received = Vec::new();
    for byte in bytes {
        peer.write_all(&[byte]).unwrap();
        bench.backend_changed();
        received.extend(bench.received(&mut buffers).map(|packet| packet[12..].to_vec()));
    }
    assert_eq!(received, frames);
}

#[test]
fn frames_that_do_not_fit_the_buffer_are_moved_to_its_front() {
    let (mut bench, mut peer) = stream(MERGE);
    let frames: Vec<_> = (0..24).map(|index| noise(65_553 - index * 1000, index)).collect();
    let bytes = frames.iter().flat_map(|frame| prefixed(frame)).collect::<Vec<_>>();
    let writer = std::thread::spawn(move || {
        peer.write_all(&bytes).unwrap();
        peer
    });
    for frame in &frames {
        bench.activate(MERGE);
        let mut buffers = bench.offer(3, 32_000);
        assert_eq!(&bench.wait_received(&mut buffers)[12..], frame, "a reset keeps what was received");
    }
    writer.join().unwrap();
}

#[test]
fn invalid_length_ends_the_connection() {
    for length in [0_u32, 1, 13, 65_554, 1 << 20, u32::MAX] {
        let (mut bench, mut peer) = stream(MERGE);
        let mut buffers = bench.offer(2, 1526);
        let _ = bench.driver.interrupts();
        peer.write_all(&[&prefixed(&noise(60, 1)), &length.to_be_bytes()[..], &[0; 5000]].concat()).unwrap();
        bench.backend_changed();
        assert_eq!(bench.received(&mut buffers).map(|packet| packet.len()), Some(72), "{length}");
        assert_eq!((bench.status(), bench.handle.is_connected()), (0, false));
        assert_eq!(bench.handle.event().read().unwrap(), 1);
        // The frame and the configuration.
        assert_eq!(bench.driver.interrupts(), 2);
        bench.backend_changed();
        assert_eq!(bench.driver.interrupts(), 0);
        assert_eq!(bench.send(&packet(&noise(60, 1))), (0, 1));
        assert!(matches!(peer.read(&mut [0; 8]), Ok(0) | Err(_)));
        // The driver starts again, and finds the link down.
        bench.activate(MERGE);
        assert_eq!((bench.status(), bench.send(&packet(&noise(60, 1)))), (0, (0, 2)));
    }
}

#[test]
fn peer_that_goes_away_takes_the_link_down() {
    // At rest, in the middle of a length, and of a frame.
    for part in [0, 2, 30] {
        let (mut bench, mut peer) = stream(MERGE);
        bench.offer(2, 1526);
        let _ = bench.driver.interrupts();
        peer.write_all(&prefixed(&noise(60, 1))[..part]).unwrap();
        drop(peer);
        bench.backend_changed();
        assert_eq!((bench.status(), bench.driver.interrupts(), bench.passed()), (0, 1, (0, 0)));
        assert_eq!(bench.send(&packet(&noise(60, 1))), (0, 1));
    }
}

#[test]
fn peer_that_goes_away_is_noticed_by_a_send() {
    let (mut bench, peer) = stream(MERGE);
    drop(peer);
    bench.driver.offer(TRANSMIT, &[Buffer::Readable(&packet(&noise(60, 1)))]);
    bench.process(TRANSMIT as u32);
    assert_eq!(bench.status(), 0);
}

#[test]
fn frames_for_a_slow_peer_wait_and_stay_whole() {
    let (mut bench, mut peer) = stream(MERGE);
    let frames: Vec<_> = (0..24).map(|index| noise(14 + index * 2840, index)).collect();
    for frame in &frames {
        bench.driver.offer(TRANSMIT, &[Buffer::Readable(&packet(frame))]);
    }
    bench.process(TRANSMIT as u32);
    let accepted = std::iter::from_fn(|| bench.driver.returned(TRANSMIT)).count();
    assert!((1..frames.len()).contains(&accepted), "{accepted}: some of 800 KiB wait with the guest");
    peer.set_nonblocking(true).unwrap();
    let (mut bytes, mut part) = (Vec::new(), [0; 777]);
    let wanted = frames.iter().flat_map(|frame| prefixed(frame)).collect::<Vec<_>>();
    while bytes.len() < wanted.len() {
        match peer.read(&mut part) {
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => bench.backend_changed(),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(bytes, wanted);
    assert_eq!(bench.sent(), (24, 0));
}

#[test]
fn half_sent_frame_is_completed_after_a_reset() {
    let (mut bench, mut peer) = stream(MERGE);
    for index in 0..8 {
        bench.driver.offer(TRANSMIT, &[Buffer::Readable(&packet(&noise(65_553, index)))]);
    }
    bench.process(TRANSMIT as u32);
    let accepted = std::iter::from_fn(|| bench.driver.returned(TRANSMIT)).count();
    assert!(accepted < 8);
    bench.activate(MERGE);
    peer.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < accepted * 65_557 {
        let _ = (&mut peer).take(70_000).read_to_end(&mut bytes);
        bench.backend_changed();
    }
    assert_eq!(bench.send(&packet(&noise(60, 99))).1, 0);
    let _ = peer.read_to_end(&mut bytes);
    let mut rest = &*bytes;
    for index in 0..accepted {
        assert_eq!(read_frame(&mut rest), noise(65_553, index));
    }
    assert_eq!(read_frame(&mut rest), noise(60, 99));
    assert!(rest.is_empty());
}

#[test]
fn flood_from_the_peer_is_bounded_by_the_turn() {
    let (mut bench, mut peer) = stream(MERGE);
    peer.set_nonblocking(true).unwrap();
    let frames = prefixed(&noise(1514, 1)).repeat(100);
    let offered = bench.offer(256, 1526);
    let stop = AtomicBool::new(false);
    let mut most = 0;
    for _ in 0..200 {
        // The peer may be in the middle of a frame then, and goes on with another: what it sends is
        // any bytes, which end the connection or are frames.
        let _ = peer.write(&frames);
        let before = bench.passed().0;
        bench.worker.as_mut().unwrap().process(worker::BACKEND, EventSet::IN, &mut Turn::new(&stop));
        most = most.max(bench.passed().0 - before);
        while let Some((head, _)) = bench.driver.returned(RECEIVE) {
            bench.driver.offer_head(RECEIVE, head);
        }
    }
    assert!((1..=1024).contains(&most), "{most}");
    drop(offered);
}

#[test]
fn no_offloads_are_offered_that_frames_without_headers_cannot_carry() {
    let (bench, _peer) = stream(0);
    // Checksums may be left to the guest, which it can switch off; MAC address, merged buffers, link
    // status, and what the control queue is for.
    let control = 0b1111 << 17 | 1 << 23;
    assert_eq!(bench.net.identity().features, 0b110 | 1 << 5 | 1 << 15 | 1 << 16 | control);
}

/// Receives on an event loop, whose waits are those of a machine.
#[test]
fn connection_is_made_again_when_there_is_a_peer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let connect = {
        let path = path.clone();
        move || UnixStream::connect(&path).map(Into::into)
    };
    let mut net = device(StreamSocket::reconnecting(Box::new(connect)).unwrap(), None);
    let handle = net.handle();
    assert!(!handle.is_connected(), "there is no peer yet");
    let mut driver = Driver::new(&[256, 256]);
    let events = EventLoop::spawn("net-0").unwrap();
    events.handle().add(net.activate(driver.activation(MERGE)).unwrap().remove(0)).unwrap();
    let mut frame = 0;
    for _ in 0..3 {
        let listener = UnixListener::bind(&path).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        while !handle.is_connected() {
            std::thread::yield_now();
        }
        for _ in 0..5 {
            frame += 1;
            let offered = driver.offer(RECEIVE, &[Buffer::Writable(1526)]);
            peer.write_all(&prefixed(&noise(60, frame))).unwrap();
            assert_eq!(driver.wait_returned(RECEIVE), (offered.head, 72));
            assert_eq!(driver.contents(&offered, 0)[12..72], noise(60, frame));
            driver.offer(TRANSMIT, &[Buffer::Readable(&packet(&noise(61, frame)))]);
            assert_eq!(read_frame(&mut peer), noise(61, frame));
        }
        // Half a frame, which the next connection must not continue.
        peer.write_all(&prefixed(&noise(60, 1))[..40]).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop((peer, listener));
        while handle.is_connected() {
            std::thread::yield_now();
        }
    }
    assert!(handle.event().read().unwrap() >= 6);
}

/// Sends on an event loop to a peer that reads slowly.
#[test]
fn sending_goes_on_when_the_peer_reads_again() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let mut net = device(StreamSocket::new(ours.into()).unwrap(), None);
    let mut driver = Driver::new(&[256, 256]);
    let events = EventLoop::spawn("net-0").unwrap();
    events.handle().add(net.activate(driver.activation(MERGE)).unwrap().remove(0)).unwrap();
    peer.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    // More than the buffers of both sides hold.
    for index in 0..30 {
        driver.offer(TRANSMIT, &[Buffer::Readable(&packet(&noise(60_000, index)))]);
    }
    for index in 0..30 {
        assert_eq!(read_frame(&mut peer), noise(60_000, index));
    }
    (0..30).for_each(|_| _ = driver.wait_returned(TRANSMIT));
}
