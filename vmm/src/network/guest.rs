// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's side of an interface, for PID 1. Pure.

use super::resolve::ResolvedInterface;
use crate::config::network::Ipv4Setting;
use guest_protocol::run_spec::{Address, Dhcp, Interface, Route};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The configuration that the options give, without anything that the kind of network would add.
pub(super) fn configuration(interface: &ResolvedInterface) -> Interface {
    let ResolvedInterface { options, mac, .. } = interface;
    let address4 = match options.ipv4 {
        Some(Ipv4Setting::Static(address, prefix)) => Some(Address { address: address.into(), prefix }),
        Some(Ipv4Setting::Dhcp) | None => None,
    };
    let address6 = options.ipv6.map(|(address, prefix)| Address { address: address.into(), prefix });
    let gateways = [options.gateway4.map(IpAddr::V4), options.gateway6.map(IpAddr::V6)];
    Interface {
        mac: mac.octets(),
        name: options.name.clone().unwrap_or_default(),
        mtu: options.mtu,
        addresses: address4.into_iter().chain(address6).collect(),
        routes: gateways.into_iter().flatten().map(default_route).collect(),
        dhcp: (options.ipv4 == Some(Ipv4Setting::Dhcp)).then_some(Dhcp { search: true }),
    }
}

/// Adds what the network gives, unless the options give addresses.
pub(super) fn complete(guest: &mut Interface, addresses: Vec<Address>, routes: Vec<Route>) {
    if guest.addresses.is_empty() && guest.dhcp.is_none() {
        (guest.addresses, guest.routes) = (addresses, routes);
    }
}

/// The default route of the gateway's family.
pub(super) fn default_route(gateway: IpAddr) -> Route {
    let address = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Route { destination: Address { address, prefix: 0 }, gateway: Some(gateway) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network::Network;

    fn interface(text: &str) -> Interface {
        let Ok(Network::Interface(options)) = text.parse() else { panic!("{text}") };
        let mac = "02:00:00:00:00:01".parse().unwrap();
        configuration(&ResolvedInterface { options, mac, descriptor: None, is_default: false })
    }

    #[test]
    fn configuration_has_addresses_and_default_routes_of_both_families() {
        let both = interface("tap=a,ip=fd00::2/64,ip=10.0.0.2/24,gw=10.0.0.1,gw=fe80::1,mtu=9000,name=net0");
        let address = |text: &str, prefix| Address { address: text.parse().unwrap(), prefix };
        assert_eq!(both.addresses, [address("10.0.0.2", 24), address("fd00::2", 64)]);
        let route = |destination, gateway: &str| Route {
            destination: address(destination, 0),
            gateway: Some(gateway.parse().unwrap()),
        };
        assert_eq!(both.routes, [route("0.0.0.0", "10.0.0.1"), route("::", "fe80::1")]);
        assert_eq!((both.mtu, &*both.name, both.dhcp), (Some(9000), "net0", None));
        let dhcp = interface("tap=a,ip=dhcp");
        let expected = Some(Dhcp { search: true });
        assert_eq!(dhcp, Interface { mac: [2, 0, 0, 0, 0, 1], dhcp: expected, ..Interface::default() });
    }
}
