// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses and routes of a host's interface as the guest gets them. Pure.

use crate::host::netlink;
use guest_protocol::run_spec::{Address, Route};
use std::net::IpAddr;

/// The guest makes its own link-local address and the routes to its networks; what is about to expire is left out. A route by
/// which a gateway is reached comes before those that use it.
pub(super) fn guest_view(addresses: &[netlink::Address], routes: &[netlink::Route]) -> (Vec<Address>, Vec<Route>) {
    let (mut guest_addresses, mut guest_routes) = (Vec::new(), Vec::<Route>::new());
    for found in addresses.iter().filter(|found| !found.is_link_local && !found.is_short_lived) {
        let prefix = match found.peer {
            // The network is the peer's, which is on the link.
            Some(peer) => {
                let destination = Address { address: peer, prefix: found.prefix };
                guest_routes.push(Route { destination, gateway: None });
                if peer.is_ipv4() { 32 } else { 128 }
            }
            None => found.prefix,
        };
        guest_addresses.push(Address { address: found.address, prefix });
    }
    let mut own: Vec<_> = routes.iter().filter(|route| !route.is_kernels).collect();
    own.sort_by_key(|route| (route.gateway.is_some(), route.priority));
    for route in own {
        let (address, prefix) = route.destination;
        let destination = Address { address, prefix };
        let is_supported = route.gateway.is_none_or(|gateway: IpAddr| gateway.is_ipv4() == address.is_ipv4());
        // Of several routes to one network the kernel uses the first.
        if is_supported && !guest_routes.iter().any(|other| other.destination == destination) {
            guest_routes.push(Route { destination, gateway: route.gateway });
        }
    }
    (guest_addresses, guest_routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(text: &str, prefix: u8) -> netlink::Address {
        netlink::Address {
            index: 2,
            address: ip(text),
            peer: None,
            prefix,
            is_link_local: text.starts_with("fe80"),
            is_short_lived: false,
            message: Vec::new(),
        }
    }

    fn route(destination: &str, prefix: u8, gateway: Option<&str>, priority: u32) -> netlink::Route {
        let (destination, gateway) = ((ip(destination), prefix), gateway.map(ip));
        netlink::Route { destination, gateway, index: 2, priority, is_kernels: false, message: Vec::new() }
    }

    fn shown(routes: &[Route]) -> Vec<String> {
        let gateway = |route: &Route| route.gateway.map_or("-".to_owned(), |gateway| gateway.to_string());
        routes
            .iter()
            .map(|route| format!("{}/{} {}", route.destination.address, route.destination.prefix, gateway(route)))
            .collect()
    }

    #[test]
    fn lasting_addresses_are_the_guests() {
        let short = netlink::Address { is_short_lived: true, ..address("fd00::9", 64) };
        let all = [address("10.0.0.2", 24), address("fe80::1", 64), short, address("fd00::2", 64)];
        let (addresses, routes) = guest_view(&all, &[]);
        let expected = [(ip("10.0.0.2"), 24), (ip("fd00::2"), 64)];
        assert_eq!(addresses.iter().map(|found| (found.address, found.prefix)).collect::<Vec<_>>(), expected);
        assert!(routes.is_empty());
    }

    #[test]
    fn peer_of_a_point_to_point_link_is_a_route() {
        let peer = netlink::Address { peer: Some(ip("10.0.0.1")), ..address("10.0.0.2", 32) };
        let (addresses, routes) = guest_view(&[peer], &[]);
        assert_eq!((addresses[0].address, addresses[0].prefix), (ip("10.0.0.2"), 32));
        assert_eq!(shown(&routes), ["10.0.0.1/32 -"]);
    }

    #[test]
    fn routes_to_gateways_come_first_and_the_best_of_each_network_stays() {
        let kernels = netlink::Route { is_kernels: true, ..route("10.0.0.0", 24, None, 0) };
        let all = [
            route("0.0.0.0", 0, Some("10.0.0.9"), 100),
            route("0.0.0.0", 0, Some("169.254.1.1"), 50),
            kernels,
            route("10.9.0.0", 16, Some("fe80::1"), 0),
            route("169.254.1.1", 32, None, 0),
            route("::", 0, Some("fe80::1"), 1024),
        ];
        let (_, routes) = guest_view(&[], &all);
        assert_eq!(shown(&routes), ["169.254.1.1/32 -", "0.0.0.0/0 169.254.1.1", "::/0 fe80::1"]);
    }
}
