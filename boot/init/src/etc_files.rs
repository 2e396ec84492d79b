// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contents of the files in `/etc` that describe the machine rather than the image.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use guest_protocol::run_spec::RunSpec;

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
    if !spec.resolv_conf.is_empty() {
        files.push(("/etc/resolv.conf", spec.resolv_conf.clone()));
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

/// The host name resolves to the machine's first address, or to a loopback address of its own if it
/// has none.
fn hosts(spec: &RunSpec) -> String {
    let mut hosts = String::from(LOCAL_HOSTS);
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
    fn host_name_resolves_to_the_first_address() {
        let interfaces =
            [None, Some(([10, 0, 2, 15], 24))].map(|address| Interface { address, ..Interface::default() }).to_vec();
        let spec = RunSpec {
            hostname: "box".into(),
            interfaces,
            extra_hosts: ["10.0.0.9\tdb".into()].to_vec(),
            ..RunSpec::default()
        };
        let expected = [LOCAL_HOSTS, "10.0.2.15\tbox\n10.0.0.9\tdb\n"].concat();
        assert_eq!(contents(&spec)[0].1, expected);
    }

    #[test]
    fn host_name_without_an_interface_resolves_to_loopback() {
        let spec = RunSpec { hostname: "box".into(), ..RunSpec::default() };
        assert!(hosts(&spec).ends_with("127.0.1.1\tbox\n"));
    }

    #[test]
    fn contents_lists_only_the_requested_files() {
        let names = |spec: &RunSpec| contents(spec).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
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
