// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network bridge`: machines that find each other, published ports, and what is left after a kill. Each test has a network
//! namespace that stands for the host.

use crate::adopted_network::{kill, states_left};
use crate::user_network::receive;
use coracle_tests::{Case, Invocation, NetworkNamespace, TestDir, case, coracle, image};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm, Root, Nftables], unusable_bridges_are_named_before_the_boot),
        case!(Quick[Kvm, Root, Nftables], networks_are_listed_and_removed),
        case!(Full[Root, Nftables], machines_on_a_bridge_meet_by_name_and_leave_nothing),
    ]
}

/// The host outside of the namespace that stands for coracle's host.
const OUTSIDE: IpAddr = IpAddr::V4(NetworkNamespace::OUTSIDE);
/// The address of coracle's host in the same network.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 7, 0, 2));
const RESOLV_CONF: &str = "nameserver 10.7.0.1\nsearch bridge.test\n";

fn network_verb(dir: &TestDir, arguments: &[&str]) -> Invocation {
    dir.invocation(arguments).verb("network")
}

/// Everything of the namespace that a machine on a bridge changes.
fn configuration(network: &NetworkNamespace) -> Vec<String> {
    let forwarding = network.enter(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
    let mut found = vec![network.ip("-o link"), network.ip("-4 -o address"), network.nft("list ruleset")];
    found.push(forwarding.expect("every kernel has it"));
    found.extend(states_left(network));
    found
}

/// The leases of 253 machines that live as long as this.
fn take_all_addresses(network: &NetworkNamespace) -> Vec<File> {
    fs::create_dir_all("/run/coracle/networks").expect("root may make it");
    let lease = |host: u8| {
        let path = format!("/run/coracle/networks/bridge-{}-0-{host}", network.number());
        let mut file = File::create_new(path).expect("the namespace is new");
        flock(&file, FlockOperation::LockExclusive).expect("nothing else has it");
        let lease = json!({
            "bridge": "coracle0", "subnet": 0, "host": host, "machine": "other", "aliases": [],
            "mac": [2, 0, 0, 0, 0, host], "ports": [], "name_server": null,
        });
        file.write_all(lease.to_string().as_bytes()).expect("the file is open");
        file
    };
    (2..=254).map(lease).collect()
}

fn unusable_bridges_are_named_before_the_boot() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    // The kernel may have given a namespace before this one the same number, and a killed test may have left a lease there.
    network_verb(&dir, &["prune", "--force"]).in_network(&network).finish().assert_status(0);
    let before = configuration(&network);
    let busybox = image("busybox");
    let refuse = |options: &[&str], objects: &[&str]| {
        for verb in ["run", "check"] {
            let refused = dir.verb(verb, &[options, &[&busybox, "true"]].concat()).in_network(&network).finish();
            refused.assert_status(125);
            let lines: Vec<&str> = refused.stderr.lines().collect();
            assert!(matches!(*lines, [line] if objects.iter().all(|object| line.contains(object))), "{lines:?}");
        }
    };
    refuse(&["--network", "bridge=eth0"], &["--network bridge=eth0: ", "not a bridge of coracle"]);
    refuse(&["--network", "bridge,ip=10.0.0.2/24"], &["--network bridge: ", "`ip=`"]);
    refuse(&["--network", "bridge=a\"b"], &["a\"b", "name for a bridge"]);
    refuse(&["--network", "none", "--network-alias", "db"], &["--network-alias", "--network bridge"]);
    let taken = network.enter(|| TcpListener::bind("0.0.0.0:8080")).expect("the port is free");
    refuse(&["--network", "bridge", "-p", "8080:80"], &["0.0.0.0:8080->80/tcp", "Address already in use"]);
    drop(taken);
    let leases = take_all_addresses(&network);
    refuse(&["--network", "bridge"], &["--network bridge=coracle0: no free address", "253 machines"]);
    drop(leases);
    network_verb(&dir, &["prune", "--force"]).in_network(&network).finish().assert_status(0).assert_stdout("");
    assert_eq!(configuration(&network), before, "nothing is left");

    let check = ["--network", "bridge=lan", "-p", "8080:80", &busybox];
    dir.verb("check", &check).in_network(&network).finish().assert_status(0);
    assert_eq!(configuration(&network), before, "`check` changes nothing");

    // Another user may not read root's directories: copy the binary and the files beside it.
    for name in ["coracle", "vmlinux", "coracle-init"] {
        dir.copy_program(&coracle().with_file_name(name), name);
    }
    let open = format!("chmod -R a+rwX {} && exec \"$@\"", dir.path().display());
    let unprivileged = ["sh", "-c", &open, "sh", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let unprivileged = network_verb(&dir, &["ls"]).program(dir.file("coracle")).wrapped(&unprivileged).finish();
    unprivileged.assert_status(125).assert_one_line_naming(&["root"]);
}

/// What a killed process would have left, without the process.
fn networks_are_listed_and_removed() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    let before = configuration(&network);
    let verb = |arguments: &[&str]| network_verb(&dir, arguments).in_network(&network).finish();
    let leave = |name: &str| {
        network.ip(&format!("link add {name} address 02:c0:ac:1e:00:05 type bridge"));
        network.nft("add table inet coracle");
    };
    verb(&["ls", "-q"]).assert_status(0).assert_stdout("");
    leave("lan");
    network.ip("link add other type bridge");
    let table = "NAME   DRIVER   IPV4           IPV6                MACHINES\n\
                 lan    bridge   10.89.5.0/24   fd89:c0a:0:5::/64   0\n";
    verb(&["ls"]).assert_status(0).assert_stdout(table);
    let listed: Value = serde_json::from_str(&verb(&["ls", "--json"]).stdout_text()).expect("it is JSON");
    assert_eq!((&listed[0]["Name"], &listed[1]), (&json!("lan"), &Value::Null), "{listed}");
    let shown: Value = serde_json::from_str(&verb(&["inspect", "lan"]).stdout_text()).expect("it is JSON");
    assert_eq!(shown[0]["IPAM"]["Config"][0], json!({ "Subnet": "10.89.5.0/24", "Gateway": "10.89.5.1" }), "{shown}");
    for arguments in [&["rm", "other"][..], &["rm", "eth0"]] {
        verb(arguments).assert_status(125).assert_one_line_naming(&["network", arguments[1], "not found"]);
    }
    verb(&["rm", "--force", "nowhere"]).assert_status(0).assert_stdout("");
    verb(&["prune"]).assert_status(125).assert_one_line_naming(&["network prune", "--force"]);
    // An interface that another program has put there.
    network.ip("link set peer master lan");
    verb(&["rm", "lan"]).assert_status(125).assert_one_line_naming(&["network lan is in use by peer"]);
    verb(&["prune", "-f"]).assert_status(0).assert_stdout("");
    network.ip("link set peer nomaster");
    verb(&["rm", "lan"]).assert_status(0).assert_stdout("lan\n");
    leave("lan");
    verb(&["prune", "-f"]).assert_status(0).assert_stdout("lan\n");
    network.ip("link delete other");
    assert_eq!(configuration(&network), before, "nothing is left");
}

