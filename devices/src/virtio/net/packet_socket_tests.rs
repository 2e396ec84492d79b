// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device on a packet socket at one end of a veth pair, with the host's IP stack or
//! another packet socket at the other.
#![allow(unsafe_code, reason = "packet sockets have no safe wrapper")]

use super::bench::*;
use super::*;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A namespace with a pair `v0` and `v1`. The latter has the host's address.
fn enter() -> bool {
    enter_namespace(&[
        "link add v0 mtu 1500 type veth peer name v1",
        "link set v0 up",
        "link set v1 address 52:54:00:00:00:01 up",
        "address add 10.0.0.1/24 dev v1",
        "neighbour add 10.0.0.2 lladdr 52:54:00:00:00:02 dev v1",
    ])
}

/// A packet socket on the interface of this name.
fn open(interface: &str) -> OwnedFd {
    let any = UdpSocket::bind("0.0.0.0:0").unwrap();
    let index = rustix::net::netdevice::name_to_index(&any, interface).unwrap();
    // SAFETY: it makes a descriptor.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0);
    // SAFETY: the descriptor is new.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: sockaddr_ll is plain data.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let size = size_of_val(&address) as u32;
    // SAFETY: the address has this size.
    assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) }, 0);
    socket
}

/// A frame of the bench's, addressed to the other end and of no protocol.
fn local(length: usize, seed: usize) -> Vec<u8> {
    let mut frame = noise(length, seed);
    frame[..6].copy_from_slice(&[2; 6]);
    frame[6..12].copy_from_slice(&MAC);
    packet(&frame)
}

fn device_on(interface: &str, features: u64) -> Bench {
    let backend = Backend::from(PacketSocket::new(open(interface)).unwrap());
    let features = features & (backend.features() | 1 << 15);
    bench(backend, features)
}

#[test]
fn datagrams_pass_in_both_directions() {
    if !enter() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bench = device_on("v0", ALL);
    assert_eq!(bench.send(&datagram(socket.local_addr().unwrap().port(), b"from the guest")), (1, 0));
    let mut received = [0; 64];
    let length = socket.recv(&mut received).unwrap();
    assert_eq!(&received[..length], b"from the guest");
    let mut buffers = bench.offer(1, 1526);
    socket.send_to(b"from the host", "10.0.0.2:7").unwrap();
    let packet = bench.wait_received(&mut buffers);
    assert_eq!((&packet[12..18], &packet[54..]), (&MAC[..], &b"from the host"[..]));
    assert_eq!(packet[0], 1, "veth leaves the checksum to the guest");
    // What the device has sent itself is not received.
    assert_eq!(bench.passed(), (1, 0));
}

#[test]
fn checksum_is_completed_for_a_driver_that_cannot() {
    if !enter() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    let mut bench = device_on("v0", 0);
    let mut buffers = bench.offer(1, 1526);
    socket.send_to(b"from the host", "10.0.0.2:7").unwrap();
    let packet = bench.wait_received(&mut buffers);
    assert_eq!(packet[..10], [0; 10]);
    let udp = &packet[12 + 34..];
    let pseudo = pseudo_sum(17, udp.len() as u16);
    let sum = [&pseudo[..], udp, &[0]].concat();
    let sum = sum.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
}

