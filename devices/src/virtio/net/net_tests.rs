// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device on a real tap, in a network namespace of each test's own thread, with the
//! host's IP stack at the other end. Needs root; without it the tests are skipped and print why.
#![allow(unsafe_code, reason = "unshare and the ioctls of a tap have no safe wrapper")]

use super::*;
use crate::testing::{Buffer, Driver};
use crate::turn::Turn;
use crate::virtio::{VirtioDevice, Worker};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const TAP_TOKEN: u32 = 2;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const HOST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// Addresses of the host's and the guest's end.
const HOST: [u8; 4] = [10, 0, 0, 1];
const GUEST: [u8; 4] = [10, 0, 0, 2];
const CSUM: u64 = 1;

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

fn is_up() -> bool {
    let shown = Command::new("ip").args(["link", "show", "t0"]).output().unwrap();
    String::from_utf8_lossy(&shown.stdout).contains("state UP")
}

/// Moves this thread to a network namespace with a tap `t0`, if that is permitted.
fn enter_namespace() -> bool {
    // SAFETY: it changes the network namespace of the calling thread, and nothing that Rust relies
    // upon.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    let ready = entered
        && std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").is_ok()
        && ip("tuntap add t0 mode tap")
        && ip("link set t0 address 52:54:00:00:00:01 up")
        && ip("address add 10.0.0.1/24 dev t0")
        && ip("neighbour add 10.0.0.2 lladdr 52:54:00:00:00:02 dev t0");
    if !ready {
        #[allow(clippy::disallowed_macros, reason = "a skipped test prints its reason")]
        {
            eprintln!("skipped: taps and network namespaces are not permitted here");
        }
    }
    ready
}

struct Bench {
    net: Net,
    driver: Driver,
    worker: Box<dyn Worker>,
    counters: Arc<NetCounters>,
}

fn bench(features: u64) -> Bench {
    let mut net = Net::open(NetConfig {
        name: "net-0".to_owned(),
        backend: Tap::open("t0").unwrap().into(),
        mac: MAC,
        mtu: None,
    })
    .unwrap();
    let driver = Driver::new(&[256, 256]);
    // The host's kernel reports the carrier some time later, and drops what is sent until then.
    while !is_up() {
        std::thread::yield_now();
    }
    let mut worker = net.activate(driver.activation(features)).unwrap().remove(0);
    worker.start(&mut Turn::unlimited());
    let counters = net.handle().counters();
    Bench { net, driver, worker, counters }
}

impl Bench {
    fn tap_changed(&mut self) {
        self.worker.process(TAP_TOKEN, vmm_sys_util::epoll::EventSet::IN, &mut Turn::unlimited());
    }

    /// Length of the next packet that arrives, which takes some time under load.
    fn wait_received(&mut self) -> usize {
        for _ in 0..1_000_000 {
            self.tap_changed();
            if let Some((_, length)) = self.driver.returned(RECEIVE) {
                return length as usize;
            }
            std::thread::yield_now();
        }
        panic!("nothing was received");
    }

