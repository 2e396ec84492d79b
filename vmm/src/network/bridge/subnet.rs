// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The subnets that bridges get: an IPv4 /24 and a ULA IPv6 /64 of the same number. Pure.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const PREFIX4: u8 = 24;
pub(super) const PREFIX6: u8 = 64;

/// Each has 256 subnets. The second and third are for hosts whose routes have the first, like those of a VPN that takes 10.0.0.0/8.
const POOLS: [[u8; 2]; 3] = [[10, 89], [172, 30], [192, 168]];
/// Begins the MAC address of each bridge that coracle makes; the subnet's number follows.
const MAC: [u8; 4] = [0x02, 0xc0, 0xac, 0x1e];
/// A route to more than this is one to everything, like the two halves of the Internet by which a VPN has its way.
const MIN_ROUTE_PREFIX: u8 = 8;

/// The subnet of one bridge, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub(super) struct Subnet(u16);

impl TryFrom<u16> for Subnet {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::numbered(number).ok_or("not a subnet")
    }
}

impl Subnet {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..POOLS.len() as u16 * 256).map(Self)
    }

    pub(super) fn numbered(number: u16) -> Option<Self> {
        Self::all().find(|subnet| subnet.0 == number)
    }

    /// The first one that none of `taken` and of the host's `networks` meets.
    pub(super) fn free(taken: &[Self], networks: &[(IpAddr, u8)]) -> Option<Self> {
        let is_free = |subnet: &Self| !taken.contains(subnet) && networks.iter().all(|network| !subnet.meets(*network));
        Self::all().find(is_free)
    }

    /// That of the bridge with this MAC address, if coracle made it.
    pub(super) fn of_bridge(mac: [u8; 6]) -> Option<Self> {
        let number = mac.strip_prefix(&MAC)?;
        Self::numbered(u16::from_be_bytes([number[0], number[1]]))
    }

    pub(super) fn bridge_mac(self) -> [u8; 6] {
        let ([a, b, c, d], [high, low]) = (MAC, self.0.to_be_bytes());
        [a, b, c, d, high, low]
    }

    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// The addresses of number `host` in it.
    pub(super) fn addresses(self, host: u8) -> [IpAddr; 2] {
        let [pool, third] = self.0.to_be_bytes();
        let [first, second] = POOLS[usize::from(pool)];
        let ipv6 = Ipv6Addr::new(0xfd89, 0xc0a, 0, self.0, 0, 0, 0, host.into());
        [Ipv4Addr::new(first, second, third, host).into(), ipv6.into()]
    }

    /// The addresses of the bridge, which is the router.
    pub(super) fn gateways(self) -> [IpAddr; 2] {
        self.addresses(1)
    }

    /// In the form `10.89.0.0/24`.
    pub(super) fn networks(self) -> [String; 2] {
        let [ipv4, ipv6] = self.addresses(0);
        [format!("{ipv4}/{PREFIX4}"), format!("{ipv6}/{PREFIX6}")]
    }

    fn meets(self, (address, prefix): (IpAddr, u8)) -> bool {
        if prefix < MIN_ROUTE_PREFIX {
            return false;
        }
        let [own4, own6] = self.addresses(0);
        let same_bits = match (address, own4, own6) {
            (IpAddr::V4(other), IpAddr::V4(own), _) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(other), _, IpAddr::V6(own)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        let own_prefix = if address.is_ipv4() { PREFIX4 } else { PREFIX6 };
        same_bits >= prefix.min(own_prefix).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(taken: &[u16], networks: &[(&str, u8)]) -> Option<u16> {
        let taken: Vec<_> = taken.iter().map(|number| Subnet::numbered(*number).unwrap()).collect();
        let networks: Vec<_> = networks.iter().map(|(text, prefix)| (text.parse().unwrap(), *prefix)).collect();
        Subnet::free(&taken, &networks).map(Subnet::number)
    }

    #[test]
    fn free_subnet_meets_no_route_of_the_host() {
        assert_eq!(free(&[], &[("192.0.2.0", 24), ("fd00::", 64)]), Some(0));
        assert_eq!(free(&[1], &[("10.89.0.0", 24)]), Some(2));
        assert_eq!(free(&[], &[("10.89.0.77", 32), ("fd89:c0a:0:1::", 64)]), Some(2));
        assert_eq!(free(&[], &[("10.89.0.0", 22)]), Some(4));
        assert_eq!(free(&[], &[("10.0.0.0", 8)]), Some(256));
        assert_eq!(free(&[], &[("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 24)]), Some(513));
        assert_eq!(free(&[], &[("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16)]), None);
        assert_eq!(free(&[], &[("0.0.0.0", 0), ("0.0.0.0", 1), ("128.0.0.0", 1), ("::", 0)]), Some(0));
    }

    #[test]
    fn subnets_have_addresses_of_both_families() {
        for (number, addresses) in [(0, ["10.89.0.2", "fd89:c0a::2"]), (257, ["172.30.1.2", "fd89:c0a:0:101::2"])] {
            let subnet = Subnet::numbered(number).unwrap();
            assert_eq!(subnet.addresses(2).map(|address| address.to_string()), addresses);
        }
        assert_eq!(Subnet::numbered(3).unwrap().networks(), ["10.89.3.0/24", "fd89:c0a:0:3::/64"]);
        assert_eq!(Subnet::numbered(768), None);
    }

    #[test]
    fn mac_address_of_a_bridge_has_its_subnet() {
        for subnet in Subnet::all() {
            assert_eq!(Subnet::of_bridge(subnet.bridge_mac()), Some(subnet));
        }
        assert_eq!(Subnet::of_bridge([2, 0xc0, 0xac, 0x1e, 0xff, 0]), None);
        assert_eq!(Subnet::of_bridge([2, 0xc0, 0xac, 0x1f, 0, 0]), None);
    }
}