/// Answers each client of `address` with the address that it comes from, in the protocol of redis.
fn serve_addresses(network: &NetworkNamespace, address: SocketAddr) {
    let listener = network.enter(|| TcpListener::bind(address)).expect("the port is free");
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ =
                stream.read(&mut [0; 1000]).and_then(|_| stream.write_all(format!("+{}\r\n", peer.ip()).as_bytes()));
        }
    });
}

/// The answer of a name server that knows one name, `server.test`, which has the address of [`OUTSIDE`] (RFC 1035).
fn answer(query: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\x06server\x04test\0";
    let mut answer = query.to_vec();
    let exists = answer[12..].starts_with(NAME);
    let has_answer = exists && answer.ends_with(&[0, 1, 0, 1]);
    // A response, with an error if there is no such name; one question, perhaps one answer: the same name, A, IN, 60 s.
    let error = if exists { 0 } else { 3 };
    answer[2..12].copy_from_slice(&[0x81, 0x80 | error, 0, 1, 0, has_answer.into(), 0, 0, 0, 0]);
    if has_answer {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 7, 0, 1]);
    }
    answer
}

/// Serves names by UDP and, one query each time, by TCP.
fn serve_names(network: &NetworkNamespace) {
    let socket = network.enter(|| UdpSocket::bind((OUTSIDE, 53))).expect("the port is free");
    let listener = network.enter(|| TcpListener::bind((OUTSIDE, 53))).expect("the port is free");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&answer(&buffer[..length]), peer);
        }
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut length, mut buffer) = ([0; 2], [0; 512]);
            let _ = stream.read_exact(&mut length).and_then(|()| {
                let query = &mut buffer[..usize::from(u16::from_be_bytes(length))];
                stream.read_exact(query)?;
                let answer = answer(query);
                stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat())
            });
        }
    });
}

