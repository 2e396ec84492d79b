// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network adopt`: a network namespace like that of a container, with a veth pair to another namespace, which stands for the
//! host.

use crate::life_cycle::status;
use coracle_tests::{Case, NetworkNamespace, TestDir, case, image};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm, Root], unusable_interfaces_are_named_before_the_boot),
        case!(Full[Root], adopted_interface_is_the_machines_until_it_is_killed),
        case!(Full[Root], adopted_interfaces_go_down_and_are_given_back),
    ]
}

const LIMIT: Duration = Duration::from_secs(60);

const RESOLV_CONF: &str = "nameserver 10.7.0.53\nsearch adopted.test\n";

/// A namespace of a container with `eth0`, whose other end `v0` is in the second one.
fn pair(dir: &TestDir) -> (NetworkNamespace, NetworkNamespace) {
    let inner = NetworkNamespace::empty(dir, RESOLV_CONF);
    let outer = NetworkNamespace::empty(dir, RESOLV_CONF);
    inner.ip("link add eth0 mtu 1400 address 02:00:00:00:00:07 type veth peer name v0");
    inner.give("v0", &outer);
    outer.ip("address add 10.7.0.1/24 dev v0");
    outer.ip("address add fd07::1/64 dev v0 nodad");
    outer.ip("link set v0 up");
    inner.ip("link set eth0 up");
    inner.ip("address add 10.7.0.2/24 dev eth0");
    inner.ip("address add fd07::2/64 dev eth0 nodad");
    inner.ip("route add default via 10.7.0.1");
    inner.ip("route add 10.8.0.0/16 via 10.7.0.3");
    inner.ip("-6 route add default via fd07::1");
    (inner, outer)
}

/// Addresses and routes of `eth0`.
fn configuration(network: &NetworkNamespace) -> String {
    [network.ip("address show dev eth0"), network.ip("route show"), network.ip("-6 route show dev eth0")].concat()
}

/// Waits until the kernel has an IPv6 address of the link, which it makes after a probe.
fn settled_configuration(network: &NetworkNamespace) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let shown = configuration(network);
        if shown.contains("inet6 fe80") && !shown.contains("tentative") {
            return shown;
        }
        assert!(Instant::now() < deadline, "no IPv6 address of the link: {shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The files by which a next start would undo what machines changed.
pub(crate) fn states_left(network: &NetworkNamespace) -> Vec<String> {
    let number = network.number().to_string();
    let files = fs::read_dir("/run/coracle/networks").into_iter().flatten().flatten();
    files.map(|file| file.file_name().to_string_lossy().into_owned()).filter(|name| name.contains(&number)).collect()
}

/// Answers each TCP connection to `address` with one line.
fn serve(network: &NetworkNamespace, address: &str) {
    let address: SocketAddr = address.parse().expect("it is an address");
    let listener = network.enter(|| TcpListener::bind(address)).expect("the port is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"from outside\n");
        }
    });
}

/// What the TCP server at `address` sends.
fn receive(network: &NetworkNamespace, address: &str) -> String {
    let address: SocketAddr = address.parse().expect("it is an address");
    network.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT).expect("the guest accepts");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the guest sends text");
        text
    })
}

pub(crate) fn kill(dir: &TestDir, name: &str) {
    let pid = status(dir, name)["pid"].as_i64().expect("a number");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process number")).expect("not 0");
    kill_process(pid, Signal::KILL).expect("it is alive");
    dir.verb("wait", &[name]).finish().assert_status(125).assert_one_line_naming(&[name, "killed"]);
}

