// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device on a real tap, with the host's IP stack at the other end.
#![allow(unsafe_code, reason = "the ioctls of a tap have no safe wrapper")]

use super::bench::*;
use super::*;
use crate::testing::Buffer;
use crate::turn::Turn;
use crate::virtio::VirtioDevice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const CSUM: u64 = 1;
const MERGE: u64 = 1 << 15;

/// A namespace with a tap `t0`.
fn enter() -> bool {
    enter_namespace(&[
        "tuntap add t0 mode tap",
        "link set t0 address 52:54:00:00:00:01 up",
        "address add 10.0.0.1/24 dev t0",
        "neighbour add 10.0.0.2 lladdr 52:54:00:00:00:02 dev t0",
    ])
}

fn tap(features: u64) -> Bench {
    let backend = Backend::from(Tap::open("t0", 1).unwrap());
    let features = features & (backend.features() | MERGE);
    let bench = bench(backend, features);
    // The host's kernel reports the carrier some time later, and drops what is sent until then.
    while !shows("t0", "state UP") {
        std::thread::yield_now();
    }
    bench
}

fn host_socket() -> UdpSocket {
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

#[test]
fn datagrams_pass_in_both_directions_and_are_counted() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(0);
    assert_eq!(bench.send(&datagram(port(&socket), b"from the guest")), (1, 0));
    let mut received = [0; 64];
    let length = socket.recv(&mut received).unwrap();
    assert_eq!(&received[..length], b"from the guest");

    let mut buffers = bench.offer(1, 1526);
    assert_eq!(bench.received(&mut buffers), None);
    socket.send_to(b"from the host", "10.0.0.2:7").unwrap();
    let packet = bench.wait_received(&mut buffers);
    assert_eq!((&packet[12..18], &packet[54..]), (&MAC[..], &b"from the host"[..]));
    let counters = bench.handle.counters();
    let counts = [&counters.rx_packets, &counters.rx_bytes, &counters.tx_packets, &counters.tx_bytes];
    assert_eq!(counts.map(|count| count.load(Relaxed)), [1, 55, 1, 56]);
}

#[test]
fn frames_wait_for_buffers_and_are_dropped_if_too_large() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(0);
    socket.send_to(&[1; 1400], "10.0.0.2:7").unwrap();
    socket.send_to(b"small", "10.0.0.2:7").unwrap();
    bench.backend_changed();
    let mut small = bench.offer(1, 100);
    assert_eq!(&bench.wait_received(&mut small)[54..], b"small");
    assert_eq!(bench.passed(), (1, 1));
}

#[test]
fn invalid_frames_of_the_guest_are_dropped_and_counted() {
    if !enter() {
        return;
    }
    let mut bench = tap(0);
    let good = datagram(9, b"x");
    let mut with_checksum = good.clone();
    with_checksum[0] = 1;
    let bad = [vec![0; 5], vec![0; 12 + 13], vec![0; 12 + 65_554], with_checksum];
    for (dropped, packet) in (1..).zip(&bad) {
        assert_eq!(bench.send(packet), (0, dropped));
    }
    assert_eq!(bench.send(&good), (1, bad.len() as u64));
}

#[test]
fn host_completes_a_checksum_of_the_guest() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(CSUM);
    let mut packet = datagram(port(&socket), b"sum me");
    // Requests a checksum from the UDP header on, at offset 6 of it, where that of the pseudo
    // header is.
    (packet[0], packet[6], packet[8]) = (1, 34, 6);
    packet[12 + 40..12 + 42].copy_from_slice(&pseudo_sum(17, 14));
    assert_eq!(bench.send(&packet), (1, 0));
    let mut received = [0; 16];
    let length = socket.recv(&mut received).unwrap();
    assert_eq!(&received[..length], b"sum me");
}

/// Has the host's kernel cut what `socket` sends to datagrams of 1000 bytes.
fn segment(socket: &UdpSocket) -> bool {
    let size: libc::c_int = 1000;
    // SAFETY: the option is read as an int from the pointer.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), 4) };
    result == 0
}

