// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network user`: the host's network without privileges, by passt.
//!
//! The guest has an address of its own (10.0.2.15, as with QEMU), not the host's, so that it reaches servers on every address
//! of the host but loopback ones: those stay private to the host. Everything is known before the start, so that PID 1 waits
//! for no DHCP. IPv6 is there if the host has a default route for it.

use super::guest::{self, default_route};
use super::host_routes;
use super::passt::{self, Passt, PasstError, forward};
use super::resolve::ResolvedInterface;
use crate::config::publish::Protocol;
use crate::host::helper_process::HelperProcess;
use crate::state::published_port::PublishedPort;
use devices::virtio::net::StreamSocket;
use guest_protocol::run_spec::{Address, Interface, Resolver};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PREFIX4: u8 = 24;
const PREFIX6: u8 = 64;
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x15);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2);
/// passt's default. No packet leaves the host like this: passt carries the contents of connections.
const MTU: u16 = 65520;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("the host has no default route for IPv4")]
    NoRoute,
    #[error(transparent)]
    Passt(#[from] PasstError),
    #[error("cannot use passt's socket")]
    Socket(#[source] std::io::Error),
}

/// A network that passt carries.
#[derive(Debug)]
pub(super) struct UserNetwork {
    pub(super) socket: StreamSocket,
    pub(super) process: HelperProcess,
    pub(super) guest: Interface,
    pub(super) resolver: Resolver,
    /// The host as the guest reaches it.
    pub(super) host: Option<IpAddr>,
}

pub(super) fn connect(interface: &ResolvedInterface, ports: &[PublishedPort]) -> Result<UserNetwork, UserError> {
    let [has_ipv4, has_ipv6] = host_routes::default_routes();
    if !has_ipv4 {
        return Err(UserError::NoRoute);
    }
    let host = host_routes::main_address();
    let mut guest = guest::configuration(interface);
    guest.mtu = guest.mtu.or(Some(MTU));
    complete(&mut guest, host, has_ipv6);

    let own4 = guest.addresses.iter().find(|own| own.address.is_ipv4());
    let gateway4 = guest.routes.iter().find_map(|route| route.gateway.filter(IpAddr::is_ipv4));
    let (Some(Address { address: IpAddr::V4(address), prefix }), Some(IpAddr::V4(gateway))) = (own4, gateway4) else {
        unreachable!("an IPv4 address and its gateway were added")
    };
    let mut options = vec!["--netmask".to_owned(), prefix.to_string()];
    for own in &guest.addresses {
        options.extend(["--address".to_owned(), own.address.to_string()]);
    }
    for gateway in guest.routes.iter().filter_map(|route| route.gateway) {
        options.extend(["--gateway".to_owned(), gateway.to_string()]);
    }
    if !guest.addresses.iter().any(|own| own.address.is_ipv6()) {
        options.push("--ipv4-only".to_owned());
    }
    let (mut resolver, local_server) = host_routes::resolver();
    if let Some(IpAddr::V4(server)) = local_server {
        // The gateway's address: from it passt sends what comes from the host's loopback addresses.
        options.extend(["--dns-forward".to_owned(), gateway.to_string(), "--dns".to_owned(), server.to_string()]);
        resolver.servers.push(gateway.into());
    }
    options.extend(forwards(ports));
    let as_guest = passt::Guest { mac: guest.mac, address: *address, gateway };
    let Passt { socket, process } = passt::start(&as_guest, &options)?;
    let socket = StreamSocket::new(socket).map_err(UserError::Socket)?;
    Ok(UserNetwork { socket, process, guest, resolver, host: host.map(IpAddr::V4) })
}

/// Adds the addresses and gateways that were not given.
fn complete(guest: &mut Interface, host: Option<Ipv4Addr>, has_ipv6: bool) {
    let has = |guest: &Interface, is: fn(&IpAddr) -> bool| guest.addresses.iter().any(|own| is(&own.address));
    if !has(guest, IpAddr::is_ipv4) {
        // In a network other than the host's, which may itself be QEMU's guest.
        let third = if host.is_some_and(|host| host.octets()[..3] == [10, 0, 2]) { 3 } else { 2 };
        guest.addresses.insert(0, Address { address: Ipv4Addr::new(10, 0, third, 15).into(), prefix: PREFIX4 });
    }
    if has_ipv6 && !has(guest, IpAddr::is_ipv6) {
        guest.addresses.push(Address { address: ADDRESS6.into(), prefix: PREFIX6 });
    }
    for Address { address, prefix } in guest.addresses.clone() {
        if guest.routes.iter().any(|route| route.destination.address.is_ipv4() == address.is_ipv4()) {
            continue;
        }
        let gateway = match address {
            IpAddr::V4(own) => IpAddr::V4(offset(own, prefix, own, 2)),
            IpAddr::V6(own) if own == ADDRESS6 => IpAddr::V6(GATEWAY6),
            // passt answers for every address.
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)),
        };
        guest.routes.push(default_route(gateway));
    }
}

