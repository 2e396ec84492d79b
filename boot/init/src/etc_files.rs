// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contents of the files in `/etc` that belong to the machine and not to the image.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use guest_protocol::run_spec::RunSpec;

/// Path and content of every file that `spec` asks for. An empty resolver configuration leaves the image's file alone, and
/// a system's own files are left alone unless something in them was asked for: they stay when the machine ends.
#[must_use]
pub fn of(spec: &RunSpec) -> Vec<(&'static str, String)> {
    let mut files = Vec::with_capacity(3);
    if spec.system.is_none() || !spec.extra_hosts.is_empty() {
        files.push(("/etc/hosts", hosts(spec)));
    }
    if !spec.hostname.is_empty() && spec.system.is_none_or(|system| system.explicit_hostname) {
        files.push(("/etc/hostname", format!("{}\n", spec.hostname)));
    }
    if !spec.resolv_conf.is_empty() {
        files.push(("/etc/resolv.conf", spec.resolv_conf.clone()));
    }
    files
}

/// The host name stands for the machine's first address, or for a loopback address of its own if it has none.
fn hosts(spec: &RunSpec) -> String {
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if !spec.hostname.is_empty() {
        let address = spec.interfaces.iter().find_map(|interface| interface.address);
        let [a, b, c, d] = address.map_or([127, 0, 1, 1], |(address, _)| address);
        let _ = writeln!(hosts, "{a}.{b}.{c}.{d}\t{}", spec.hostname);
    }
    for line in &spec.extra_hosts {
        hosts.push_str(line);
        hosts.push('\n');
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_protocol::run_spec::{Interface, System};

    #[test]
    fn the_host_name_stands_for_the_first_address() {
        let interfaces =
            [None, Some(([10, 0, 2, 15], 24))].map(|address| Interface { address, ..Interface::default() }).to_vec();
        let spec = RunSpec {
            hostname: "box".into(),
            interfaces,
            extra_hosts: ["10.0.0.9\tdb".into()].to_vec(),
            ..RunSpec::default()
        };
        assert_eq!(
            of(&spec)[0].1,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.2.15\tbox\n10.0.0.9\tdb\n"
        );
    }

    #[test]
    fn a_machine_without_addresses_still_knows_its_own_name() {
        let spec = RunSpec { hostname: "box".into(), ..RunSpec::default() };
        assert!(hosts(&spec).ends_with("127.0.1.1\tbox\n"));
    }

    #[test]
    fn only_what_is_asked_for_is_written() {
        let names = |spec: &RunSpec| of(spec).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(names(&RunSpec::default()), ["/etc/hosts"]);
        let spec = RunSpec { hostname: "a".into(), resolv_conf: "nameserver 1.1.1.1\n".into(), ..RunSpec::default() };
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