#[test]
fn segments_of_udp_pass_uncut_in_both_directions() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(ALL);
    if bench.net.identity().features & 1 << 56 == 0 {
        // Before Linux 6.2.
        return;
    }
    let payload = noise(8_500, 1);
    let mut packet = datagram(port(&socket), &payload);
    // Checksum as above; segments of UDP, headers of 42 bytes, 1000 bytes each.
    (packet[0], packet[1], packet[2], packet[6], packet[8]) = (1, 5, 42, 34, 6);
    packet[4..6].copy_from_slice(&1000_u16.to_le_bytes());
    packet[12 + 40..12 + 42].copy_from_slice(&pseudo_sum(17, 8508));
    assert_eq!(bench.send(&packet), (1, 0));
    let mut received = Vec::new();
    while received.len() < payload.len() {
        let mut datagram = [0; 2000];
        let length = socket.recv(&mut datagram).unwrap();
        assert_eq!(length, 1000.min(payload.len() - received.len()));
        received.extend_from_slice(&datagram[..length]);
    }
    assert_eq!(received, payload);

    assert!(segment(&socket), "the kernel knows UDP_SEGMENT since 4.18");
    let mut buffers = bench.offer(16, 1526);
    socket.send_to(&payload, "10.0.0.2:7").unwrap();
    let packet = bench.wait_received(&mut buffers);
    assert_eq!(&packet[54..], payload);
    assert_eq!((packet[0], packet[1], &packet[4..6]), (1, 5, &1000_u16.to_le_bytes()[..]));
    assert_eq!(packet[10..12], [6, 0], "8554 bytes in buffers of 1526");
}

#[test]
fn segments_are_cut_for_a_driver_without_offloads() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    assert!(segment(&socket));
    let mut bench = tap(0);
    let mut buffers = bench.offer(4, 1526);
    socket.send_to(&[7; 2500], "10.0.0.2:7").unwrap();
    let lengths = [(); 3].map(|()| {
        let packet = bench.wait_received(&mut buffers);
        assert_eq!(packet[..10], [0; 10]);
        packet.len() - 54
    });
    assert_eq!(lengths, [1000, 1000, 500]);
}

/// The host's kernel rejects such a set, which is the driver's mistake and not the host's.
#[test]
fn driver_that_accepts_offloads_without_those_they_require_gets_none() {
    if !enter() {
        return;
    }
    let mut bench = tap(0);
    for features in [1 << 7, 1 << 9, 1 << 54, 1 << 1 | 1 << 9] {
        bench.activate(features);
        assert_eq!(bench.status(), 1, "{features:#x}");
    }
}

#[test]
fn offloads_that_the_driver_switches_off_are_done_by_the_host() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    assert!(segment(&socket));
    let mut bench = tap(ALL);
    if bench.net.identity().features & 1 << 54 == 0 {
        // Before Linux 6.2.
        return;
    }
    bench.activate(ALL | 1 << 17 | 1 << 2);
    let mut buffers = bench.offer(8, 1526);
    let mut lengths = |bench: &mut Bench, count: usize| -> Vec<usize> {
        socket.send_to(&[7; 2500], "10.0.0.2:7").unwrap();
        (0..count).map(|_| bench.wait_received(&mut buffers).len() - 54).collect()
    };
    assert_eq!(lengths(&mut bench, 1), [2500]);
    let none = [Buffer::Readable(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Buffer::Writable(1)];
    let offered = bench.driver.offer(CONTROL, &none);
    bench.process(worker::CONTROL);
    assert_eq!(bench.driver.contents(&offered, 1), [0]);
    assert_eq!(lengths(&mut bench, 3), [1000, 1000, 500]);
}