#[test]
fn segments_and_lengths_pass_from_one_device_to_another() {
    if !enter() || !ip("address flush dev v1") {
        return;
    }
    let (mut one, mut other) = (device_on("v0", ALL), device_on("v1", ALL));
    for (index, length) in [14, 15, 59, 60, 61, 1513, 1514].into_iter().enumerate() {
        let sent = local(length, index);
        assert_eq!(one.send(&sent).1, 0, "{length}");
        let mut buffers = other.offer(1, 1526);
        let received = other.wait_received(&mut buffers);
        assert_eq!(received[12..], sent[12..], "{length}");
    }
    // Larger than the interface's MTU: the kernel refuses it.
    let (accepted, dropped) = one.sent();
    assert_eq!(one.send(&local(1519, 1)), (accepted, dropped + 1));

    // TCP over IPv4 and IPv6, and UDP: flags, type, header length, segment size, checksum.
    let tcp =
        [&[0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0][..], &noise(20_000, 5)].concat();
    let mut tcp4 = ip_packet(6, &tcp);
    tcp4[..10].copy_from_slice(&[1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0]);
    let mut tcp6 = tcp4[..24].to_vec();
    tcp6.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    tcp6.extend((tcp.len() as u16).to_be_bytes());
    tcp6.extend([6, 64]);
    tcp6.extend([0xfd; 16]);
    tcp6.extend([0xfc; 16]);
    tcp6.extend(&tcp);
    tcp6[..10].copy_from_slice(&[1, 4, 74, 0, 0xa8, 5, 54, 0, 16, 0]);
    let mut udp = datagram(9, &noise(20_000, 6));
    udp[..10].copy_from_slice(&[1, 5, 42, 0, 0xe8, 3, 34, 0, 6, 0]);
    for sent in [tcp4, tcp6, udp] {
        if sent[1] == 5 && !has_udp(&one) {
            continue;
        }
        let before = one.sent();
        assert_eq!(one.send(&sent), (before.0 + 1, before.1), "type {}", sent[1]);
        let mut buffers = other.offer(16, 1526);
        let received = other.wait_received(&mut buffers);
        assert_eq!(received[..2], sent[..2]);
        assert_eq!((&received[4..10], &received[12..]), (&sent[4..10], &sent[12..]), "type {}", sent[1]);
        other.activate(ALL);
    }
}

fn has_udp(bench: &Bench) -> bool {
    use crate::virtio::VirtioDevice;
    bench.net.identity().features & 1 << 56 != 0
}

#[test]
fn vlan_tag_reaches_the_guest() {
    if !enter() || !ip("address flush dev v1") {
        return;
    }
    let (mut one, mut other) = (device_on("v0", ALL), device_on("v1", ALL));
    let mut sent = local(100, 1);
    sent[24..28].copy_from_slice(&[0x81, 0, 0x20, 5]);
    assert_eq!(one.send(&sent), (1, 0));
    let mut buffers = other.offer(1, 1526);
    assert_eq!(other.wait_received(&mut buffers)[12..], sent[12..]);
}

#[test]
fn link_follows_the_interface() {
    if !enter() {
        return;
    }
    let mut bench = device_on("v0", ALL);
    assert_eq!(bench.status(), 1);
    assert!(ip("link set v1 down"));
    bench.wait_link(false);
    assert!(ip("link set v1 up"));
    bench.wait_link(true);
    assert!(ip("link set v0 down"));
    bench.wait_link(false);
    assert_eq!(bench.send(&local(60, 1)), (0, 1));
    assert!(ip("link set v0 up"));
    bench.wait_link(true);
    assert_eq!(bench.send(&local(60, 1)), (1, 1));
    assert!(ip("link delete v0"));
    bench.wait_link(false);
    assert_eq!(bench.send(&local(60, 1)), (1, 2));
    bench.backend_changed();
    assert_eq!(bench.status(), 0);
}

#[test]
fn floods_in_both_directions_are_bounded() {
    if !enter() || !ip("address flush dev v1") {
        return;
    }
    let (mut one, mut other) = (device_on("v0", ALL), device_on("v1", ALL));
    let offered = one.driver.offer(TRANSMIT, &[crate::testing::Buffer::Readable(&local(1400, 1))]);
    let mut buffers = Vec::new();
    for round in 0..3000 {
        one.process(TRANSMIT as u32);
        while one.driver.returned(TRANSMIT).is_some() {
            one.driver.offer_head(TRANSMIT, offered.head);
        }
        if round == 2000 {
            // The kernel has queued what its limit allows, and has dropped the rest.
            buffers = other.offer(256, 1526);
        }
        other.backend_changed();
    }
    let received = std::iter::from_fn(|| other.received(&mut buffers)).count();
    assert_eq!(received, 256);
    assert!(one.sent().0 > 256);
}

#[test]
fn socket_must_be_a_bound_packet_socket() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(PacketSocket::new(udp.into()).is_err());
    if !enter() {
        return;
    }
    // SAFETY: it makes a descriptor.
    let unbound = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)) };
    assert_eq!(PacketSocket::new(unbound).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
