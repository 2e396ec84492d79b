// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ip=dhcp`: addresses from the servers of others, busybox's udhcpd on a tap and passt on a socket.

use crate::life_cycle::status;
use coracle_tests::{Case, NetworkNamespace, TestDir, case, image};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick, dhcp_is_for_networks_with_a_server),
        case!(Full[Root, Passt, Busybox], addresses_by_dhcp_are_used_renewed_and_released),
    ]
}

/// Of the host, which passt gives to its client.
const RESOLV_CONF: &str = "nameserver 192.0.2.53\n";

/// A lease of 10 s is renewed after 5 s.
const CONFIGURATION: &str = "start 10.6.0.50\nend 10.6.0.50\nmax_leases 1\ninterface lan\nopt subnet 255.255.255.0\n\
    opt router 10.6.0.1\nopt dns 10.6.0.53\nopt search a.test b.test\nopt mtu 1400\nopt lease 10\n";

fn dhcp_is_for_networks_with_a_server() {
    let dir = TestDir::new();
    for (network, objects) in [
        ("user,ip=dhcp", &["ip=dhcp", "DHCP server", "tap=NAME"][..]),
        ("bridge,ip=dhcp", &["ip=dhcp", "DHCP server", "tap=NAME"]),
        ("adopt,ip=dhcp", &["ip=dhcp", "DHCP server", "tap=NAME"]),
        ("tap=a,ip=dhcp,gw=10.0.0.1", &["gateway 10.0.0.1"]),
        ("tap=a,ip=dhcp,ip=10.0.0.2/24", &["more than one `ip` for IPv4"]),
    ] {
        let run = dir.run(&["--network", network, &image("busybox"), "true"]);
        run.assert_status(125).assert_one_line_naming(objects);
    }
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(network: &NetworkNamespace, program: &str, arguments: &[&str]) -> (Server, BufReader<ChildStderr>) {
    let mut command = network.command(program);
    let server = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut server = Server(server.expect("the server is installed"));
    let stderr = server.0.stderr.take().expect("it is a pipe");
    (server, BufReader::new(stderr))
}

/// Reads until a line has `text` in it.
fn wait_for(messages: &mut impl BufRead, text: &str) {
    let mut seen = String::new();
    while !seen.lines().last().is_some_and(|line| line.contains(text)) {
        assert!(messages.read_line(&mut seen).is_ok_and(|length| length > 0), "`{text}` is missing in {seen}");
    }
}

fn addresses_by_dhcp_are_used_renewed_and_released() {
    let dir = TestDir::new().keeping_machines();
    let network = NetworkNamespace::new(&dir, RESOLV_CONF);
    for arguments in [
        "tuntap add tap0 mode tap vnet_hdr",
        "link add lan type bridge",
        "link add v0 type veth peer name v1",
        "link set tap0 master lan",
        "link set v0 master lan",
        "address add 10.6.0.1/24 dev lan",
        "link set lan up",
        "link set tap0 up",
        "link set v0 up",
        "link set v1 up",
    ] {
        network.ip(arguments);
    }
    let leases = dir.write("leases", "");
    let lines = format!("{CONFIGURATION}lease_file {0}\npidfile {0}.pid\n", leases.display());
    let configuration = dir.write("udhcpd.conf", &lines).display().to_string();
    let (_udhcpd, mut messages) = serve(&network, "busybox", &["udhcpd", "-f", "-a", "100", &configuration]);
    let socket = dir.file("passt").display().to_string();
    let address = ["--address", "10.8.0.9", "--netmask", "24", "--gateway", "10.8.0.1", "--ipv4-only"];
    let options = ["--foreground", "--stderr", "--socket", &socket, "--runas", "0"];
    let (_passt, mut passt_messages) = serve(&network, "passt", &[&options[..], &address].concat());
    wait_for(&mut passt_messages, "UNIX domain socket bound");

    let passt = format!("socket={socket},ip=dhcp");
    let networks = ["--network", "tap=tap0,ip=dhcp,ip=fd06::2/64", "--network", &passt, "--hostname", "box"];
    let command = [&image("busybox"), "sleep", "1000"];
    let arguments = [&["-d", "--name", "leased", "--init"][..], &networks, &command].concat();
    dir.verb("run", &arguments).in_network(&network).finish().assert_status(0).assert_stderr("");
    assert_eq!(status(&dir, "leased")["addresses"], serde_json::json!(["10.6.0.50", "fd06::2", "10.8.0.9"]));
    let script = "cat /etc/resolv.conf; grep box /etc/hosts; cat /sys/class/net/eth0/mtu; ip route; ip -4 -o address; \
                  ping -c 1 10.6.0.1";
    let inside = dir.verb("exec", &["leased", "sh", "-c", script]).finish();
    inside.assert_status(0);
    let output = inside.stdout_text();
    assert!(output.starts_with("nameserver 10.6.0.53\nsearch a.test b.test\n10.6.0.50\tbox\n"), "{output}");
    for text in [
        "fd06::2\tbox\n1400\n",
        "default via 10.6.0.1 dev eth0 \n",
        "default via 10.8.0.1 dev eth1  metric 2048 \n",
        "inet 10.6.0.50/24 brd 10.6.0.255 ",
        "inet 10.8.0.9/24 ",
        " 0% packet loss",
    ] {
        assert!(output.contains(text), "`{text}` is missing: {output}");
    }

    // The first one was for the start.
    wait_for(&mut messages, "sending ACK to 10.6.0.50");
    wait_for(&mut messages, "sending ACK to 10.6.0.50");
    let again = dir.verb("exec", &["leased", "ip", "-4", "-o", "address", "show", "eth0"]).finish();
    assert_eq!(again.stdout_text().matches("inet 10.6.0.50/24").count(), 1, "{}", again.report());
    // The only address is there for another client at once.
    dir.verb("stop", &["leased"]).finish().assert_status(0);
    let client = ["udhcpc", "-f", "-n", "-q", "-t", "5", "-i", "v1", "-s", "/bin/true"];
    let (mut client, mut messages) = serve(&network, "busybox", &client);
    wait_for(&mut messages, "lease of 10.6.0.50 obtained");
    assert!(client.0.wait().is_ok_and(|status| status.success()));
}
