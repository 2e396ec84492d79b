// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a server gives a client for some time.

use super::message::{Reply, option};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use guest_protocol::run_spec::{Address, Route};

/// As many as glibc reads.
const MAX_NAME_SERVERS: usize = 3;
/// As many domains and bytes as every libc reads (`resolv.conf(5)`).
const MAX_SEARCH: usize = 6;
const MAX_SEARCH_BYTES: usize = 256;
const MAX_ROUTES: usize = 64;
/// RFC 2132, 5.1.
const MIN_MTU: u16 = 68;
/// Of a name in bytes of text.
const MAX_NAME: usize = 253;
/// RFC 2131, 3.3.
const INFINITE: u32 = u32::MAX;

/// The configuration of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub address: Address,
    /// In an order in which every gateway is reached by a route before it.
    pub routes: Vec<Route>,
    pub mtu: Option<u16>,
    pub name_servers: Vec<IpAddr>,
    pub search: Vec<String>,
}

/// Milliseconds from the request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// T1: the client asks its server.
    pub(super) renewal: u64,
    /// T2: the client asks every server.
    pub(super) rebinding: u64,
    pub(super) expiry: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) server: Ipv4Addr,
    pub(super) address: Ipv4Addr,
    pub(super) settings: Settings,
    /// `None` if it lasts for ever.
    pub(super) times: Option<Times>,
}

impl Lease {
    /// Returns `None` if the reply has no address that can be used, no server, or no time.
    pub(super) fn read(reply: &Reply) -> Option<Self> {
        let server = reply.address_option(option::SERVER).filter(|server| is_host(*server))?;
        let prefix = prefix(reply)?;
        let address = reply.address;
        let is_network_itself = prefix < 31 && {
            let hosts = u32::MAX >> prefix;
            [0, hosts].contains(&(address.to_bits() & hosts))
        };
        if !is_host(address) || is_network_itself {
            return None;
        }
        let times = times(reply)?;
        let own = Address { address: address.into(), prefix };
        let mtu = reply.option(option::MTU).and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)));
        let name_servers = reply.addresses(option::NAME_SERVERS).filter(|server| !server.is_unspecified());
        let settings = Settings {
            address: own,
            routes: routes(reply, address, prefix),
            mtu: mtu.filter(|mtu| *mtu >= MIN_MTU),
            name_servers: name_servers.take(MAX_NAME_SERVERS).map(IpAddr::V4).collect(),
            search: search(reply),
        };
        Some(Self { server, address, settings, times })
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && !address.is_loopback() && !address.is_multicast() && first < 240
}

/// Without a mask, that of the address's class (RFC 950).
fn prefix(reply: &Reply) -> Option<u8> {
    let Some(mask) = reply.option(option::SUBNET_MASK) else {
        return Some(match reply.address.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        });
    };
    let mask = u32::from_be_bytes(mask.try_into().ok()?);
    let prefix = mask.leading_ones();
    (prefix > 0 && mask.checked_shl(prefix).unwrap_or(0) == 0).then_some(prefix as u8)
}

/// Times that contradict each other are replaced by the usual parts of the lease (RFC 2131, 4.4.5).
fn times(reply: &Reply) -> Option<Option<Times>> {
    let lease = reply.number(option::LEASE_TIME).filter(|seconds| *seconds > 0)?;
    if lease == INFINITE {
        return Some(None);
    }
    let expiry = u64::from(lease) * 1000;
    let given =
        |code| reply.number(code).map(|seconds| u64::from(seconds) * 1000).filter(|time| (1..expiry).contains(time));
    let rebinding = given(option::REBINDING_TIME).unwrap_or(expiry / 8 * 7);
    let renewal = given(option::RENEWAL_TIME).filter(|time| *time < rebinding).unwrap_or(rebinding.min(expiry / 2));
    Some(Some(Times { renewal, rebinding, expiry }))
}

