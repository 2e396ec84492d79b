// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The default network, by passt: what the guest finds and reaches, published ports, faults of passt. Each test has a network
//! namespace that stands for the host.

use crate::life_cycle::status;
use crate::metadata::GET;
use crate::network_links::wait_for_link;
use coracle_tests::{Case, NetworkNamespace, TestDir, case, image};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick, invalid_published_ports_are_rejected),
        case!(Quick[Kvm, Root, Passt], port_in_use_is_named_before_the_boot),
        case!(Quick[Kvm, Root], missing_passt_and_missing_route_are_named),
        case!(Full[Root], machine_runs_without_passt_after_a_warning),
        case!(Smoke[Root, Passt], user_network_reaches_the_host_and_publishes_ports),
        case!(Full[Root, Passt], killed_passt_takes_the_link_down_and_leaves_the_machine),
        case!(Full[Root, Passt], user_network_needs_no_privileges),
        case!(Full[Root, Passt], user_network_takes_addresses_and_forwards_names),
        case!(Full[Root, Passt], nginx_serves_a_published_port),
    ]
}

const RESOLV_CONF: &str = "nameserver 192.0.2.53\nsearch host.test\noptions ndots:2\n";
const LIMIT: Duration = Duration::from_secs(60);

/// What the TCP server at `address` sends until it closes.
pub(crate) fn receive(
    network: &NetworkNamespace,
    address: impl Into<SocketAddr>,
    request: &str,
) -> std::io::Result<String> {
    let address = address.into();
    network.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// The answer to a datagram.
fn receive_datagram(network: &NetworkNamespace, address: impl Into<SocketAddr>) -> std::io::Result<String> {
    let address = address.into();
    network.enter(|| {
        let own: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((own, 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(b"ping", address)?;
        let mut buffer = [0; 100];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

/// Serves one line by HTTP at each of `addresses` as long as the test process runs.
fn serve(network: &NetworkNamespace, addresses: &[SocketAddr]) {
    for address in addresses {
        let listener = network.enter(|| TcpListener::bind(address)).expect("the port is free");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut request, mut buffer) = (Vec::new(), [0; 1000]);
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(length @ 1..) => request.extend_from_slice(&buffer[..length]),
                        _ => break,
                    }
                }
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom the host\n");
            }
        });
    }
}

/// The child of the process `parent` that is passt.
fn passt_of(parent: u64) -> OwnedFd {
    let parent = format!(" S {parent} ");
    let mut processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let number = processes.find_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        (stat.contains("(passt") && stat.replace(" R ", " S ").contains(&parent)).then_some(number)
    });
    let number = number.unwrap_or_else(|| panic!("no passt of process{parent}"));
    pidfd_open(Pid::from_raw(number).expect("not 0"), PidfdFlags::empty()).expect("it runs")
}

fn wait_for_end(process: &OwnedFd) {
    let timeout = Timespec::try_from(LIMIT).expect("limits are short");
    let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout));
    assert_eq!(ended, Ok(1), "passt still runs");
}

fn invalid_published_ports_are_rejected() {
    let dir = TestDir::new();
    for (options, object) in [
        (&["-p", ""][..], "no port specified"),
        (&["-p", "8080:"], "no port specified"),
        (&["-p", "80/sctp"], "sctp"),
        (&["-p", "70000"], "70000"),
        (&["-p", "0:0"], "containerPort: 0"),
        (&["-p", "x:80"], "hostPort: x"),
        (&["-p", "1.2.3:80:80"], "1.2.3"),
        (&["-p", "80-90:80"], "80-90"),
        (&["-p", "127.0.0.1:90-80:80-90"], "90-80"),
        (&["--network", "none", "-p", "80"], "--network user"),
        (&["--network", "none", "-P"], "--network user"),
        (&["--add-host", "db"], "db"),
        (&["--add-host", "db:nowhere"], "nowhere"),
        (&["--dns", "name"], "name"),
        (&["--sysctl", "kernel.core_pattern=x"], "kernel.core_pattern"),
        (&["--network", "user,ip=10.0.2.15"], "10.0.2.15"),
        (&["--network", "user", "--network", "user"], "user"),
    ] {
        let run = dir.run(&[options, &[&image("busybox"), "true"]].concat());
        run.assert_status(125).assert_one_line_naming(&[object]);
    }
}