#[test]
fn every_length_passes_the_tap_from_the_guest() {
    if !enter() {
        return;
    }
    let mut bench = tap(0);
    // The host's kernel accepts what has an Ethernet header.
    let lengths = [14, 15, 59, 60, 61, 1513, 1514, 1515, 9000, 65_535, 65_552, 65_553];
    for (index, &length) in lengths.iter().enumerate() {
        assert_eq!(bench.send(&packet(&noise(length, index))), (index as u64 + 1, 0), "{length}");
    }
}

#[test]
fn frame_in_any_number_of_pieces_arrives_as_it_is() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(0);
    let payload: Vec<u8> = (0..60_000).map(|at| (at * 7 + at / 251) as u8).collect();
    let packet = datagram(port(&socket), &payload);
    // As many as fit a call, and more, which are copied.
    for pieces in [1, 2, 3, 254, 255, 256] {
        let buffers: Vec<_> = packet.chunks(packet.len().div_ceil(pieces)).map(Buffer::Readable).collect();
        assert_eq!(buffers.len(), pieces);
        bench.driver.offer(TRANSMIT, &buffers);
        bench.process(TRANSMIT as u32);
        bench.driver.returned(TRANSMIT).expect("the chain is returned");
        let mut received = vec![0; 65_536];
        let length = socket.recv(&mut received).unwrap();
        assert!(received[..length] == payload, "{pieces} pieces");
    }
}

#[test]
fn deleted_tap_takes_the_link_down_and_the_worker_goes_on() {
    if !enter() {
        return;
    }
    let mut bench = tap(0);
    assert_eq!(bench.status(), 1);
    bench.offer(1, 1526);
    let _ = bench.driver.interrupts();
    assert!(ip("link delete t0"));
    bench.wait_link(false);
    assert_eq!((bench.status(), bench.driver.interrupts()), (0, 1));
    assert_eq!(bench.handle.event().read().unwrap(), 1);
    assert_eq!(bench.send(&datagram(9, b"x")), (0, 1));
    assert_eq!(bench.driver.interrupts(), 1, "for what was sent");
    bench.backend_changed();
    assert_eq!(bench.driver.interrupts(), 0);
    // The driver may start again, and finds the same.
    bench.activate(ALL);
    assert_eq!(bench.status(), 0);
    assert_eq!(bench.send(&datagram(9, b"x")), (0, 2));
}

#[test]
fn tap_that_is_down_takes_the_link_down_and_works_again_when_up() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(0);
    let mut buffers = bench.offer(1, 1526);
    assert!(ip("link set t0 down"));
    bench.wait_link(false);
    assert_eq!((bench.status(), bench.send(&packet(&noise(60, 1)))), (0, (0, 1)));
    assert!(ip("link set t0 up") && ip("neighbour replace 10.0.0.2 lladdr 52:54:00:00:00:02 dev t0"));
    bench.wait_link(true);
    assert_eq!((bench.status(), bench.send(&packet(&noise(60, 1)))), (1, (1, 1)));
    while !shows("t0", "state UP") {
        std::thread::yield_now();
    }
    socket.send_to(b"again", "10.0.0.2:7").unwrap();
    assert_eq!(&bench.wait_received(&mut buffers)[54..], b"again");
    assert_eq!(bench.handle.event().read().unwrap(), 2);
}