/// Classless routes take the place of the routers (RFC 3442).
fn routes(reply: &Reply, own: Ipv4Addr, prefix: u8) -> Vec<Route> {
    let mut routes = Vec::new();
    let classless = reply.option(option::CLASSLESS_ROUTES).and_then(classless_routes);
    let found = match classless {
        Some(found) => found,
        None => reply.addresses(option::ROUTERS).take(1).map(|router| (Ipv4Addr::UNSPECIFIED, 0, router)).collect(),
    };
    for (destination, length, router) in found {
        let destination = Address { address: destination.into(), prefix: length };
        if routes.iter().any(|route: &Route| route.destination == destination) {
            continue;
        }
        if router.is_unspecified() {
            routes.push(Route { destination, gateway: None });
            continue;
        }
        if !is_host(router) || router == own {
            continue;
        }
        let gateway = Address { address: router.into(), prefix: 32 };
        let is_on_link = (router.to_bits() ^ own.to_bits()).leading_zeros() >= prefix.into();
        // Networks of one address have their router outside.
        if !is_on_link && !routes.iter().any(|route: &Route| route.destination == gateway) {
            routes.push(Route { destination: gateway, gateway: None });
        }
        routes.push(Route { destination, gateway: Some(router.into()) });
    }
    // A default route may be reached by one of the others.
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

/// Destination, length of its prefix, and router. Returns `None` if the list is malformed.
fn classless_routes(mut list: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((&length, rest)) = list.split_first() {
        let significant = usize::from(length.div_ceil(8));
        let (destination, rest) = rest.split_at_checked(significant)?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets.get_mut(..significant)?.copy_from_slice(destination);
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).unwrap_or(0);
        if routes.len() < MAX_ROUTES {
            routes.push((Ipv4Addr::from_bits(u32::from_be_bytes(octets) & mask), length, Ipv4Addr::from(*router)));
        }
        list = rest;
    }
    Some(routes)
}

/// The search list, or else the domain.
fn search(reply: &Reply) -> Vec<String> {
    let list = reply.option(option::SEARCH).and_then(names).unwrap_or_default();
    let list = if list.is_empty() {
        let domain = reply.option(option::DOMAIN).and_then(|value| core::str::from_utf8(value).ok());
        domain
            .map(|domain| domain.trim_end_matches(['\0', '.']))
            .filter(|domain| is_name(domain))
            .map(String::from)
            .into_iter()
            .collect()
    } else {
        list
    };
    let mut bytes = 0;
    let fits = |name: &String| {
        bytes += name.len() + 1;
        bytes <= MAX_SEARCH_BYTES
    };
    list.into_iter().take(MAX_SEARCH).take_while(fits).collect()
}

/// Names with the compression of RFC 1035, 4.1.4. Returns `None` if they are malformed.
fn names(list: &[u8]) -> Option<Vec<String>> {
    let (mut names, mut at) = (Vec::new(), 0);
    while at < list.len() && names.len() < MAX_SEARCH {
        let (name, next) = name(list, at)?;
        if !is_name(&name) {
            return None;
        }
        names.push(name);
        at = next;
    }
    Some(names)
}

/// The name at `at`, and where the next one is. A pointer leads backwards only, so that there is an end.
fn name(list: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut next, mut first) = (String::new(), None, at);
    loop {
        match *list.get(at)? {
            0 => return Some((name, next.unwrap_or(at + 1))),
            length @ 1..64 => {
                let label = core::str::from_utf8(list.get(at + 1..at + 1 + usize::from(length))?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                if name.len() > MAX_NAME {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            high @ 192.. => {
                let target = usize::from(high & 63) << 8 | usize::from(*list.get(at + 1)?);
                next = next.or(Some(at + 2));
                if target >= first {
                    return None;
                }
                (at, first) = (target, target);
            }
            _ => return None,
        }
    }
}

/// A word that is written into a file of the guest.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..64).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}
