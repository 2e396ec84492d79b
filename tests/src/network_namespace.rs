// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A network namespace that stands for a host or a container. No packet leaves it, so that tests need no network, and ports of
//! two tests do not meet.

use crate::TestDir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};

/// The shell holds the namespaces until its standard input is closed.
const SCRIPT: &str = "mount --bind \"$1\" /etc/resolv.conf; ip link set lo up; echo ready; read line";

/// A veth pair has a carrier without any other host.
const HOST: [&str; 7] = [
    "link add eth0 type veth peer name peer",
    "address add 10.9.9.9/24 dev eth0",
    "address add fd09::9/64 dev eth0 nodad",
    "link set eth0 up",
    "link set peer up",
    "route add default via 10.9.9.1",
    "-6 route add default via fd09::1",
];

/// A network namespace, and a mount namespace with a resolver configuration of its own. Both end with this value, or with the
/// tests.
pub struct NetworkNamespace(Child);

impl NetworkNamespace {
    /// Its main address of IPv4.
    pub const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
    /// The address outside of a [host](Self::host_and_outside).
    pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
    /// Its main address of IPv6.
    pub const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 9));

    /// One that looks like a host with a network: addresses of both families, default routes, a name server. `resolv_conf` is
    /// the content of its `/etc/resolv.conf`.
    #[must_use]
    pub fn new(dir: &TestDir, resolv_conf: &str) -> NetworkNamespace {
        let host = Self::empty(dir, resolv_conf);
        HOST.iter().for_each(|arguments| drop(host.ip(arguments)));
        host
    }

    /// One with the loopback interface only.
    #[must_use]
    pub fn empty(dir: &TestDir, resolv_conf: &str) -> NetworkNamespace {
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

    /// A host with one interface, `eth0`, and what is outside of it, at [`OUTSIDE`](Self::OUTSIDE).
    #[must_use]
    pub fn host_and_outside(dir: &TestDir, resolv_conf: &str) -> (NetworkNamespace, NetworkNamespace) {
        let (host, outside) = (Self::empty(dir, resolv_conf), Self::empty(dir, resolv_conf));
        host.ip("link add eth0 type veth peer name v0");
        host.give("v0", &outside);
        outside.ip("address add 10.7.0.1/24 dev v0");
        outside.ip("link set v0 up");
        host.ip("link set eth0 up");
        host.ip("address add 10.7.0.2/24 dev eth0");
        host.ip("route add default via 10.7.0.1");
        (host, outside)
    }

    /// Runs ip(8) in it with these arguments; returns what it prints.
    pub fn ip(&self, arguments: &str) -> String {
        self.run("ip", arguments)
    }

    /// Runs nft(8) in it with these arguments; returns what it prints.
    pub fn nft(&self, arguments: &str) -> String {
        self.run("nft", arguments)
    }

    /// A command that runs in both namespaces.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let [nsenter, options @ ..] = self.words();
        let mut command = Command::new(nsenter);
        command.args(options).arg(program);
        command
    }

    /// Runs tc(8) in it with these arguments; returns what it prints.
    pub fn tc(&self, arguments: &str) -> String {
        self.run("tc", arguments)
    }

    fn run(&self, tool: &str, arguments: &str) -> String {
        let output = self.command(tool).args(arguments.split(' ')).output();
        let output = output.expect("nsenter(1) can be started");
        assert!(output.status.success(), "{tool} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Moves the interface `name` from here to `other`.
    pub fn give(&self, name: &str, other: &NetworkNamespace) {
        let _ = self.ip(&format!("link set {name} netns {}", other.0.id()));
    }

    /// The number by which the kernel identifies the network namespace.
    #[must_use]
    pub fn number(&self) -> u64 {
        fs::metadata(self.path("net")).expect("its process is alive").ino()
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
    #[must_use]
    pub fn words(&self) -> [String; 3] {
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
