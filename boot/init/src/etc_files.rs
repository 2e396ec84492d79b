// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contents of the files in `/etc` that describe the machine rather than the image.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::IpAddr;
use guest_protocol::run_spec::{Host, Resolver, RunSpec};

/// Returns path and content of each file to write for `spec`. An empty resolver configuration
/// leaves the image's file alone. The files of a system outlive the machine, so they are left alone
/// unless the user gave their content.
#[must_use]
pub fn contents(spec: &RunSpec) -> Vec<(&'static str, String)> {
    let mut files = Vec::with_capacity(3);
    if spec.system.is_none() || !spec.extra_hosts.is_empty() {
        files.push(("/etc/hosts", hosts(spec)));
    }
    if !spec.hostname.is_empty() && spec.system.is_none_or(|system| system.explicit_hostname) {
        files.push(("/etc/hostname", format!("{}\n", spec.hostname)));
    }
    let resolv_conf = resolv_conf(&spec.resolver);
    if !resolv_conf.is_empty() {
        files.push(("/etc/resolv.conf", resolv_conf));
    }
    files
}

/// The same lines as in docker.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The host name resolves to the machine's first address of each family, or to a loopback address
/// of its own if it has none.
fn hosts(spec: &RunSpec) -> String {
    let mut hosts = String::from(LOCAL_HOSTS);
    if !spec.hostname.is_empty() {
        let addresses = || spec.interfaces.iter().flat_map(|interface| &interface.addresses).map(|own| own.address);
        // docker adds the bare name to one with a domain.
        let bare = spec.hostname.split_once('.').map_or("", |(bare, _)| bare);
        let names = if bare.is_empty() { spec.hostname.clone() } else { format!("{} {bare}", spec.hostname) };
        let own = [addresses().find(IpAddr::is_ipv4), addresses().find(IpAddr::is_ipv6)];
        for address in own.iter().flatten() {
            let _ = writeln!(hosts, "{address}\t{names}");
        }
        if own == [None; 2] {
            let _ = writeln!(hosts, "127.0.1.1\t{names}");
        }
    }
    for Host { address, names } in &spec.extra_hosts {
        let _ = writeln!(hosts, "{address}\t{names}");
    }
    hosts
}

fn resolv_conf(resolver: &Resolver) -> String {
    let mut content = String::new();
    for server in &resolver.servers {
        let _ = writeln!(content, "nameserver {server}");
    }
    for (keyword, words) in [("search", &resolver.search), ("options", &resolver.options)] {
        if !words.is_empty() {
            let _ = writeln!(content, "{keyword} {}", words.join(" "));
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_protocol::run_spec::{Address, Interface, System};

    #[test]
    fn host_name_resolves_to_the_first_address_of_each_family() {
        let interface = |addresses: &[&str]| {
            let address = |text: &&str| Address { address: text.parse().unwrap(), prefix: 24 };
            Interface { addresses: addresses.iter().map(address).collect(), ..Interface::default() }
        };
        let spec = RunSpec {
            hostname: "box".into(),
            interfaces: [interface(&[]), interface(&["fd00::15", "10.0.2.15", "10.0.2.16"])].to_vec(),
            extra_hosts: [Host { address: "10.0.0.9".parse().unwrap(), names: "db db.lan".into() }].to_vec(),
            ..RunSpec::default()
        };
        let expected = [LOCAL_HOSTS, "10.0.2.15\tbox\nfd00::15\tbox\n10.0.0.9\tdb db.lan\n"].concat();
        assert_eq!(contents(&spec)[0].1, expected);
    }

    #[test]
    fn resolv_conf_has_servers_search_list_and_options() {
        let words = |list: &[&str]| list.iter().map(|&word| word.into()).collect();
        let resolver = Resolver {
            servers: ["1.1.1.1", "2620:fe::9"].iter().map(|text| text.parse().unwrap()).collect(),
            search: words(&["a.lan", "lan"]),
            options: words(&["ndots:2", "edns0"]),
        };
        let expected = "nameserver 1.1.1.1\nnameserver 2620:fe::9\nsearch a.lan lan\noptions ndots:2 edns0\n";
        assert_eq!(resolv_conf(&resolver), expected);
    }

    #[test]
    fn host_name_without_an_interface_resolves_to_loopback() {
        for (hostname, line) in [("box", "127.0.1.1\tbox\n"), ("", ""), ("a.b.c", "127.0.1.1\ta.b.c a\n")] {
            let spec = RunSpec { hostname: hostname.into(), ..RunSpec::default() };
            assert_eq!(hosts(&spec), [LOCAL_HOSTS, line].concat());
        }
    }

    #[test]
    fn contents_lists_only_the_requested_files() {
        let names = |spec: &RunSpec| contents(spec).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(names(&RunSpec::default()), ["/etc/hosts"]);
        let resolver = Resolver { servers: ["1.1.1.1".parse().unwrap()].to_vec(), ..Resolver::default() };
        let spec = RunSpec { hostname: "a".into(), resolver, ..RunSpec::default() };
        assert_eq!(names(&spec), ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
        let system = |explicit_hostname| RunSpec {
            system: Some(System { explicit_hostname }),
            hostname: "a".into(),
            ..RunSpec::default()
        };
        assert_eq!(names(&system(false)), [""; 0]);
        assert_eq!(names(&system(true)), ["/etc/hostname"]);
    }
}
