// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses of network interfaces. Linux, `include/uapi/linux/if_addr.h`.

use super::message::{Request, attributes, number};
use super::{NLM_F_CREATE, NLM_F_REPLACE, Netlink};
use std::io::Result;
use std::net::IpAddr;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

/// Length of `struct ifaddrmsg`.
const FIXED_SIZE: usize = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

const IFA_F_TEMPORARY: u32 = 0x1;
const IFA_F_NODAD: u8 = 0x2;
const IFA_F_DEPRECATED: u32 = 0x20;
const RT_SCOPE_LINK: u8 = 253;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    /// The other end of a point-to-point link.
    pub(crate) peer: Option<IpAddr>,
    /// Of the network: the peer's on a point-to-point link.
    pub(crate) prefix: u8,
    /// Valid on its link only.
    pub(crate) is_link_local: bool,
    /// Of a privacy extension, or no longer to be used.
    pub(crate) is_short_lived: bool,
    pub(crate) message: Vec<u8>,
}

impl Netlink {
    /// All addresses of all interfaces.
    pub(crate) fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump(|| Request::new(RTM_GETADDR, 0, &[0; FIXED_SIZE]), parse)
    }

    pub(crate) fn remove_address(&mut self, address: &Address) -> Result<()> {
        self.change(Request::new(RTM_DELADDR, 0, &address.message))
    }

    /// Adds an address to an interface, without duplicate address detection.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        let (family, bytes) = match address {
            IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
        };
        let mut fixed = [family, prefix, IFA_F_NODAD, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        self.change(request.attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes))
    }

    /// Adds an address by its [message](Address::message).
    pub(crate) fn restore_address(&mut self, message: &[u8]) -> Result<()> {
        self.change(Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, message))
    }
}

/// An address of the family whose addresses have this length.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(|octets: [u8; 4]| octets.into()),
        16 => bytes.try_into().ok().map(|octets: [u8; 16]| octets.into()),
        _ => None,
    }
}

fn parse(payload: &[u8]) -> Option<Address> {
    let (fixed, rest) = payload.split_at_checked(FIXED_SIZE)?;
    let (mut address, mut local, mut flags) = (None, None, u32::from(fixed[2]));
    for (kind, value) in attributes(rest) {
        match kind {
            IFA_ADDRESS => address = ip(value),
            IFA_LOCAL => local = ip(value),
            IFA_FLAGS => flags = number(value)?,
            _ => {}
        }
    }
    let own = local.or(address)?;
    Some(Address {
        index: number(&fixed[4..])?,
        address: own,
        peer: address.filter(|address| *address != own),
        prefix: fixed[1],
        is_link_local: fixed[3] >= RT_SCOPE_LINK,
        is_short_lived: flags & (IFA_F_TEMPORARY | IFA_F_DEPRECATED) != 0,
        message: payload.to_vec(),
    })
}
