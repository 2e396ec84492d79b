// SPDX-License-Identifier: Apache-2.0 OR MIT
//! For the tests of the network device: a device with a driver in memory, frames, and network
//! namespaces of the tests' own threads. The latter need root; without it a test is skipped and
//! prints why.
#![allow(unsafe_code, reason = "unshare has no safe wrapper without its own hazards")]

use super::*;
use crate::rate_limit::RateLimits;
use crate::testing::{Buffer, Driver, Offered};
use crate::turn::Turn;
use crate::virtio::{VirtioDevice, Worker};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use vmm_sys_util::epoll::EventSet;

pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
pub(super) const CONTROL: usize = 2;
pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
pub(super) const HOST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// Addresses of the host's and the guest's end.
pub(super) const HOST: [u8; 4] = [10, 0, 0, 1];
pub(super) const GUEST: [u8; 4] = [10, 0, 0, 2];
/// Merged receive buffers, and every offload.
pub(super) const ALL: u64 = 1 << 15 | 0b11_1011_1000_0011 | 0b111 << 54;

/// A device whose worker is called by the test.
pub(super) struct Bench {
    pub(super) net: Net,
    pub(super) driver: Driver,
    pub(super) worker: Option<Box<dyn Worker>>,
    pub(super) handle: NetHandle,
}

pub(super) fn device(backend: impl Into<Backend>, mtu: Option<u16>) -> Net {
    Net::open(NetConfig {
        name: "net-0".to_owned(),
        backend: backend.into(),
        internal_host: None,
        mac: MAC,
        mtu,
        limits: RateLimits::default(),
    })
    .unwrap()
}

/// An activated device, whose driver accepted `features`.
pub(super) fn bench(backend: impl Into<Backend>, features: u64) -> Bench {
    let net = device(backend, None);
    let driver = Driver::new(&[256, 256, 64]);
    let mut bench = Bench { handle: net.handle(), net, driver, worker: None };
    bench.activate(features);
    bench
}

impl Bench {
    /// The driver resets the device and starts again.
    pub(super) fn activate(&mut self, features: u64) {
        // Buffers of a driver in memory are never used again, so this is a new one.
        self.worker = None;
        self.driver = Driver::new(&[256, 256, 64]);
        let mut worker = self.net.activate(self.driver.activation(features)).unwrap().remove(0);
        worker.start(&mut Turn::unlimited());
        self.worker = Some(worker);
    }

    pub(super) fn process(&mut self, token: u32) {
        let worker = self.worker.as_mut().expect("the device is active");
        worker.process(token, EventSet::IN, &mut Turn::unlimited());
    }

    pub(super) fn backend_changed(&mut self) {
        self.process(worker::BACKEND);
    }

    /// Offers `count` buffers of `length` bytes for frames to the guest.
    pub(super) fn offer(&mut self, count: usize, length: u32) -> Vec<Offered> {
        let offered = (0..count).map(|_| self.driver.offer(RECEIVE, &[Buffer::Writable(length)])).collect();
        self.process(RECEIVE as u32);
        offered
    }

    /// The next packet in the buffers that were offered, which are used in order.
    pub(super) fn received(&mut self, offered: &mut Vec<Offered>) -> Option<Vec<u8>> {
        let mut next = |driver: &mut Driver| {
            let (head, length) = driver.returned(RECEIVE)?;
            let buffer = offered.remove(0);
            assert_eq!(buffer.head, head);
            let mut bytes = driver.contents(&buffer, 0);
            bytes.truncate(length as usize);
            Some(bytes)
        };
        let mut packet = next(&mut self.driver)?;
        let buffers = u16::from_le_bytes([packet[10], packet[11]]);
        for _ in 1..buffers {
            packet.extend(next(&mut self.driver).expect("all buffers of a packet are returned at once"));
        }
        Some(packet)
    }

    /// Waits for the next packet, which takes some time under load.
    pub(super) fn wait_received(&mut self, offered: &mut Vec<Offered>) -> Vec<u8> {
        for _ in 0..1_000_000 {
            self.backend_changed();
            if let Some(packet) = self.received(offered) {
                return packet;
            }
            std::thread::yield_now();
        }
        panic!("nothing was received");
    }