    /// Sends one packet, and returns how many the host has accepted and dropped so far.
    fn send(&mut self, packet: &[u8]) -> (u64, u64) {
        let offered = self.driver.offer(TRANSMIT, &[Buffer::Readable(packet)]);
        self.worker.process(TRANSMIT as u32, vmm_sys_util::epoll::EventSet::IN, &mut Turn::unlimited());
        assert_eq!(self.driver.returned(TRANSMIT), Some((offered.head, 0)));
        (self.counters.tx_packets.load(Relaxed), self.counters.tx_dropped.load(Relaxed))
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn checksum(sum: u32) -> [u8; 2] {
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// A frame from guest to host with this datagram, behind a virtio header that requests nothing.
fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = 8 + payload.len() as u16;
    let mut ip =
        [&[0x45, 0], &(20 + udp_length).to_be_bytes()[..], &[0, 1, 0, 0, 64, 17, 0, 0], &GUEST, &HOST].concat();
    let header_checksum = checksum(sum(&ip));
    ip[10..12].copy_from_slice(&header_checksum);
    let udp = [&9u16.to_be_bytes()[..], &port.to_be_bytes(), &udp_length.to_be_bytes(), &[0, 0], payload].concat();
    [&[0; 12][..], &HOST_MAC, &MAC, &[8, 0], &ip, &udp].concat()
}

#[test]
fn datagrams_pass_in_both_directions_and_are_counted() {
    if !enter_namespace() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut bench = bench(0);
    assert_eq!(bench.send(&datagram(port, b"from the guest")), (1, 0));
    let mut received = [0; 64];
    let length = socket.recv(&mut received).unwrap();
    assert_eq!(&received[..length], b"from the guest");

    let buffer = bench.driver.offer(RECEIVE, &[Buffer::Writable(1526)]);
    bench.worker.start(&mut Turn::unlimited());
    assert_eq!(bench.driver.returned(RECEIVE), None);
    socket.send_to(b"from the host", "10.0.0.2:7").unwrap();
    let length = bench.wait_received();
    let packet = &bench.driver.contents(&buffer, 0)[..length];
    assert_eq!(packet[10..12], [1, 0], "the number of merged buffers");
    assert_eq!((&packet[12..18], &packet[54..]), (&MAC[..], &b"from the host"[..]));
    let counters = &bench.counters;
    let counts = [&counters.rx_packets, &counters.rx_bytes, &counters.tx_packets, &counters.tx_bytes];
    assert_eq!(counts.map(|count| count.load(Relaxed)), [1, 55, 1, 56]);
}

#[test]
fn frames_wait_for_buffers_and_are_dropped_if_too_large() {
    if !enter_namespace() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    let mut bench = bench(0);
    socket.send_to(&[1; 1400], "10.0.0.2:7").unwrap();
    socket.send_to(b"small", "10.0.0.2:7").unwrap();
    bench.tap_changed();
    let small = bench.driver.offer(RECEIVE, &[Buffer::Writable(100)]);
    let length = bench.wait_received();
    assert_eq!(&bench.driver.contents(&small, 0)[54..length], b"small");
    assert_eq!(bench.counters.rx_dropped.load(Relaxed), 1);
}

#[test]
fn invalid_frames_of_the_guest_are_dropped_and_counted() {
    if !enter_namespace() {
        return;
    }
    let mut bench = bench(0);
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
    if !enter_namespace() {
        return;
    }
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut bench = bench(CSUM);
    let mut packet = datagram(socket.local_addr().unwrap().port(), b"sum me");
    // Requests a checksum from the UDP header on, at offset 6 of it, where that of the pseudo
    // header is.
    (packet[0], packet[6], packet[8]) = (1, 34, 6);
    let pseudo = !u16::from_be_bytes(checksum(sum(&[&GUEST[..], &HOST, &[0, 17, 0, 14]].concat())));
    packet[12 + 40..12 + 42].copy_from_slice(&pseudo.to_be_bytes());
    assert_eq!(bench.send(&packet), (1, 0));
    let mut received = [0; 16];
    let length = socket.recv(&mut received).unwrap();
    assert_eq!(&received[..length], b"sum me");
}

#[test]
fn deleted_tap_takes_the_link_down_and_the_worker_goes_on() {
    if !enter_namespace() {
        return;
    }
    let mut bench = bench(0);
    let mut status = [0xff; 2];
    bench.net.read_config(6, &mut status);
    assert_eq!(status, [1, 0]);
    bench.driver.offer(RECEIVE, &[Buffer::Writable(1526)]);
    bench.worker.start(&mut Turn::unlimited());
    assert!(ip("link delete t0"));
    bench.tap_changed();
    bench.net.read_config(6, &mut status);
    assert_eq!((status, bench.driver.interrupts()), ([0, 0], 1));
    assert_eq!(bench.send(&datagram(9, b"x")), (0, 1));
    assert_eq!(bench.driver.interrupts(), 1, "for what was sent");
    bench.tap_changed();
    assert_eq!(bench.driver.interrupts(), 0);
}

#[test]
fn tap_that_is_down_drops_frames_and_works_again_when_up() {
    if !enter_namespace() {
        return;
    }
    let mut bench = bench(0);
    assert!(ip("link set t0 down"));
    assert_eq!(bench.send(&datagram(9, b"x")), (0, 1));
    assert!(ip("link set t0 up"));
    // Frames to the host need no carrier, only an interface that is up.
    assert_eq!(bench.send(&datagram(9, b"x")), (1, 1));
}

#[test]
fn open_has_an_error_for_each_unusable_tap() {
    if !enter_namespace() {
        return;
    }
    assert!(ip("tuntap add tun0 mode tun") && ip("tuntap add many0 mode tap multi_queue"));
    let error = |name: &str| Tap::open(name).unwrap_err();
    assert!(matches!(error("none0"), TapError::Missing(_)));
    assert!(!std::fs::read_to_string("/proc/net/dev").unwrap().contains("none0"));
    assert!(matches!(error("tun0"), TapError::Flags(_)));
    assert!(matches!(error("many0"), TapError::Flags(_)));
    assert!(matches!(error("lo"), TapError::Flags(_)));
    for name in ["", "a/b", "0123456789abcdef", ".."] {
        assert!(matches!(error(name), TapError::Name(_) | TapError::Missing(_)), "{name}");
    }
    let _holder = Tap::open("t0").unwrap();
    assert!(matches!(error("t0"), TapError::Busy(_)));
}

#[test]
fn inherited_descriptor_must_be_an_attached_tap() {
    assert!(matches!(Tap::inherit(tempfile::tempfile().unwrap().into()), Err(TapError::Flags(_))));
    if !enter_namespace() {
        return;
    }
    let unattached = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    assert!(matches!(Tap::inherit(unattached.into()), Err(TapError::Flags(_))));
    let attached = Tap::open("t0").unwrap();
    Tap::inherit(attached.descriptor()).unwrap();
}

#[test]
fn inherited_tap_gets_the_send_buffer_of_one_by_name() {
    if !enter_namespace() {
        return;
    }
    let send_buffer = |tap: &Tap| {
        let mut size: libc::c_int = 0;
        // SAFETY: the command writes an int.
        assert_eq!(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETSNDBUF, &mut size) }, 0);
        size
    };
    let attached = Tap::open("t0").unwrap();
    assert_eq!(send_buffer(&attached), libc::c_int::MAX);
    let small: libc::c_int = 1;
    // SAFETY: the command reads an int.
    assert_eq!(unsafe { libc::ioctl(attached.as_raw_fd(), libc::TUNSETSNDBUF, &small) }, 0);
    let inherited = Tap::inherit(attached.descriptor()).unwrap();
    assert_eq!(send_buffer(&inherited), libc::c_int::MAX);
}
