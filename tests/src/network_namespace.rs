// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A network namespace that looks like a host with a network: addresses of both families, default routes, a name server. No
//! packet leaves it, so that tests need no network, and ports of two tests do not meet.

use crate::TestDir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

/// A veth pair has a carrier without any other host. The shell holds the namespaces until its standard input is closed.
const SCRIPT: &str = "\
    ip link set lo up
    ip link add eth0 type veth peer name peer
    ip address add 10.9.9.9/24 dev eth0
    ip address add fd09::9/64 dev eth0 nodad
    ip link set eth0 up
    ip link set peer up
    ip route add default via 10.9.9.1
    ip -6 route add default via fd09::1
    mount --bind \"$1\" /etc/resolv.conf
    echo ready
    read line";

/// A network namespace, and a mount namespace with a resolver configuration of its own. Both end with this value, or with the
/// tests.
pub struct NetworkNamespace(Child);

impl NetworkNamespace {
    /// Its main address of IPv4.
    pub const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
    /// Its main address of IPv6.
    pub const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 9));

    /// `resolv_conf` is the content of its `/etc/resolv.conf`.
    #[must_use]
    pub fn new(dir: &TestDir, resolv_conf: &str) -> NetworkNamespace {
        let file = dir.write("host-resolv.conf", resolv_conf);
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-ec", SCRIPT, "sh"]).arg(file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare(1) can be started");
        let mut line = String::new();
        let stdout = holder.stdout.as_mut().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        let namespace = NetworkNamespace(holder);
        assert_eq!(line, "ready\n", "no network namespace: its script failed");
        namespace
    }

    /// Calls `work` on a thread in the namespace: the sockets that it makes belong to the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let file = File::open(self.path("net")).expect("its process is alive");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
            work()
        };
        let result = std::thread::scope(|scope| scope.spawn(enter).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The beginning of a command line that runs in both namespaces.
    pub(crate) fn words(&self) -> [String; 3] {
        let option = |kind: &str, file: &str| format!("--{kind}={}", self.path(file));
        ["nsenter".to_owned(), option("net", "net"), option("mount", "mnt")]
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/ns/{file}", self.0.id())
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
