// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Configuration of network interfaces through a netlink socket. Nothing waits for another machine but a client of DHCP, which
//! comes last.

use super::dhcp::Dhcp;
use super::failure::{Failure, Step};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use guest_init::rtnetlink::{self, Answer, Link};
use guest_protocol::identity::template_mac;
use guest_protocol::run_spec::{Interface, RunSpec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, sendto, socket_with};

pub(crate) const STEP: &str = "configure network";
/// The kernel sends no larger part of a list.
const ANSWER_BUF_SIZE: usize = 32 << 10;
/// The first interface without devices, which every kernel with a network has.
const LOOPBACK_INDEX: u32 = 1;
/// Of the second interface's routes, where the first one's have none: of two default routes the
/// first one's is used.
const FURTHER_METRIC: u32 = 2048;

/// Brings up the loopback interface, which configures its own addresses.
pub(crate) fn bring_up_loopback() -> Result<(), Failure> {
    match Kernel::open() {
        Ok(kernel) => kernel.ask(&rtnetlink::bring_up(LOOPBACK_INDEX, "", None)).step(STEP, "lo"),
        // A machine without interfaces needs no network.
        Err(Errno::AFNOSUPPORT) => Ok(()),
        Err(errno) => Err(Failure::setup(STEP, "netlink", errno)),
    }
}

/// Brings up the interfaces of `spec`, to which it adds what DHCP gives. Returns the clients, if there are any.
pub(crate) fn configure(spec: &mut RunSpec) -> Result<Option<Dhcp>, Failure> {
    let interfaces = &spec.interfaces[..];
    if interfaces.is_empty() {
        return Ok(None);
    }
    let kernel = Kernel::open().step(STEP, "netlink")?;
    let links = kernel.links().step(STEP, "list interfaces")?;
    let mut dhcp: Option<Dhcp> = None;
    for (position, interface) in interfaces.iter().enumerate() {
        let Some(link) = links.iter().find(|link| link.address == interface.mac) else {
            let [a, b, c, d, e, f] = interface.mac;
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            return Err(Failure::setup(STEP, format!("no interface has the address {mac}"), Errno::NODEV));
        };
        set_up(&kernel, link, interface, metric(position))?;
        if interface.dhcp.is_some() {
            if dhcp.is_none() {
                dhcp = Some(Dhcp::new(interfaces).step(STEP, "event loop")?);
            }
            if let Some(dhcp) = &mut dhcp {
                dhcp.add(position, link.index, metric(position), &spec.hostname)?;
            }
        }
    }
    // All clients ask at the same time, and the other interfaces are ready.
    if let Some(dhcp) = &mut dhcp {
        dhcp.wait_for_addresses()?;
        dhcp.complete(spec);
    }
    Ok(dhcp)
}

fn has_ipv6() -> bool {
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    !matches!(socket, Err(Errno::AFNOSUPPORT))
}

/// That of the routes of the interface at `position`.
fn metric(position: usize) -> Option<u32> {
    position.checked_sub(1).map(|further| FURTHER_METRIC + further as u32)
}

/// Gives interfaces that are up the hardware addresses, addresses and routes of `new` in place of those of `old`, in the
/// same order. There are as many.
pub(crate) fn replace(old: &[Interface], new: &[Interface]) -> Result<(), Failure> {
    let kernel = Kernel::open().step(STEP, "netlink")?;
    let links = kernel.links().step(STEP, "list interfaces")?;
    for (position, new) in new.iter().enumerate() {
        // The workload may have moved it to another network namespace.
        let Some(link) = rtnetlink::device(&links, old, position) else { continue };
        let old = &old[position];
        kernel.ask(&rtnetlink::take_down(link.index, new.mac)).step(STEP, &link.name)?;
        for own in old.addresses.iter().filter(|own| own.address.is_ipv4()) {
            match kernel.ask(&rtnetlink::delete_address(link.index, *own)) {
                // The workload may have removed it.
                Ok(()) | Err(Errno::ADDRNOTAVAIL) => {}
                Err(errno) => return Err(Failure::setup(STEP, format!("{}: {}", link.name, own.address), errno)),
            }
        }
        set_up(&kernel, link, new, metric(position))?;
    }
    Ok(())
}

