// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Network interfaces. Linux, `include/uapi/linux/if_link.h`.

use super::Netlink;
use super::message::{Request, attribute, attributes, number, push_attribute, text};
use std::io::Result;

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;

/// Length of `struct ifinfomsg`.
pub(super) const FIXED_SIZE: usize = 16;

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
/// Inside of `IFLA_LINKINFO`.
pub(super) const IFLA_INFO_KIND: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

pub(super) const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const AF_INET6: u16 = 10;
const ARPHRD_ETHER: u16 = 1;
/// No IPv6 address of the kernel's own.
pub(crate) const ADDR_GEN_MODE_NONE: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `None` for an interface that is not like Ethernet.
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    pub(crate) is_loopback: bool,
    pub(crate) is_bridge: bool,
    /// Number of the bridge that the interface is a port of.
    pub(crate) bridge: Option<u32>,
    /// How the kernel makes its IPv6 link-local address; `None` without IPv6.
    pub(crate) addr_gen_mode: Option<u8>,
}

impl Netlink {
    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        self.dump(|| Request::new(RTM_GETLINK, 0, &[0; FIXED_SIZE]), parse)
    }

    /// Sets how the kernel makes the interface's IPv6 link-local address.
    pub(crate) fn set_addr_gen_mode(&mut self, index: u32, mode: u8) -> Result<()> {
        let mut inet6 = Vec::new();
        push_attribute(&mut inet6, IFLA_INET6_ADDR_GEN_MODE, &[mode]);
        self.change(Request::new(RTM_NEWLINK, 0, &of(index)).nested(IFLA_AF_SPEC, &[(AF_INET6, &inet6)]))
    }
}

/// `struct ifinfomsg` that names an interface by its number.
pub(super) fn of(index: u32) -> [u8; FIXED_SIZE] {
    let mut fixed = [0; FIXED_SIZE];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed
}

fn parse(payload: &[u8]) -> Option<Link> {
    let (fixed, rest) = payload.split_at_checked(FIXED_SIZE)?;
    let hardware = u16::from_ne_bytes([fixed[2], fixed[3]]);
    let flags = number(&fixed[8..12])?;
    let mut link = Link {
        index: number(&fixed[4..8])?,
        is_up: flags & IFF_UP != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_ADDRESS if hardware == ARPHRD_ETHER => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_MASTER => link.bridge = number(value),
            IFLA_LINKINFO => {
                link.is_bridge = attribute(value, IFLA_INFO_KIND).is_some_and(|kind| text(kind) == "bridge")
            }
            IFLA_AF_SPEC => {
                let mode = attribute(value, AF_INET6).and_then(|inet6| attribute(inet6, IFLA_INET6_ADDR_GEN_MODE));
                link.addr_gen_mode = mode.and_then(|mode| mode.first().copied());
            }
            _ => {}
        }
    }
    Some(link)
}
