// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the guest resolves names: `/etc/resolv.conf` and `/etc/hosts`, from the options and from what the networks offer. Pure.

use crate::config::host_entry::{HostAddress, HostEntry};
use crate::config::request::Request;
use guest_protocol::run_spec::{Host, Interface, Resolver};
use std::net::IpAddr;

/// `--add-host NAME:host-gateway` without a network that has the host in it.
#[derive(Debug, thiserror::Error)]
#[error("--add-host {0}: no network reaches the host")]
pub(crate) struct NoHostError(String);

/// Each option replaces what the networks offer; `--dns-search .` leaves no search list.
pub(super) fn resolver(request: &Request, offered: Resolver) -> Resolver {
    let words = |given: &[crate::config::dns_word::DnsWord], offered: Vec<String>| match given {
        [] => offered,
        _ => given.iter().map(|word| word.as_str().to_owned()).filter(|word| word != ".").collect(),
    };
    Resolver {
        servers: if request.dns.is_empty() { offered.servers } else { request.dns.clone() },
        search: words(&request.dns_search, offered.search),
        options: words(&request.dns_option, offered.options),
    }
}

/// For networks that offer no name servers: the host's own, as in docker, if the guest has a way to them. Without a gateway
/// each look-up would wait for its timeout instead of failing at once. With DHCP the server decides.
pub(super) fn hosts_own(interfaces: &[Interface], host: impl FnOnce() -> Resolver) -> Resolver {
    let has_gateway = interfaces.iter().flat_map(|interface| &interface.routes).any(|route| route.gateway.is_some());
    let has_dhcp = interfaces.iter().any(|interface| interface.dhcp.is_some());
    if has_gateway && !has_dhcp { host() } else { Resolver::default() }
}

/// The lines of `--add-host`. `host` is the host as the guest reaches it.
pub(super) fn hosts(request: &Request, host: Option<IpAddr>) -> Result<Vec<Host>, NoHostError> {
    let line = |entry: &HostEntry| {
        let address = match entry.address {
            HostAddress::Address(address) => address,
            HostAddress::Host => host.ok_or_else(|| NoHostError(entry.to_string()))?,
        };
        Ok(Host { address, names: entry.name.clone() })
    };
    request.add_host.iter().map(line).collect()
}

/// The settings in a `resolv.conf(5)`. What cannot be understood is left out.
pub(super) fn parse_resolv_conf(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // A link-local server's scope names an interface of the host.
            Some("nameserver") => resolver.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            // The last one counts.
            Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
            Some("options") => resolver.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    resolver
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_protocol::run_spec::{Address, Dhcp, Route};

    fn offered() -> Resolver {
        parse_resolv_conf(
            "# comment\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nnameserver fd00::53\ndomain old\nsearch a.lan lan\n\
             options ndots:2 edns0\noptions rotate\nsortlist 1\n",
        )
    }

    #[test]
    fn resolv_conf_is_read_as_the_resolver_reads_it() {
        let Resolver { servers, search, options } = offered();
        assert_eq!(servers, ["10.0.0.53", "fd00::53"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(
            (search, options),
            (vec!["a.lan".into(), "lan".into()], vec!["ndots:2".into(), "edns0".into(), "rotate".into()])
        );
    }

    /// A row: `--dns`, `--dns-search`, `--dns-option`; servers, search list and options of the result.
    #[test]
    fn resolver_is_merged_by_field_as_in_docker() {
        let servers = "10.0.0.53 fd00::53";
        let table = [
            (["", "", ""], [servers, "a.lan lan", "ndots:2 edns0 rotate"]),
            (["1.1.1.1", "", ""], ["1.1.1.1", "a.lan lan", "ndots:2 edns0 rotate"]),
            (["1.1.1.1 ::1", "", ""], ["1.1.1.1 ::1", "a.lan lan", "ndots:2 edns0 rotate"]),
            (["", "b.lan c.lan", ""], [servers, "b.lan c.lan", "ndots:2 edns0 rotate"]),
            (["", ".", ""], [servers, "", "ndots:2 edns0 rotate"]),
            (["", "", "timeout:1"], [servers, "a.lan lan", "timeout:1"]),
            (["1.1.1.1", ".", "timeout:1"], ["1.1.1.1", "", "timeout:1"]),
        ];
        for (options, expected) in table {
            let [dns, dns_search, dns_option] = options.map(|text| text.split_whitespace());
            let request = Request {
                dns: dns.map(|text| text.parse().unwrap()).collect(),
                dns_search: dns_search.map(|text| text.parse().unwrap()).collect(),
                dns_option: dns_option.map(|text| text.parse().unwrap()).collect(),
                ..Request::default()
            };
            let Resolver { servers, search, options: words } = resolver(&request, offered());
            let servers: Vec<_> = servers.iter().map(IpAddr::to_string).collect();
            assert_eq!([servers.join(" "), search.join(" "), words.join(" ")], expected, "{options:?}");
        }
    }

    #[test]
    fn hosts_own_servers_need_a_gateway() {
        let route = |gateway: Option<&str>| Route {
            destination: Address { address: "0.0.0.0".parse().unwrap(), prefix: 0 },
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        let interface = |routes: &[Route]| Interface { routes: routes.to_vec(), ..Interface::default() };
        let own = |interfaces: &[Interface]| hosts_own(interfaces, offered);
        assert_eq!(own(&[]), Resolver::default());
        assert_eq!(own(&[interface(&[]), interface(&[route(None)])]), Resolver::default());
        let with_gateway = interface(&[route(Some("10.0.0.1"))]);
        assert_eq!(own(&[interface(&[]), with_gateway.clone()]), offered());
        let dhcp = Interface { dhcp: Some(Dhcp { search: true }), ..Interface::default() };
        assert_eq!(own(&[dhcp, with_gateway]), Resolver::default());
    }

    #[test]
    fn host_gateway_needs_a_network_with_the_host() {
        let request = Request {
            add_host: vec!["db:10.0.0.2".parse().unwrap(), "host:host-gateway".parse().unwrap()],
            ..Request::default()
        };
        let address = "192.0.2.7".parse().unwrap();
        let names: Vec<_> = hosts(&request, Some(address)).unwrap().into_iter().map(|host| host.address).collect();
        assert_eq!(names, ["10.0.0.2".parse().unwrap(), address]);
        assert_eq!(
            hosts(&request, None).unwrap_err().to_string(),
            "--add-host host:host-gateway: no network reaches the host"
        );
    }
}
