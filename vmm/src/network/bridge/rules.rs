// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The nftables table of all bridges of a network namespace, as text for nft(8), which replaces it as a whole, in one transaction.
//! Pure.
//!
//! | chain | for |
//! |---|---|
//! | `prerouting`, `output`, `published` | published ports, of packets from outside and of the host's own; queries of names |
//! | `forward` | what reaches a bridge from outside: replies and published ports, nothing else |
//! | `postrouting` | what leaves a bridge has the host's address |

use super::lease::Lease;
use super::subnet::Subnet;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The table for the leases `live`; without any it is removed.
pub(super) fn table(live: &[Lease]) -> String {
    // Deleting needs a table that exists.
    let mut text = "table inet coracle\ndelete table inet coracle\n".to_owned();
    if live.is_empty() {
        return text;
    }
    let published: String = live.iter().map(published).collect();
    let queries: String = live.iter().map(queries).collect();
    let bridges: BTreeMap<&str, Subnet> = live.iter().map(|lease| (&*lease.bridge, lease.subnet)).collect();
    let (mut forward, mut postrouting) = (String::new(), String::new());
    for (bridge, subnet) in bridges {
        let from_outside = format!("oifname \"{bridge}\" iifname != \"{bridge}\"");
        let _ = write!(
            forward,
            "{from_outside} ct state established,related accept\n{from_outside} ct status dnat accept\n{from_outside} drop\n"
        );
        for (family, network) in ["ip", "ip6"].into_iter().zip(subnet.networks()) {
            // The second rule: a machine at a port that another one, or it itself, publishes.
            let _ = write!(
                postrouting,
                "{family} saddr {network} oifname != \"{bridge}\" masquerade\n\
                 {family} saddr {network} {family} daddr {network} ct status dnat masquerade\n"
            );
        }
    }
    let _ = write!(
        text,
        "table inet coracle {{\n\
         chain published {{\n{published}}}\n\
         chain prerouting {{\ntype nat hook prerouting priority dstnat;\n{queries}fib daddr type local jump published\n}}\n\
         chain output {{\ntype nat hook output priority -100;\nip daddr 127.0.0.0/8 return\nip6 daddr ::1 return\n\
         fib daddr type local jump published\n}}\n\
         chain forward {{\ntype filter hook forward priority filter;\n{forward}}}\n\
         chain postrouting {{\ntype nat hook postrouting priority srcnat;\n{postrouting}}}\n}}\n"
    );
    text
}

/// The rules for the ports of one machine.
fn published(lease: &Lease) -> String {
    let [ipv4, ipv6] = lease.addresses();
    let mut text = String::new();
    for port in &lease.ports {
        let (protocol, from, to) = (port.protocol, port.host_port, port.port);
        let to4 = format!("{protocol} dport {from} dnat ip to {ipv4}:{to}\n");
        let to6 = format!("{protocol} dport {from} dnat ip6 to [{ipv6}]:{to}\n");
        let _ = match port.host_ip {
            IpAddr::V4(ip) if ip.is_unspecified() => write!(text, "meta nfproto ipv4 {to4}meta nfproto ipv6 {to6}"),
            IpAddr::V6(ip) if ip.is_unspecified() => write!(text, "meta nfproto ipv6 {to6}"),
            IpAddr::V4(ip) => write!(text, "ip daddr {ip} {to4}"),
            IpAddr::V6(ip) => write!(text, "ip6 daddr {ip} {to6}"),
        };
    }
    text
}

/// The rules by which the queries of a machine reach its own process, at a port that no other name server of the host has.
fn queries(lease: &Lease) -> String {
    let ([own, _], [gateway, _]) = (lease.addresses(), lease.subnet.gateways());
    let rule =
        |protocol, port| format!("ip saddr {own} ip daddr {gateway} {protocol} dport 53 dnat ip to {gateway}:{port}\n");
    lease.name_server.map(|port| rule("udp", port) + &rule("tcp", port)).unwrap_or_default()
}

/// The first chain that drops forwarded packets by its policy, in the words of `nft list chains`: its family, table and name.
pub(super) fn forward_policy_drop(chains: &str) -> Option<String> {
    let (mut table, mut chain) = ("", "");
    for line in chains.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("table ").and_then(|rest| rest.strip_suffix(" {")) {
            table = name;
        } else if let Some(name) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
            chain = name;
        } else if line.contains(" hook forward ")
            && line.ends_with("policy drop;")
            && ["ip ", "inet "].iter().any(|family| table.starts_with(family))
        {
            return Some(format!("{table} {chain}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::lease::tests::lease;
    use super::*;
    use crate::config::publish::Protocol;
    use crate::state::published_port::PublishedPort;

    #[test]
    fn table_has_ports_and_networks_of_the_leases() {
        let port =
            |ip: &str, protocol| PublishedPort { host_ip: ip.parse().unwrap(), host_port: 8080, port: 80, protocol };
        let ports =
            vec![port("0.0.0.0", Protocol::Tcp), port("192.0.2.1", Protocol::Udp), port("fd00::1", Protocol::Tcp)];
        let one = Lease { ports, name_server: Some(4000), ..lease("web", 1, 2) };
        let other = Lease { bridge: "b-2".to_owned(), ..lease("db", 2, 9) };
        let text = table(&[one, other]);
        for rule in [
            "meta nfproto ipv4 tcp dport 8080 dnat ip to 10.89.1.2:80\n",
            "meta nfproto ipv6 tcp dport 8080 dnat ip6 to [fd89:c0a:0:1::2]:80\n",
            "ip daddr 192.0.2.1 udp dport 8080 dnat ip to 10.89.1.2:80\n",
            "ip6 daddr fd00::1 tcp dport 8080 dnat ip6 to [fd89:c0a:0:1::2]:80\n",
            "ip saddr 10.89.1.2 ip daddr 10.89.1.1 udp dport 53 dnat ip to 10.89.1.1:4000\n",
            "ip saddr 10.89.1.2 ip daddr 10.89.1.1 tcp dport 53 dnat ip to 10.89.1.1:4000\n",
            "ip saddr 10.89.1.0/24 oifname != \"lan\" masquerade\n",
            "ip6 saddr fd89:c0a:0:2::/64 oifname != \"b-2\" masquerade\n",
            "oifname \"b-2\" iifname != \"b-2\" drop\n",
        ] {
            assert!(text.contains(rule), "{rule}: {text}");
        }
        assert_eq!(text.matches("dport 53 ").count(), 2, "{text}");
        assert!(!table(&[]).contains('{'));
    }

    #[test]
    fn forward_chain_that_drops_is_found() {
        const CHAINS: &str = "table ip nat {\n\tchain DOCKER {\n\t}\n}\ntable ip filter {\n\tchain DOCKER-USER {\n\t}\n\
            \tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
            \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(forward_policy_drop(CHAINS).as_deref(), Some("ip filter FORWARD"));
        assert_eq!(forward_policy_drop(&CHAINS.replace("table ip filter", "table bridge filter")), None);
        assert_eq!(forward_policy_drop(&CHAINS.replace("drop", "accept")), None);
        assert_eq!(forward_policy_drop(""), None);
    }
}
