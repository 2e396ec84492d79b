// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host's own network offers: default routes, the address of its main interface, name servers.

use super::names::parse_resolv_conf;
use guest_protocol::run_spec::Resolver;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

const MAX_RESOLV_CONF_BYTES: u64 = 64 << 10;
/// Its servers are those behind systemd-resolved's own, which answers on a loopback address.
const RESOLVED_SERVERS: &str = "/run/systemd/resolve/resolv.conf";
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// Whether packets to any address have a route, for IPv4 and IPv6.
pub(super) fn default_routes() -> [bool; 2] {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    [has_default4(&read("/proc/net/route")), has_default6(&read("/proc/net/ipv6_route"))]
}

/// In the form of `/proc/net/route`.
fn has_default4(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00000000", _, flags, _, _, _, "00000000", ..] = fields[..] else { return false };
        u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (RTF_UP | RTF_REJECT) == RTF_UP)
    })
}

/// In the form of `/proc/net/ipv6_route`.
fn has_default6(table: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, _, _, _, _, flags, device] = fields[..] else { return false };
        let usable = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (RTF_UP | RTF_REJECT) == RTF_UP);
        destination.bytes().all(|digit| digit == b'0') && usable && device != "lo"
    })
}

/// The address from which the host reaches others.
pub(super) fn main_address() -> Option<Ipv4Addr> {
    // Connecting a datagram socket sends nothing; the address is reserved for documentation.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// The host's resolver configuration, and a server that only the host itself reaches, if there are no others.
pub(super) fn resolver() -> (Resolver, Option<IpAddr>) {
    let read = |path: &str| {
        let mut bytes = Vec::new();
        let file = File::open(path).and_then(|file| file.take(MAX_RESOLV_CONF_BYTES).read_to_end(&mut bytes));
        file.map(|_| parse_resolv_conf(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
    };
    choose(read("/etc/resolv.conf"), || read(RESOLVED_SERVERS))
}

fn choose(mut resolver: Resolver, behind: impl FnOnce() -> Resolver) -> (Resolver, Option<IpAddr>) {
    let local = resolver.servers.iter().copied().find(IpAddr::is_loopback);
    resolver.servers.retain(|server| !server.is_loopback());
    if resolver.servers.is_empty() && local.is_some() {
        resolver.servers = behind().servers;
        resolver.servers.retain(|server| !server.is_loopback());
    }
    let local = local.filter(|_| resolver.servers.is_empty());
    (resolver, local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_route_of_ipv4_is_found() {
        const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let table = |line: &str| format!("{HEAD}eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n{line}");
        assert!(has_default4(&table("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")));
        assert!(!has_default4(&table("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n")));
        assert!(!has_default4(&table("*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n")));
        assert!(!has_default4(&table("")) && !has_default4(""));
    }

    #[test]
    fn default_route_of_ipv6_is_found() {
        let zero = "0".repeat(32);
        let line = |flags, device| format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 {flags} {device}\n");
        assert!(has_default6(&line("00450003", "eth0")));
        // The kernel's own entry that rejects.
        assert!(!has_default6(&line("00200200", "lo")));
        assert!(!has_default6(&line("00450003", "eth0").replacen(" 00 ", " 40 ", 1)));
    }

    #[test]
    fn loopback_servers_are_replaced_by_those_behind_them() {
        let parse = parse_resolv_conf;
        let servers = |text: &str, behind: &str| {
            let (resolver, local) = choose(parse(text), || parse(behind));
            (resolver.servers.iter().map(ToString::to_string).collect::<Vec<_>>(), local.map(|ip| ip.to_string()))
        };
        let (stub, upstream) = ("nameserver 127.0.0.53\nsearch lan\n", "nameserver 10.0.0.53\n");
        assert_eq!(servers(stub, upstream), (vec!["10.0.0.53".to_owned()], None));
        assert_eq!(servers(stub, ""), (vec![], Some("127.0.0.53".to_owned())));
        assert_eq!(
            servers("nameserver 127.0.0.1\nnameserver fd00::53\n", upstream),
            (vec!["fd00::53".to_owned()], None)
        );
        assert_eq!(servers("", upstream), (vec![], None));
        assert_eq!(choose(parse(stub), || parse(upstream)).0.search, ["lan"]);
    }
}