/// Gives the interfaces of a template, which are down, hardware addresses of this machine's own.
pub(crate) fn set_hardware_addresses(macs: &[[u8; 6]]) -> Result<(), Failure> {
    if macs.is_empty() {
        return Ok(());
    }
    let kernel = Kernel::open().step(STEP, "netlink")?;
    let links = kernel.links().step(STEP, "list interfaces")?;
    for (position, mac) in (0..).zip(macs) {
        let link = links.iter().find(|link| link.address == template_mac(position));
        let link = link.ok_or_else(|| Failure::setup(STEP, "interface of a template", Errno::NODEV))?;
        kernel.ask(&rtnetlink::take_down(link.index, *mac)).step(STEP, &link.name)?;
    }
    Ok(())
}

fn set_up(kernel: &Kernel, link: &Link, interface: &Interface, metric: Option<u32>) -> Result<(), Failure> {
    // A kernel without IPv6, or with `ipv6.disable=1`, still has the rest of the network.
    let interface = &if has_ipv6() { interface.clone() } else { rtnetlink::without_ipv6(interface) };
    let ask = |request: &[u8], what: &dyn Fn() -> alloc::string::String| {
        kernel.ask(request).map_err(|errno| Failure::setup(STEP, format!("{}: {}", link.name, what()), errno))
    };
    // The kernel's own link-local address goes through duplicate address detection for a second. Until
    // then the kernel sends from `::`, which passt 2023 takes for the guest's address.
    let link_local = interface.addresses.iter().any(|own| own.address.is_ipv6());
    let link_local = link_local.then(|| rtnetlink::link_local(interface.mac));
    if link_local.is_some() {
        ask(&rtnetlink::generate_no_address(link.index), &|| "IPv6".into())?;
    }
    let up = rtnetlink::bring_up(link.index, &interface.name, interface.mtu);
    ask(&up, &|| match (&*interface.name, interface.mtu) {
        ("", None) => "up".into(),
        (name, mtu) => format!("name {name:?}, MTU {mtu:?}"),
    })?;
    let link_local = link_local.filter(|own| !interface.addresses.contains(own));
    for own in link_local.iter().chain(&interface.addresses) {
        let what = || format!("address {}/{}", own.address, own.prefix);
        ask(&rtnetlink::add_address(link.index, *own), &what)?;
    }
    for route in &interface.routes {
        let what = || match route.gateway {
            Some(gateway) => {
                format!("route to {}/{} via {gateway}", route.destination.address, route.destination.prefix)
            }
            None => format!("route to {}/{}", route.destination.address, route.destination.prefix),
        };
        ask(&rtnetlink::add_route(link.index, route, metric), &what)?;
    }
    interface.routes.iter().filter_map(|route| route.gateway).for_each(announce);
    Ok(())
}

/// Makes the link known by an empty datagram to the discard port of its gateway, before which the
/// kernel asks for the gateway's link address. passt and switches learn the guest's address from
/// that frame; until then passt resets connections to published ports, and a server that listens
/// at once is there before the kernel sends anything of itself.
fn announce(gateway: IpAddr) {
    const DISCARD: u16 = 9;
    let family = if gateway.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // A gateway that cannot be reached is no error: nothing depends on an answer.
    if let Ok(socket) = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None) {
        let _ = sendto(&socket, &[], SendFlags::empty(), &SocketAddr::new(gateway, DISCARD));
    }
}

/// The kernel's end of a netlink socket.
pub(super) struct Kernel(OwnedFd);

impl Kernel {
    pub(super) fn open() -> Result<Self, Errno> {
        // NETLINK_ROUTE is protocol 0.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// Sends a request and takes its result.
    pub(super) fn ask(&self, request: &[u8]) -> Result<(), Errno> {
        send(&self.0, request, SendFlags::empty())?;
        for answer in self.receive()? {
            if let Answer::Result(number) = answer {
                return if number == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(number)) };
            }
        }
        Err(Errno::BADMSG)
    }

    fn links(&self) -> Result<Vec<Link>, Errno> {
        send(&self.0, &rtnetlink::list_links(), SendFlags::empty())?;
        let mut links = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer {
                    Answer::Link(link) => links.push(link),
                    Answer::Done | Answer::Result(0) => return Ok(links),
                    Answer::Result(number) => return Err(Errno::from_raw_os_error(number)),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<Answer>, Errno> {
        let mut bytes = vec![0; ANSWER_BUF_SIZE];
        let (_, length) = recv(&self.0, &mut bytes[..], RecvFlags::TRUNC)?;
        if length > bytes.len() { Err(Errno::MSGSIZE) } else { Ok(rtnetlink::answers(&bytes[..length])) }
    }
}
