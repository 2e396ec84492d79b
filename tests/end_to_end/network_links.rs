// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The links of network interfaces: what the status shows and what the guest sees when the host's end goes and comes.

use crate::life_cycle::status;
use coracle_tests::{Case, TestDir, case, image};
use std::fs;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, link_follows_the_peer_of_a_socket_network),
        case!(Full, two_machines_meet_on_a_socket_and_meet_again),
    ]
}

/// Waits until the status shows this link.
pub(crate) fn wait_for_link(dir: &TestDir, name: &str, link: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while status(dir, name)["links"] != serde_json::json!([link]) {
        assert!(Instant::now() < deadline, "the link is not {link}: {}", status(dir, name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn link_follows_the_peer_of_a_socket_network() {
    let dir = TestDir::new().keeping_machines();
    let path = dir.file("peer");
    let listener = UnixListener::bind(&path).expect("a socket");
    let network = format!("socket={},tx-pps=100,mtu=9000", path.display());
    // Prints each change of the carrier.
    let script = "cat /sys/class/net/eth0/mtu; ip link set eth0 up; before=; while :; do \
                  now=$(cat /sys/class/net/eth0/carrier); [ \"$now\" = \"$before\" ] || echo carrier $now; before=$now; \
                  usleep 100000; done";
    let arguments = ["-d", "--name", "linked", "--network", &network, &image("busybox"), "sh", "-c", script];
    dir.verb("run", &arguments).finish().assert_status(0);
    let (peer, _) = listener.accept().expect("the machine connects");
    wait_for_link(&dir, "linked", "up");
    let mut following = dir.verb("logs", &["-f", "linked"]).start();
    following.wait_for_stdout("9000\ncarrier 1\n");
    frames_are_filtered_as_the_guest_asks(&dir, &peer);
    // The peer ends, and cannot be reached for now.
    drop((peer, listener));
    fs::remove_file(&path).expect("the socket is there");
    wait_for_link(&dir, "linked", "down");
    following.wait_for_stdout("carrier 0\n");
    assert_eq!(status(&dir, "linked")["state"], "running");
    let listener = UnixListener::bind(&path).expect("a socket");
    let _peer = listener.accept().expect("the machine connects again");
    wait_for_link(&dir, "linked", "up");
    following.wait_for_stdout("carrier 0\ncarrier 1\n");
    // Each change is an event.
    let events = dir.verb("events", &["linked"]).finish();
    let mut links: Vec<_> = String::from_utf8_lossy(&events.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a status")["links"].to_string())
        .collect();
    links.dedup();
    assert!(links.ends_with(&[r#"["up"]"#, r#"["down"]"#, r#"["up"]"#].map(String::from)), "{links:?}");
    dir.verb("stop", &["-t", "0", "linked"]).finish().assert_status(0);
}

/// What the driver gets of the frames that `peer` sends, by its own counter.
fn frames_are_filtered_as_the_guest_asks(dir: &TestDir, peer: &UnixStream) {
    const RECEIVED: &str = "cat /sys/class/net/eth0/statistics/rx_packets";
    let exec = |script: &str| {
        let done = dir.verb("exec", &["linked", "sh", "-c", script]).finish();
        done.assert_status(0);
        done.stdout_text().trim().to_owned()
    };
    let send = |mut peer: &UnixStream, address: &str| {
        let octet = |octet: &str| u8::from_str_radix(octet, 16).expect("an address");
        let mut frame: Vec<u8> = address.split(':').map(octet).collect();
        frame.extend([2, 0, 0, 0, 0, 0xee, 0x88, 0xb5]);
        frame.resize(60, 0);
        peer.write_all(&[&60_u32.to_be_bytes()[..], &frame].concat()).expect("the machine is connected");
    };
    // The driver sends its commands some time later: the peer sends until `script` has seen a frame.
    let seen = |address: &str, script: &str| {
        let is_seen = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // For three minutes, so that a script that fails ends the test.
                for _ in 0..3600 {
                    if is_seen.load(Ordering::Relaxed) {
                        break;
                    }
                    send(peer, address);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let output =
                exec(&format!("{script}; before=$({RECEIVED}); until [ $({RECEIVED}) -gt $before ]; do :; done"));
            is_seen.store(true, Ordering::Relaxed);
            output
        })
    };
    let (other, changed) = ("02:00:00:00:00:99", "02:00:00:00:00:77");
    send(peer, other);
    send(peer, &exec("cat /sys/class/net/eth0/address"));
    assert_eq!(exec(&format!("until [ $({RECEIVED}) -gt 0 ]; do :; done; {RECEIVED}")), "1", "its own only");
    seen(other, "ip link set eth0 promisc on");
    let set = format!("ip link set eth0 promisc off address {changed}; cat /sys/class/net/eth0/address");
    assert_eq!(seen(changed, &set), changed);
}

/// A cable between the two machines that connect to `listener`: what one sends reaches the other. Returns both ends.
fn connect_both(listener: &UnixListener) -> [UnixStream; 2] {
    let ends = [(); 2].map(|()| listener.accept().expect("both machines connect").0);
    for (from, to) in [(0, 1), (1, 0)] {
        let [mut from, mut to] =
            [from, to].map(|end: usize| ends[end].try_clone().expect("a descriptor can be copied"));
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    ends
}

fn two_machines_meet_on_a_socket_and_meet_again() {
    let dir = TestDir::new().keeping_machines();
    let path = dir.file("cable");
    let listener = UnixListener::bind(&path).expect("a socket");
    let cable = std::thread::spawn(move || {
        let ends = connect_both(&listener);
        (listener, ends)
    });
    let image = image("busybox");
    for (name, options, script) in [
        ("server", "ip=10.5.0.1/24,ip=fd05::1/64", "echo page of the server > /tmp/page; httpd -f -h /tmp"),
        ("client", "ip=10.5.0.2/24,ip=fd05::2/64,name=cable0", "sleep 10000"),
    ] {
        let network = format!("socket={},{options}", path.display());
        let arguments = ["-d", "--name", name, "--network", &network, &image, "sh", "-c", script];
        dir.verb("run", &arguments).finish().assert_status(0);
    }
    let (listener, ends) = cable.join().expect("both machines connect");
    let get = |address: &str| {
        // The server may not listen yet.
        let script = format!("until wget -qO- http://{address}/page; do :; done; cat /sys/class/net/cable0/carrier");
        let page = dir.verb("exec", &["client", "sh", "-c", &script]).finish();
        page.assert_status(0).assert_stdout("page of the server\n1\n");
    };
    get("10.5.0.1");
    get("[fd05::1]");
    for end in &ends {
        end.shutdown(std::net::Shutdown::Both).expect("it is connected");
    }
    drop(connect_both(&listener));
    for name in ["server", "client"] {
        wait_for_link(&dir, name, "up");
    }
    get("10.5.0.1");
    for name in ["server", "client"] {
        dir.verb("stop", &["-t", "0", name]).finish().assert_status(0);
    }
}
