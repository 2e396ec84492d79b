// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Unicast routes of the main table. Linux, `include/uapi/linux/rtnetlink.h`.

use super::address::{AF_INET, AF_INET6, ip};
use super::message::{Request, attributes, number};
use super::{NLM_F_CREATE, Netlink};
use std::io::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

/// Length of `struct rtmsg`.
const FIXED_SIZE: usize = 12;
/// `rtm_flags` in it.
const FLAGS: std::ops::Range<usize> = 8..12;
/// Length of `struct rtnexthop`.
const NEXT_HOP_SIZE: usize = 8;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;

const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_ONLINK: u32 = 4;

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Network and prefix length.
    pub(crate) destination: (IpAddr, u8),
    /// Without one the destination is on the link.
    pub(crate) gateway: Option<IpAddr>,
    /// Of the interface; of several next hops the first.
    pub(crate) index: u32,
    /// The kernel uses the route with the lowest.
    pub(crate) priority: u32,
    /// Made by the kernel with an address.
    pub(crate) is_kernels: bool,
    pub(crate) message: Vec<u8>,
}

impl Netlink {
    /// The unicast routes of the main table.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>> {
        self.dump(|| Request::new(RTM_GETROUTE, 0, &[0; FIXED_SIZE]), parse)
    }

    pub(crate) fn remove_route(&mut self, route: &Route) -> Result<()> {
        self.change(Request::new(RTM_DELROUTE, 0, &without_state(&route.message)))
    }

    /// Adds a route by its [message](Route::message).
    pub(crate) fn restore_route(&mut self, message: &[u8]) -> Result<()> {
        self.change(Request::new(RTM_NEWROUTE, NLM_F_CREATE, &without_state(message)))
    }
}

/// The message without the flags that describe the state of the link, which the kernel rejects in a request.
fn without_state(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(flags) = message.get_mut(FLAGS) {
        let kept = number(flags).unwrap_or(0) & RTNH_F_ONLINK;
        flags.copy_from_slice(&kept.to_ne_bytes());
    }
    message
}

/// Returns `None` for a route of another table or kind, and for one that the kernel derived from another.
fn parse(payload: &[u8]) -> Option<Route> {
    let (fixed, rest) = payload.split_at_checked(FIXED_SIZE)?;
    let [family, prefix, _, _, table, protocol, _, kind] = *fixed.first_chunk()?;
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let flags = number(&fixed[FLAGS])?;
    let (mut table, mut index, mut priority) = (u32::from(table), None, 0);
    let (mut destination, mut gateway) = (any, None);
    for (attribute, value) in attributes(rest) {
        match attribute {
            RTA_DST => destination = ip(value)?,
            RTA_OIF => index = number(value),
            RTA_GATEWAY | RTA_VIA => gateway = next_hop_gateway(attribute, value),
            RTA_PRIORITY => priority = number(value)?,
            RTA_TABLE => table = number(value)?,
            RTA_MULTIPATH => {
                // The first next hop: its length, flags, weight and interface, then attributes.
                let length = usize::from(u16::from_ne_bytes(*value.first_chunk()?));
                index = number(value.get(4..NEXT_HOP_SIZE)?);
                let mut inner = attributes(value.get(NEXT_HOP_SIZE..length)?);
                gateway = inner.find_map(|(attribute, value)| next_hop_gateway(attribute, value));
            }
            _ => {}
        }
    }
    let is_wanted = table == RT_TABLE_MAIN && kind == RTN_UNICAST && flags & RTM_F_CLONED == 0;
    Some(Route {
        destination: (destination, prefix),
        gateway,
        index: index?,
        priority,
        is_kernels: protocol == RTPROT_KERNEL,
        message: payload.to_vec(),
    })
    .filter(|_| is_wanted)
}

/// `RTA_VIA` is an address behind its family, of two bytes.
fn next_hop_gateway(attribute: u16, value: &[u8]) -> Option<IpAddr> {
    match attribute {
        RTA_GATEWAY => ip(value),
        RTA_VIA => ip(value.get(2..)?),
        _ => None,
    }
}