fn port_in_use_is_named_before_the_boot() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    let _tcp = network.enter(|| TcpListener::bind("127.0.0.1:8080")).expect("the port is free");
    let _udp = network.enter(|| UdpSocket::bind("[::]:5300")).expect("the port is free");
    for (port, shown) in [
        ("8080:80", "0.0.0.0:8080->80/tcp"),
        ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
        ("8079-8081:1-3", "0.0.0.0:8080->2/tcp"),
        ("5300:53/udp", "0.0.0.0:5300->53/udp"),
        ("[fd09::9]:5300:53/udp", "[fd09::9]:5300->53/udp"),
    ] {
        let run = dir.invocation(&["-p", port, &image("busybox"), "true"]).in_network(&network).finish();
        run.assert_status(125).assert_reason("network-error");
        run.assert_one_line_naming(&[shown, "Address already in use"]);
        assert_eq!(run.console, "", "{}", run.report());
    }
    for (port, objects) in [
        ("192.0.2.1:8080:80", ["192.0.2.1:8080->80/tcp", "Cannot assign"]),
        ("9090:1", ["0.0.0.0:9090->2/tcp", "twice"]),
    ] {
        let run =
            dir.invocation(&["-p", port, "-p", "9090:2", &image("busybox"), "true"]).in_network(&network).finish();
        run.assert_status(125).assert_reason("network-error").assert_one_line_naming(&objects);
    }
}

/// Hides the directory that passt is installed in. The binary needs nothing from it.
const HIDE_PASST: [&str; 5] = ["unshare", "--mount", "sh", "-ec", "mount -t tmpfs none /usr/bin; exec \"$@\""];

fn missing_passt_and_missing_route_are_named() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    for options in [&["--network", "user"][..], &["-p", "80"]] {
        let run = dir.invocation(&[options, &[&image("busybox"), "true"]].concat());
        let run = run.wrapped(&[&HIDE_PASST[..], &["sh"]].concat()).in_network(&network).finish();
        run.assert_status(125).assert_reason("network-error");
        run.assert_one_line_naming(&["--network user: passt is not installed", "package `passt`"]);
    }
    let run = dir.invocation(&["--network", "user", &image("busybox"), "true"]).wrapped(&["unshare", "--net"]).finish();
    run.assert_status(125).assert_reason("network-error").assert_one_line_naming(&["--network user", "default route"]);
}

fn machine_runs_without_passt_after_a_warning() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    // The harness adds `--network none` unless an option of the network is there.
    let run = dir.invocation(&["--network", "", &image("busybox"), "sh", "-c", "ls /sys/class/net; echo ran"]);
    let run = run.wrapped(&[&HIDE_PASST[..], &["sh"]].concat()).in_network(&network).finish();
    run.assert_status(0).assert_stdout("lo\nran\n");
    assert!(run.stderr.lines().count() == 1 && run.stderr.contains("package `passt`"), "{}", run.report());
}

/// Prints what the guest finds, then serves its own port number by TCP, and datagrams that come back.
const SERVERS: &str = r#"
import os, socket, sys, threading

def listen(port):
    server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    def serve():
        while True:
            client, _ = server.accept()
            client.recv(100)
            client.sendall(b"port %d" % port)
            client.close()
    threading.Thread(target=serve, daemon=True).start()

for port in (80, 81, 82, 90, 91, 92):
    listen(port)
echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
echo.bind(("", 53))
for name in sys.argv[1:]:
    try:
        with socket.create_connection((name, 7000), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            reply = b""
            while data := client.recv(1000):
                reply += data
        print(name, reply.split(b"\r\n\r\n")[1].decode().strip())
    except OSError as error:
        print(name, type(error).__name__)
sys.stdout.flush()
os.system("wget -qO- http://host.internal:7000/; hostname; cat /proc/sys/net/ipv4/ip_default_ttl /sys/class/net/*/mtu; ip -o address; "
          "cat /etc/resolv.conf /etc/hosts; echo up")
while True:
    data, peer = echo.recvfrom(100)
    echo.sendto(b"back " + data, peer)
"#;

fn user_network_reaches_the_host_and_publishes_ports() {
    const OPTIONS: &[&str] = &[
        "--name",
        "net",
        "--hostname",
        "box",
        "--add-host",
        "db:192.0.2.7",
        "--add-host",
        "host.internal:host-gateway",
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:81",
        "-p",
        "9000-9002:90-92",
        "-p",
        "82",
        "-p",
        "5300:53/udp",
        "--entrypoint",
        "python3",
    ];
    let dir = TestDir::new().keeping_machines();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    let (ipv4, ipv6) = (NetworkNamespace::IPV4, NetworkNamespace::IPV6);
    let (loopback4, loopback6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    serve(&network, &[(ipv4, 7000).into(), (ipv6, 7000).into(), (loopback4, 7000).into()]);
    // The last one is the gateway, which stands for no address of the host.
    let image = image("python");
    let arguments = [OPTIONS, &[&image, "-c", SERVERS, "10.9.9.9", "fd09::9", "10.0.2.2"]].concat();
    let mut run = dir.invocation(&arguments).in_network(&network).start();
    run.wait_for_stdout("\nup\n");

    let shown = status(&dir, "net");
    assert_eq!(shown["addresses"], serde_json::json!(["10.0.2.15", "fd00:2::15"]), "{shown}");
    assert_eq!(shown["links"], serde_json::json!(["up"]), "{shown}");
    let chosen = dir.verb("port", &["net", "82"]).finish();
    let chosen: SocketAddr = chosen.stdout_text().trim().parse().expect("it is an address");
    assert!(chosen.ip().is_unspecified() && chosen.port() > 0, "{chosen}");
    let ports = dir.verb("port", &["net"]).finish();
    ports.assert_status(0).assert_stdout(&format!(
        "80/tcp -> 0.0.0.0:8080\n81/tcp -> 127.0.0.1:8081\n90/tcp -> 0.0.0.0:9000\n91/tcp -> 0.0.0.0:9001\n\
         92/tcp -> 0.0.0.0:9002\n82/tcp -> {chosen}\n53/udp -> 0.0.0.0:5300\n"
    ));
    dir.verb("port", &["net", "53"]).finish().assert_status(125).assert_one_line_naming(&["net", "53/tcp"]);
    let table = dir.verb("ps", &["-a"]).finish().stdout_text();
    let text = dir.verb("status", &["net"]).finish().stdout_text();
    for port in ["0.0.0.0:8080->80/tcp", "127.0.0.1:8081->81/tcp", "0.0.0.0:5300->53/udp", &format!("{chosen}->82/tcp")]
    {
        assert!(table.contains(port) && text.contains(port), "{port}: {table}{text}");
    }

    for (address, port, guest) in [
        (ipv4, 8080, 80),
        (loopback4, 8080, 80),
        (ipv6, 8080, 80),
        (loopback6, 8080, 80),
        (loopback4, 8081, 81),
        (ipv4, 9000, 90),
        (ipv6, 9001, 91),
        (loopback4, 9002, 92),
        (loopback4, chosen.port(), 82),
    ] {
        let answer = receive(&network, (address, port), "x");
        assert_eq!(answer.ok(), Some(format!("port {guest}")), "{address} {port}");
    }
    for address in [ipv4, loopback6] {
        let refused = receive(&network, (address, 8081), "x").map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{address}");
    }
    // Not by a loopback address: passt has no way back for the answer unless it shows the host's loopback servers to the guest.
    for address in [ipv4, ipv6] {
        let answer = receive_datagram(&network, (address, 5300));
        assert_eq!(answer.ok().as_deref(), Some("back ping"), "{address}");
    }

    // Everything of it ends with the process.
    let passt = passt_of(run.pid().into());
    run.signal(Signal::KILL);
    let run = run.finish();
    wait_for_end(&passt);
    assert!(network.enter(|| TcpListener::bind("0.0.0.0:8080")).is_ok(), "the port is free again");
    assert_eq!(status(&dir, "net")["state"], "dead");

    let output = run.stdout_text();
    let expected = [
        "10.9.9.9 from the host\nfd09::9 from the host\n",
        "from the host\nbox\n77\n",
        "65520\n",
        "inet 10.0.2.15/24 ",
        "inet6 fd00:2::15/64 scope global",
        "inet6 ::1/128",
        RESOLV_CONF,
        "192.0.2.7\tdb\n",
        "10.9.9.9\thost.internal\n",
        "10.0.2.15\tbox\n",
    ];
    for text in expected {
        assert!(output.contains(text), "`{text}` is missing\n{}", run.report());
    }
    assert!(!output.contains("10.0.2.2 from the host"), "{}", run.report());
    // An address under duplicate address detection could not be used yet.
    assert!(!output.contains("tentative"), "{}", run.report());
}

fn killed_passt_takes_the_link_down_and_leaves_the_machine() {
    const OPTIONS: &[&str] = &[
        "-d",
        "--name",
        "linked",
        "--ready-port",
        "6379",
        "-P",
        "--dns",
        "192.0.2.1",
        "--dns-search",
        "corp.test",
        "--dns-option",
        "ndots:3",
    ];
    let dir = TestDir::new().keeping_machines();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    let redis = image("redis");
    let started = dir.verb("run", &[OPTIONS, &[&redis]].concat()).in_network(&network).finish();
    started.assert_status(0).assert_stdout("linked\n").assert_stderr("");
    let ports = dir.verb("port", &["linked", "6379/tcp"]).finish().stdout_text();
    let port = ports.trim().parse::<SocketAddr>().expect("it is an address").port();
    let answer = receive(&network, (NetworkNamespace::IPV6, port), "PING\r\nQUIT\r\n");
    assert_eq!(answer.ok().as_deref(), Some("+PONG\r\n+OK\r\n"));

    let passt = passt_of(status(&dir, "linked")["pid"].as_u64().expect("a number"));
    wait_for_link(&dir, "linked", "up");
    pidfd_send_signal(&passt, Signal::KILL).expect("it runs");
    wait_for_link(&dir, "linked", "down");
    let inside = dir.verb("exec", &["linked", "cat", "/sys/class/net/eth0/carrier", "/etc/resolv.conf"]).finish();
    inside.assert_status(0).assert_stdout("0\nnameserver 192.0.2.1\nsearch corp.test\noptions ndots:3\n");
    let last = dir.verb("events", &["linked"]).finish().stdout_text().lines().last().map(str::to_owned);
    assert!(last.is_some_and(|line| line.contains(r#""links":["down"]"#)));
    dir.verb("stop", &["linked"]).finish().assert_status(0);
    assert_eq!(status(&dir, "linked")["end"]["status"], 0);
}

fn user_network_needs_no_privileges() {
    let dir = TestDir::new().keeping_machines();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    serve(&network, &[(NetworkNamespace::IPV4, 7000).into()]);
    dir.copy_product();
    let image = dir.copied_image();
    let start = |arguments: &[&str]| {
        let wrapper = dir.as_user();
        let run = dir.verb("run", arguments).of_copy(&dir);
        run.wrapped(&wrapper.each_ref().map(String::as_str)).in_network(&network).finish()
    };
    let refused = start(&["-p", "80:80", &image, "true"]);
    refused.assert_status(125).assert_one_line_naming(&["0.0.0.0:80->80/tcp", "ports below 1024 need root"]);
    let script = "wget -qO /tmp/page http://10.9.9.9:7000/; httpd -f -h /tmp";
    let started = start(&["-d", "--name", "web", "--ready-port", "80", "-p", "8080:80", &image, "sh", "-c", script]);
    started.assert_status(0).assert_stdout("web\n").assert_stderr("");
    let answer = receive(&network, (NetworkNamespace::IPV4, 8080), "GET /page HTTP/1.0\r\n\r\n");
    assert!(answer.as_ref().is_ok_and(|text| text.ends_with("from the host\n")), "{answer:?}");
    dir.verb("stop", &["-t", "0", "web"]).finish().assert_status(0);
}

/// Answers every question for an address of IPv4 with 192.0.2.99 (RFC 1035), and the others with nothing.
fn serve_names(network: &NetworkNamespace, address: SocketAddr) {
    let socket = network.enter(|| UdpSocket::bind(address)).expect("the port is free");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            let is_ipv4 = answer.ends_with(&[0, 1, 0, 1]);
            // A response without an error; one question, perhaps one answer: the same name, A, IN, 60 s, 4 bytes.
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, is_ipv4.into(), 0, 0, 0, 0]);
            if is_ipv4 {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
}

/// A host whose only name server is on a loopback address, such as systemd-resolved's.
fn user_network_takes_addresses_and_forwards_names() {
    let dir = TestDir::new();
    let network = NetworkNamespace::new(&dir, "nameserver 127.0.0.1\nsearch test\n");
    serve_names(&network, (Ipv4Addr::LOCALHOST, 53).into());
    let options = "user,ip=10.7.0.9/16,ip=fd07::9/64,mtu=1400,name=lan0,mac=02:00:00:00:00:42";
    // The metadata are on the same link as passt.
    let metadata = dir.file("metadata.json");
    fs::write(&metadata, r#"{"latest": {"meta-data": {"instance-id": "i-7"}}}"#).expect("the directory is writable");
    let script = "cat /etc/resolv.conf; nslookup -type=a db.test.; cat /sys/class/net/lan0/mtu \
                  /sys/class/net/lan0/address; ip -o address show lan0; ip route; ip -6 route; \
                  get /latest/meta-data/instance-id";
    let script = &(GET.to_owned() + script);
    let image = image("busybox");
    let run = dir.invocation(&["--network", options, "--network", "socket=/nowhere", &image, "true"]);
    let refused = run.in_network(&network).finish();
    refused.assert_status(125).assert_reason("network-error").assert_one_line_naming(&["socket=/nowhere"]);
    let metadata = ["--metadata", &metadata.to_string_lossy()];
    let options = [&["--network", options][..], &metadata, &[&image, "sh", "-c", script]].concat();
    let run = dir.invocation(&options).in_network(&network).finish();
    run.assert_status(0);
    let output = run.stdout_text();
    for text in [
        "nameserver 10.7.0.2\nsearch test\n",
        "Address: 192.0.2.99\n",
        "1400\n02:00:00:00:00:42\n",
        "inet 10.7.0.9/16 ",
        "inet6 fd07::9/64 ",
        "default via 10.7.0.2 dev lan0",
        "default via fe80::2 dev lan0",
        "169.254.169.254 dev lan0",
        "i-7",
    ] {
        assert!(output.contains(text), "`{text}` is missing\n{}", run.report());
    }
}

fn nginx_serves_a_published_port() {
    let dir = TestDir::new().keeping_machines();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    let arguments = ["-d", "--name", "web", "-p", "8080:80", &image("nginx")];
    dir.verb("run", &arguments).in_network(&network).finish().assert_status(0).assert_stdout("web\n");
    for address in [NetworkNamespace::IPV4, Ipv6Addr::LOCALHOST.into()] {
        let page = receive(&network, (address, 8080), "GET / HTTP/1.0\r\n\r\n").expect("nginx answers");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<h1>Welcome to nginx!</h1>"), "{page}");
    }
    dir.verb("port", &["web"]).finish().assert_status(0).assert_stdout("80/tcp -> 0.0.0.0:8080\n");
    dir.verb("stop", &["web"]).finish().assert_status(0);
    let ended = status(&dir, "web");
    assert_eq!((&ended["end"]["reason"], &ended["end"]["status"]), (&"stopped".into(), &0.into()), "{ended}");
    // The image logs to the standard streams.
    let logs = dir.verb("logs", &["web"]).finish().stdout_text();
    assert_eq!(logs.matches("\"GET / HTTP/1.0\" 200 ").count(), 2, "{logs}");
}