    /// Waits until the link is up or down.
    pub(super) fn wait_link(&mut self, up: bool) {
        for _ in 0..1_000_000 {
            self.backend_changed();
            if self.handle.is_up() == up {
                return;
            }
            std::thread::yield_now();
        }
        panic!("the link did not become {}", if up { "up" } else { "down" });
    }

    /// The link as the configuration space shows it.
    pub(super) fn status(&self) -> u16 {
        let mut status = [0xff; 2];
        self.net.read_config(6, &mut status);
        u16::from_le_bytes(status)
    }

    /// Sends one packet, and returns how many the host has accepted and dropped so far.
    pub(super) fn send(&mut self, packet: &[u8]) -> (u64, u64) {
        let offered = self.driver.offer(TRANSMIT, &[Buffer::Readable(packet)]);
        self.process(TRANSMIT as u32);
        assert_eq!(self.driver.returned(TRANSMIT), Some((offered.head, 0)));
        self.sent()
    }

    /// Frames of the guest that were accepted and dropped.
    pub(super) fn sent(&self) -> (u64, u64) {
        let counters = self.handle.counters();
        (counters.tx_packets.load(Relaxed), counters.tx_dropped.load(Relaxed))
    }

    /// Frames to the guest that were passed on and dropped.
    pub(super) fn passed(&self) -> (u64, u64) {
        let counters = self.handle.counters();
        (counters.rx_packets.load(Relaxed), counters.rx_dropped.load(Relaxed))
    }
}

pub(super) fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

/// Whether `ip link` shows this of an interface.
pub(super) fn shows(interface: &str, text: &str) -> bool {
    let shown = Command::new("ip").args(["link", "show", interface]).output().unwrap();
    String::from_utf8_lossy(&shown.stdout).contains(text)
}

/// Moves this thread to a new network namespace and has `ip` execute `commands` there. `false` if
/// that is not permitted.
pub(super) fn enter_namespace(commands: &[&str]) -> bool {
    // SAFETY: it changes the network namespace of the calling thread, and nothing that Rust relies
    // upon.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    let ready = entered
        && std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").is_ok()
        && commands.iter().all(|command| ip(command));
    if !ready {
        #[allow(clippy::disallowed_macros, reason = "a skipped test prints its reason")]
        {
            eprintln!("skipped: network namespaces and their interfaces are not permitted here");
        }
    }
    ready
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn folded(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Sum of the pseudo header of a transport packet from guest to host.
pub(super) fn pseudo_sum(protocol: u8, length: u16) -> [u8; 2] {
    folded(sum(&[&GUEST[..], &HOST, &[0, protocol], &length.to_be_bytes()].concat())).to_be_bytes()
}

/// A frame from guest to host, behind a virtio header that requests nothing.
pub(super) fn ip_packet(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = 20 + transport.len() as u16;
    let mut ip = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 1, 0, 0, 64, protocol, 0, 0], &GUEST, &HOST].concat();
    let header_checksum = !folded(sum(&ip));
    ip[10..12].copy_from_slice(&header_checksum.to_be_bytes());
    [&[0; 12][..], &HOST_MAC, &MAC, &[8, 0], &ip, transport].concat()
}

/// A datagram from guest to host without a checksum.
pub(super) fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let udp = [&9u16.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat();
    ip_packet(17, &udp)
}

/// A frame that means nothing, of this length, which differs with `seed` in each byte.
pub(super) fn noise(length: usize, seed: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|at| (at * 7 + seed * 31 + at / 251) as u8).collect();
    // Not the type of an IP packet.
    if let Some(kind) = frame.get_mut(12..14) {
        kind.copy_from_slice(&[0x88, 0xb5]);
    }
    frame
}

/// `frame` behind an empty header.
pub(super) fn packet(frame: &[u8]) -> Vec<u8> {
    [&[0; 12], frame].concat()
}