/// A host with one interface, and what is outside of it.
fn host_and_outside(dir: &TestDir) -> (NetworkNamespace, NetworkNamespace) {
    let (host, outside) = NetworkNamespace::host_and_outside(dir, RESOLV_CONF);
    // As a neighbour would who knows the subnet.
    outside.ip("route add 10.89.0.0/24 via 10.7.0.2");
    (host, outside)
}

fn machines_on_a_bridge_meet_by_name_and_leave_nothing() {
    let dir = TestDir::new().keeping_machines();
    let (host, outside) = host_and_outside(&dir);
    serve_names(&outside);
    serve_addresses(&outside, (OUTSIDE, 8000).into());
    let before = (host.ip("-o link"), host.nft("list ruleset"));
    let redis = image("redis");
    let start = |name: &str, options: &[&str]| {
        let common = ["-d", "--name", name, "--ready-port", "6379"];
        let arguments = [&common, options, &[&*redis]].concat();
        dir.verb("run", &arguments).in_network(&host).finish()
    };
    let ask = |machine: &str, script: &str| dir.verb("exec", &[machine, "sh", "-c", script]).finish();
    let web = ["--network", "bridge", "--network", "bridge=lan", "-p", "6380:6379", "-p", "5300:53/udp"];
    let web = start("web", &web);
    web.assert_status(0).assert_stdout("web\n").assert_stderr("");
    // Docker's way to forward for its own networks only.
    host.nft("add table ip filter");
    host.nft("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
    // Its names are looked up by TCP.
    let options = ["--network", "bridge", "--network-alias", "Cache", "-p", "6381:6379", "--dns-option", "use-vc"];
    let db = start("db", &[&["--cpus", "2"], &options[..]].concat());
    db.assert_status(0).assert_stdout("db\n");
    let is_warned = ["ip filter FORWARD", "coracle0"].iter().all(|object| db.stderr.contains(object));
    assert!(db.stderr.lines().count() == 1 && is_warned, "{}", db.report());
    host.nft("delete table ip filter");
    for (port, name) in [(6380, "web"), (6381, "db")] {
        let stored = receive(&host, (HOST, port), &format!("SET who {name}\r\nQUIT\r\n"));
        assert_eq!(stored.ok().as_deref(), Some("+OK\r\n+OK\r\n"));
    }

    // Names: that of the machine that started later, too.
    ask("web", "redis-cli -h db get who; redis-cli -h CACHE get who").assert_status(0).assert_stdout("db\ndb\n");
    // The other machine by name, by its IPv6 address and at its published port; the host's name server; another host, by NAT.
    let script = "redis-cli -h web get who; redis-cli -h fd89:c0a::2 get who; redis-cli -h 10.7.0.2 -p 6380 get who; \
                  redis-cli -h server.test -p 8000 ping; redis-cli -h nowhere ping 2>&1";
    let asked = ask("db", script);
    let answers = asked.stdout_text();
    assert!(answers.starts_with("web\nweb\nweb\n10.7.0.2\n"), "{}", asked.report());
    assert!(answers.contains("nowhere:6379: Name or service not known"), "{}", asked.report());
    // A pair of queues for each vCPU; the driver sends by that of the vCPU on which the program runs.
    let script = "ls /sys/class/net/eth0/queues; for cpu in 0 1; do taskset -c $cpu redis-cli -h web get who; done";
    ask("db", script).assert_status(0).assert_stdout("rx-0\nrx-1\ntx-0\ntx-1\nweb\nweb\n");
    // Published ports, from every side; nothing else from outside.
    let (loopback4, loopback6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let who = |network: &NetworkNamespace, address: IpAddr, port: u16| {
        receive(network, (address, port), "GET who\r\nQUIT\r\n").unwrap_or_else(|error| error.to_string())
    };
    let (is_web, is_db) = ("$3\r\nweb\r\n+OK\r\n", "$2\r\ndb\r\n+OK\r\n");
    assert_eq!(who(&outside, HOST, 6380), is_web);
    assert_eq!(who(&outside, HOST, 6381), is_db);
    assert_eq!(who(&host, HOST, 6380), is_web);
    assert_eq!(who(&host, loopback4, 6380), is_web);
    assert_eq!(who(&host, loopback6, 6381), is_db);
    // Datagrams, too. The machine has no server for them: its kernel counts them.
    let rejected = "rejected() { set -- $(grep Udp: /proc/net/snmp | tail -n 1); echo $3; }";
    let count = ask("web", &format!("{rejected}; rejected")).stdout_text();
    let expected = count.trim().parse::<u32>().expect("a number") + 4;
    for (network, address) in [(&outside, HOST), (&host, HOST), (&host, loopback4), (&host, loopback6)] {
        let own = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let sent = network.enter(|| UdpSocket::bind((own, 0))?.send_to(b"ping", (address, 5300)));
        assert_eq!(sent.ok(), Some(4), "{address}");
    }
    let wait = format!("{rejected}; until [ $(rejected) -ge {expected} ]; do usleep 10000; done; rejected");
    ask("web", &wait).assert_status(0).assert_stdout(&format!("{expected}\n"));
    assert_eq!(who(&host, IpAddr::V4(Ipv4Addr::new(10, 89, 0, 3)), 6379), is_db);
    let direct = SocketAddr::from(([10, 89, 0, 3], 6379));
    let direct = outside.enter(|| TcpStream::connect_timeout(&direct, Duration::from_secs(1)));
    assert_eq!(direct.map_err(|error| error.kind()).err(), Some(ErrorKind::TimedOut), "the port is not published here");

    let running = configuration(&host);
    let busybox = image("busybox");
    let taken = ["--network", "bridge=other", "-p", "6380:80", &busybox, "true"];
    let taken = dir.verb("run", &taken).in_network(&host).finish();
    taken.assert_status(125).assert_one_line_naming(&["0.0.0.0:6380->80/tcp", "Address already in use"]);
    dir.verb("check", &["--network", "bridge", &busybox]).in_network(&host).finish().assert_status(0);
    assert_eq!(configuration(&host), running, "`check` changes nothing");
    let network = |arguments: &[&str]| network_verb(&dir, arguments).in_network(&host).finish();
    network(&["rm", "lan"]).assert_status(125).assert_one_line_naming(&["network lan is in use by web"]);
    let shown: Value = serde_json::from_str(&network(&["inspect", "coracle0"]).stdout_text()).expect("it is JSON");
    assert_eq!(shown[0]["Containers"]["db"]["IPv4Address"], "10.89.0.3", "{shown}");

    // The next start, even one that fails, removes what is left of a killed machine, and no other.
    kill(&dir, "web");
    assert_eq!(states_left(&host).len(), 3);
    let next = dir.verb("run", &["--network", "adopt=eth9", &busybox, "true"]).in_network(&host).finish();
    next.assert_status(125).assert_one_line_naming(&["eth9"]);
    network(&["ls", "-q"]).assert_status(0).assert_stdout("coracle0\n");
    let left = configuration(&host).concat();
    assert!(!left.contains("lan") && !left.contains("10.89.0.2:") && !left.contains("coracle0-2"), "{left}");
    assert_eq!(who(&outside, HOST, 6381), is_db);
    // A machine that stops removes everything itself.
    dir.verb("stop", &["-t", "0", "db"]).finish().assert_status(0);
    assert_eq!((host.ip("-o link"), host.nft("list ruleset")), before);
    assert_eq!(states_left(&host), [""; 0]);
}
