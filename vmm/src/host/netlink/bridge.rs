// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bridges and their ports. Linux, `include/uapi/linux/if_link.h`.

use super::link::{
    FIXED_SIZE, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, RTM_NEWLINK, of,
};
use super::message::Request;
use super::{NLM_F_CREATE, NLM_F_EXCL, Netlink};
use std::io::Result;

const RTM_DELLINK: u16 = 17;

impl Netlink {
    /// Makes a bridge, which is down. With an address of its own it keeps it whatever its ports are.
    pub(crate) fn create_bridge(&mut self, name: &str, mac: [u8; 6]) -> Result<()> {
        let request = Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &[0; FIXED_SIZE]);
        let request = request.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat()).attribute(IFLA_ADDRESS, &mac);
        self.change(request.nested(IFLA_LINKINFO, &[(IFLA_INFO_KIND, b"bridge")]))
    }

    /// Makes an interface a port of a bridge, both by their numbers.
    pub(crate) fn join_bridge(&mut self, index: u32, bridge: u32) -> Result<()> {
        self.change(Request::new(RTM_NEWLINK, 0, &of(index)).attribute(IFLA_MASTER, &bridge.to_ne_bytes()))
    }

    pub(crate) fn set_up(&mut self, index: u32) -> Result<()> {
        let mut fixed = of(index);
        // The flags, and which of them change.
        fixed[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        fixed[12..].copy_from_slice(&IFF_UP.to_ne_bytes());
        self.change(Request::new(RTM_NEWLINK, 0, &fixed))
    }

    pub(crate) fn remove_link(&mut self, index: u32) -> Result<()> {
        self.change(Request::new(RTM_DELLINK, 0, &of(index)))
    }
}
