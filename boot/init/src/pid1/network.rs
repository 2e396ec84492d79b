// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Static configuration of network interfaces, by the ioctls of `netdevice(7)` and `linux/route.h`.
// Reason for unsafe code: ioctls with kernel structures.
#![allow(unsafe_code)]

use super::failure::{Failure, Step};
use alloc::format;
use core::net::IpAddr;
use guest_init::ipv4;
use guest_protocol::run_spec::Interface;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const STEP: &str = "configure network";

const SIOCADDRT: Opcode = 0x890b;
const SIOCGIFNAME: Opcode = 0x8910;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;
const SIOCGIFHWADDR: Opcode = 0x8927;

const AF_INET: [u8; 2] = 2_u16.to_ne_bytes();
const IFF_UP: u16 = 0x1;
const RTF_UP: u16 = 0x1;
const RTF_GATEWAY: u16 = 0x2;
/// Interface numbers that are searched for a hardware address.
const MAX_INDEX: i32 = 64;

/// `struct ifreq`: a name and a union of addresses, flags and numbers.
#[repr(C)]
#[derive(Default)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

/// `struct rtentry`. Addresses are `struct sockaddr_in`.
#[repr(C)]
#[derive(Default)]
struct Route {
    padding_1: u64,
    destination: [u8; 16],
    gateway: [u8; 16],
    mask: [u8; 16],
    flags: u16,
    padding_2: i16,
    padding_3: u64,
    padding_4: u64,
    metric: i16,
    device: u64,
    mtu: u64,
    window: u64,
    initial_round_trip: u16,
}

/// Brings up the loopback interface, which configures its own addresses, and `interfaces`.
pub(crate) fn configure(interfaces: &[Interface]) -> Result<(), Failure> {
    let socket = match socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None) {
        Ok(socket) => socket,
        // A machine without interfaces needs no IPv4.
        Err(Errno::AFNOSUPPORT) if interfaces.is_empty() => return Ok(()),
        Err(errno) => return Err(Failure::setup(STEP, "IPv4", errno)),
    };
    bring_up(&socket, *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0").step(STEP, "lo")?;
    for interface in interfaces {
        let Some(name) = find(&socket, interface.mac) else {
            let [a, b, c, d, e, f] = interface.mac;
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            return Err(Failure::setup(STEP, format!("no interface has the address {mac}"), Errno::NODEV));
        };
        if let Some((IpAddr::V4(address), prefix)) = interface.addresses.first().map(|own| (own.address, own.prefix)) {
            let address = address.octets();
            set::<SIOCSIFADDR>(&socket, name, &socket_address(address)).step(STEP, "address")?;
            set::<SIOCSIFNETMASK>(&socket, name, &socket_address(ipv4::mask(prefix))).step(STEP, "network mask")?;
        }
        bring_up(&socket, name).step(STEP, "interface up")?;
        if let Some(IpAddr::V4(gateway)) = interface.routes.first().and_then(|route| route.gateway) {
            add_default_route(&socket, gateway.octets()).step(STEP, "default route")?;
        }
    }
    Ok(())
}

/// `struct sockaddr_in` of an address, without a port.
fn socket_address([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [AF_INET[0], AF_INET[1], 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Returns the name of the interface with the hardware address `mac`.
fn find(socket: &OwnedFd, mac: [u8; 6]) -> Option<[u8; 16]> {
    (1..=MAX_INDEX).find_map(|index: i32| {
        let mut request = Request::default();
        request.value[..4].copy_from_slice(&index.to_ne_bytes());
        update::<SIOCGIFNAME>(socket, &mut request).ok()?;
        update::<SIOCGIFHWADDR>(socket, &mut request).ok()?;
        // The union now holds a `struct sockaddr`: two bytes of family, then the address.
        (request.value[2..8] == mac).then_some(request.name)
    })
}

fn bring_up(socket: &OwnedFd, name: [u8; 16]) -> Result<(), Errno> {
    set::<SIOCSIFFLAGS>(socket, name, &IFF_UP.to_ne_bytes())
}

fn set<const OPCODE: Opcode>(socket: &OwnedFd, name: [u8; 16], value: &[u8]) -> Result<(), Errno> {
    let mut request = Request { name, ..Request::default() };
    request.value[..value.len()].copy_from_slice(value);
    update::<OPCODE>(socket, &mut request)
}

fn update<const OPCODE: Opcode>(socket: &OwnedFd, request: &mut Request) -> Result<(), Errno> {
    // SAFETY: all opcodes in use take a `struct ifreq`, read or written within its size.
    unsafe { ioctl(socket, Updater::<OPCODE, Request>::new(request)) }
}

fn add_default_route(socket: &OwnedFd, gateway: [u8; 4]) -> Result<(), Errno> {
    let mut route = Route {
        destination: socket_address([0; 4]),
        gateway: socket_address(gateway),
        mask: socket_address([0; 4]),
        flags: RTF_UP | RTF_GATEWAY,
        ..Route::default()
    };
    // SAFETY: the opcode takes a `struct rtentry`, whose one pointer, the device's name, may be
    // null.
    unsafe { ioctl(socket, Updater::<SIOCADDRT, Route>::new(&mut route)) }
}