/// The address `number` after the beginning of the network or after `of`, or another one in the network if that is `own`.
fn offset(of: Ipv4Addr, prefix: u8, own: Ipv4Addr, number: u32) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let base = if of == own { of.to_bits() & !hosts } else { of.to_bits() };
    let chosen = |number: u32| Ipv4Addr::from_bits(base & !hosts | base.wrapping_add(number) & hosts);
    if chosen(number) == own { chosen(number.wrapping_add(1)) } else { chosen(number) }
}

/// The options that forward ports. passt takes `none` for a protocol without any.
fn forwards(ports: &[PublishedPort]) -> Vec<String> {
    let mut options = Vec::new();
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let mut specs: Vec<String> = ports
            .iter()
            .filter(|port| port.protocol == protocol)
            .map(|port| forward(port.host_ip, port.host_port, port.port))
            .collect();
        if specs.is_empty() {
            specs.push("none".to_owned());
        }
        options.extend(specs.into_iter().flat_map(|spec| [option.to_owned(), spec]));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(host: &str, has_ipv6: bool, mut guest: Interface) -> (Vec<String>, Vec<String>) {
        complete(&mut guest, host.parse().ok(), has_ipv6);
        let addresses = guest.addresses.iter().map(|own| format!("{}/{}", own.address, own.prefix)).collect();
        (addresses, guest.routes.iter().filter_map(|route| route.gateway).map(|ip| ip.to_string()).collect())
    }

    #[test]
    fn complete_adds_what_was_not_given() {
        let own = |text: &str, prefix| Interface {
            addresses: vec![Address { address: text.parse().unwrap(), prefix }],
            ..Interface::default()
        };
        for (host, has_ipv6, given, addresses, gateways) in [
            ("192.0.2.2", false, Interface::default(), &["10.0.2.15/24"][..], &["10.0.2.2"][..]),
            ("10.0.2.15", true, Interface::default(), &["10.0.3.15/24", "fd00:2::15/64"], &["10.0.3.2", "fd00:2::2"]),
            ("192.0.2.2", false, own("10.9.0.2", 16), &["10.9.0.2/16"], &["10.9.0.3"]),
            ("192.0.2.2", true, own("fd01::9", 64), &["10.0.2.15/24", "fd01::9/64"], &["10.0.2.2", "fe80::2"]),
        ] {
            let (found, routes) = completed(host, has_ipv6, given);
            assert_eq!(
                (&found[..], &routes[..]),
                (
                    &addresses.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()[..],
                    &gateways.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()[..]
                )
            );
        }
    }

    #[test]
    fn forwards_name_each_port_or_none() {
        let port = |host_port, port, protocol| PublishedPort {
            host_ip: Ipv4Addr::LOCALHOST.into(),
            host_port,
            port,
            protocol,
        };
        assert_eq!(forwards(&[]), ["--tcp-ports", "none", "--udp-ports", "none"]);
        let both = forwards(&[port(8080, 80, Protocol::Tcp), port(8081, 81, Protocol::Tcp)]);
        let expected = ["--tcp-ports", "127.0.0.1/8080:80", "--tcp-ports", "127.0.0.1/8081:81", "--udp-ports", "none"];
        assert_eq!(both, expected);
    }
}
