// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The links of network interfaces: what the status shows and what the guest sees when the host's end goes and comes.

use crate::life_cycle::status;
use coracle_tests::{Case, TestDir, case, image};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(Full, link_follows_the_peer_of_a_socket_network)]
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