fn wait_for_links(dir: &TestDir, name: &str, links: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    while status(dir, name)["links"] != serde_json::json!(links) {
        assert!(Instant::now() < deadline, "the links are not {links:?}: {}", status(dir, name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn unusable_interfaces_are_named_before_the_boot() {
    let dir = TestDir::new();
    let empty = NetworkNamespace::empty(&dir, RESOLV_CONF);
    let refuse = |network: &str, objects: &[&str]| {
        for verb in ["run", "check"] {
            let arguments = ["--network", network, &image("busybox"), "true"];
            let refused = dir.verb(verb, &arguments).in_network(&empty).finish();
            refused.assert_status(125);
            let lines: Vec<&str> = refused.stderr.lines().collect();
            assert!(matches!(*lines, [line] if objects.iter().all(|object| line.contains(object))), "{lines:?}");
        }
    };
    refuse("adopt", &["--network adopt: ", "no Ethernet interface that is up"]);
    refuse("adopt=eth0", &["--network adopt=eth0: ", "no such interface"]);
    refuse("adopt=lo,mtu=1500", &["adopt=lo"]);
    refuse("adopt,mac=02:00:00:00:00:01", &["--network adopt", "mac="]);
    empty.ip("link add eth0 type veth peer name eth1");
    refuse("adopt=eth0", &["--network adopt=eth0: the interface is down"]);
    empty.ip("link set eth0 up");
    empty.ip("link set eth1 up");
    refuse("adopt", &["eth0", "eth1", "adopt=IFNAME"]);
}

fn adopted_interface_is_the_machines_until_it_is_killed() {
    let dir = TestDir::new().keeping_machines();
    let (inner, outer) = pair(&dir);
    let before = settled_configuration(&inner);
    let busybox = image("busybox");
    dir.verb("check", &["--network", "adopt", &busybox]).in_network(&inner).finish().assert_status(0);
    assert_eq!(configuration(&inner), before, "`check` changes nothing");

    serve(&outer, "10.7.0.1:8000");
    serve(&outer, "[fd07::1]:8000");
    // The server of the guest answers a line as well.
    let script = "cd /sys/class/net/eth0; echo mac $(cat address) mtu $(cat mtu); ip address show eth0; ip route; \
                  ip -6 route; cat /etc/resolv.conf; ping -c 1 -w 30 10.7.0.1 && ping -c 1 -w 30 fd07::1 && echo pinged; \
                  nc 10.7.0.1 8000; nc fd07::1 8000; nc -ll -p 80 -e echo from inside & \
                  while ! netstat -ltn | grep -q :80; do usleep 100000; done; echo up; wait";
    let arguments = ["-d", "--name", "adopted", "--network", "adopt", &busybox, "sh", "-c", script];
    dir.verb("run", &arguments).in_network(&inner).finish().assert_status(0);
    let mut logs = dir.verb("logs", &["-f", "adopted"]).start();
    logs.wait_for_stdout("up\n");
    assert_eq!(receive(&outer, "10.7.0.2:80"), "from inside\n");
    assert_eq!(receive(&outer, "[fd07::2]:80"), "from inside\n");
    assert!(!configuration(&inner).contains("inet"), "{}", configuration(&inner));
    let busy = dir.verb("run", &["--network", "adopt=eth0", &busybox, "true"]).in_network(&inner).finish();
    busy.assert_status(125).assert_one_line_naming(&["--network adopt=eth0: another machine has adopted"]);

    kill(&dir, "adopted");
    let shown = logs.finish().stdout_text();
    for line in [
        "mac 02:00:00:00:00:07 mtu 1400",
        "inet 10.7.0.2/24",
        "inet6 fd07::2/64",
        "default via 10.7.0.1 dev eth0",
        "10.8.0.0/16 via 10.7.0.3 dev eth0",
        "default via fd07::1 dev eth0",
        "nameserver 10.7.0.53",
        "search adopted.test",
        "pinged\nfrom outside\nfrom outside\n",
    ] {
        assert!(shown.contains(line), "no `{line}` in {shown}");
    }
    assert_eq!(states_left(&inner).len(), 1);
    // The next start puts them back, even one that fails.
    assert!(!configuration(&inner).contains("inet"), "{}", configuration(&inner));
    let next = dir.verb("run", &["--network", "adopt=eth9", &busybox, "true"]).in_network(&inner).finish();
    next.assert_status(125).assert_one_line_naming(&["eth9"]);
    assert_eq!(settled_configuration(&inner), before);
}

fn adopted_interfaces_go_down_and_are_given_back() {
    let dir = TestDir::new().keeping_machines();
    let (inner, _outer) = pair(&dir);
    inner.ip("link add eth1 type veth peer name v1");
    inner.ip("link set eth1 up");
    inner.ip("link set v1 up");
    let before = settled_configuration(&inner);
    let networks = ["--network", "adopt=eth0", "--network", "adopt=eth1"];
    let busybox = image("busybox");
    let arguments = [&["-d", "--name", "two"], &networks[..], &[&busybox, "sleep", "1000"]].concat();
    dir.verb("run", &arguments).in_network(&inner).finish().assert_status(0);
    wait_for_links(&dir, "two", &["up", "up"]);
    assert!(!configuration(&inner).contains("inet"), "{}", configuration(&inner));
    inner.ip("link delete eth1");
    wait_for_links(&dir, "two", &["up", "down"]);
    inner.ip("link set eth0 down");
    wait_for_links(&dir, "two", &["down", "down"]);
    inner.ip("link set eth0 up");
    wait_for_links(&dir, "two", &["up", "down"]);
    assert_eq!(status(&dir, "two")["state"], "running");
    dir.verb("stop", &["-t", "0", "two"]).finish().assert_status(0);
    assert_eq!(settled_configuration(&inner), before);
    assert_eq!(states_left(&inner), [""; 0]);
}