#[test]
fn renamed_tap_works_and_one_that_was_moved_is_down_until_it_carries_frames() {
    if !enter() {
        return;
    }
    let mut bench = tap(0);
    let mut buffers = bench.offer(1, 1526);
    assert!(ip("link set t0 name t1"));
    bench.backend_changed();
    assert!(bench.handle.is_up());
    // Another namespace, held by a thread of it.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (moved, is_moved) = std::sync::mpsc::channel();
    let there = std::thread::spawn(move || {
        assert!(enter_namespace(&[]));
        // SAFETY: it has no arguments.
        ready.send(unsafe { libc::gettid() }).unwrap();
        is_moved.recv().unwrap();
        assert!(ip("link set t1 address 52:54:00:00:00:01 up") && ip("address add 10.0.0.1/24 dev t1"));
        assert!(ip("neighbour add 10.0.0.2 lladdr 52:54:00:00:00:02 dev t1"));
        while !shows("t1", "state UP") {
            std::thread::yield_now();
        }
        UdpSocket::bind("10.0.0.1:0").unwrap().send_to(b"from there", "10.0.0.2:7").unwrap();
        is_moved.recv().unwrap();
    });
    let thread = is_ready.recv().unwrap();
    assert!(ip(&format!("link set t1 netns {thread}")));
    bench.wait_link(false);
    moved.send(()).unwrap();
    assert_eq!(&bench.wait_received(&mut buffers)[54..], b"from there");
    assert!(bench.handle.is_up());
    moved.send(()).unwrap();
    there.join().unwrap();
}

#[test]
fn flood_from_the_host_ends_a_turn_and_stops_at_the_last_buffer() {
    if !enter() {
        return;
    }
    let socket = host_socket();
    let mut bench = tap(ALL);
    for _ in 0..2000 {
        // What the tap's queue does not hold is dropped.
        let _ = socket.send_to(&[5; 1400], "10.0.0.2:7");
    }
    let mut buffers = bench.offer(100, 1526);
    let packets = std::iter::from_fn(|| bench.received(&mut buffers)).count();
    assert_eq!(packets, 100);
    // Buffers again: what waits is received at once.
    let mut buffers = bench.offer(100, 1526);
    assert!(bench.received(&mut buffers).is_some());
    let stop = std::sync::atomic::AtomicBool::new(true);
    let before = bench.passed();
    bench.worker.as_mut().unwrap().start(&mut Turn::new(&stop));
    assert_eq!(bench.passed(), before, "no frame after the turn is over");
}

#[test]
fn open_has_an_error_for_each_unusable_tap() {
    if !enter() {
        return;
    }
    assert!(ip("tuntap add tun0 mode tun"));
    let error = |name: &str| Tap::open(name, 1).unwrap_err();
    assert!(matches!(error("none0"), TapError::Missing(_)));
    assert!(!std::fs::read_to_string("/proc/net/dev").unwrap().contains("none0"));
    assert!(matches!(error("tun0"), TapError::Flags(_)));
    assert!(matches!(error("lo"), TapError::Flags(_)));
    for name in ["", "a/b", "0123456789abcdef", ".."] {
        assert!(matches!(error(name), TapError::Name(_) | TapError::Missing(_)), "{name}");
    }
    let _holder = Tap::open("t0", 1).unwrap();
    assert!(matches!(error("t0"), TapError::Busy(_)));
}

#[test]
fn inherited_descriptor_must_be_an_attached_tap() {
    assert!(matches!(Tap::inherit(tempfile::tempfile().unwrap().into()), Err(TapError::Flags(_))));
    if !enter() {
        return;
    }
    let unattached = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    assert!(matches!(Tap::inherit(unattached.into()), Err(TapError::Flags(_))));
    let attached = Tap::open("t0", 1).unwrap();
    Tap::inherit(attached.descriptor()).unwrap();
}

#[test]
fn inherited_tap_gets_the_send_buffer_of_one_by_name() {
    if !enter() {
        return;
    }
    let send_buffer = |tap: &Tap| {
        let mut size: libc::c_int = 0;
        // SAFETY: the command writes an int.
        assert_eq!(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETSNDBUF, &mut size) }, 0);
        size
    };
    let attached = Tap::open("t0", 1).unwrap();
    assert_eq!(send_buffer(&attached), libc::c_int::MAX);
    let small: libc::c_int = 1;
    // SAFETY: the command reads an int.
    assert_eq!(unsafe { libc::ioctl(attached.as_raw_fd(), libc::TUNSETSNDBUF, &small) }, 0);
    let inherited = Tap::inherit(attached.descriptor()).unwrap();
    assert_eq!(send_buffer(&inherited), libc::c_int::MAX);
}
