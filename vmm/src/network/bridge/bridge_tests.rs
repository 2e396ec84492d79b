// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines on a bridge of a network namespace of each test's own, without their guests. Needs root; without it the tests are
//! skipped.

use super::lease::LeaseDirectory;
use super::*;
use crate::config::network::Network;
use crate::config::request::SandboxMode;
use crate::host::test_namespace::{enter, ip};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Barrier;
use std::time::Duration;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Removes the files of this namespace at its end.
struct Namespace;

impl Namespace {
    fn enter() -> Option<Self> {
        enter().then(|| {
            ip("link set lo up");
            Self
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Ok(Some(leases)) = Leases::lock_existing() {
            leases.remove_ended();
        }
    }
}

fn sandbox() -> Arc<Sandbox> {
    Arc::new(Sandbox::new(SandboxMode::Auto).unwrap())
}

#[test]
fn machines_that_start_at_once_have_addresses_of_their_own() {
    const MACHINES: usize = 4;
    if matches!(nft::chains(), Err(NftError::NotInstalled)) {
        return eprintln!("skipped: nft is not installed");
    }
    let Some(_namespace) = Namespace::enter() else { return };
    let links = ip("-o link");
    let all = Barrier::new(MACHINES);
    let start = |number: usize| {
        let Ok(Network::Interface(options)) = "bridge".parse() else { panic!("it is a network") };
        let mac = format!("02:00:00:00:00:{number:02x}").parse().unwrap();
        let interface = ResolvedInterface { options, mac, descriptor: None, is_default: false };
        let (request, machine) = (Request::default(), format!("m{number}"));
        let wanted = Wanted { request: &request, machine: &machine, ports: &[], queue_pairs: 1, is_check: false };
        all.wait();
        let mut bridged = connect(&interface, None, wanted).unwrap();
        bridged.guard.as_mut().unwrap().take(&sandbox()).unwrap();
        let address = bridged.guest.addresses[0].address;
        all.wait();
        // Each has seen the others.
        let names = Names {
            leases: LeaseDirectory::of_this_namespace(),
            bridge: DEFAULT_NAME.to_owned(),
            has_ipv6: false,
            servers: Vec::new(),
            client: address,
        };
        let found: BTreeSet<IpAddr> = (0..MACHINES).flat_map(|other| names.find(&format!("m{other}"))).collect();
        let ports = ip("-o link show master coracle0").lines().count();
        all.wait();
        // They end at once, too.
        drop(bridged);
        (address, found, ports)
    };
    let started: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MACHINES).map(|number| scope.spawn(move || start(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected: BTreeSet<IpAddr> = (2..).map(|host| [10, 89, 0, host].into()).take(MACHINES).collect();
    assert_eq!(started.iter().map(|(address, _, _)| *address).collect::<BTreeSet<_>>(), expected);
    for (_, found, ports) in started {
        assert_eq!((found, ports), (expected.clone(), MACHINES));
    }
    assert_eq!((ip("-o link"), nft::chains().unwrap()), (links, String::new()), "nothing is left");
}

/// A query for an address of IPv4, RFC 1035, 4.1.
fn query(name: &str) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.push(name.len() as u8);
    packet.extend(name.bytes());
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).map(|()| message)
}

#[test]
fn names_are_served_by_tcp() {
    let Some(_namespace) = Namespace::enter() else { return };
    // A server whose answers are too long for a datagram.
    let (datagrams, connections) =
        (UdpSocket::bind((LOCALHOST, 53)).unwrap(), TcpListener::bind((LOCALHOST, 53)).unwrap());
    std::thread::spawn(move || {
        let mut packet = [0; 600];
        let Ok((length, client)) = datagrams.recv_from(&mut packet) else { return };
        packet[2] = 0x82;
        let _ = datagrams.send_to(&packet[..length], client);
        let Ok((mut stream, _)) = connections.accept() else { return };
        let mut answer = receive(&mut stream).unwrap();
        answer[2] = 0x80;
        answer.resize(20_000, b'x');
        stream.write_all(&framed(&answer)).unwrap();
    });
    let leases = Leases::lock().unwrap();
    let own = leases.take(super::lease::tests::lease("db", 0, 2)).unwrap();
    drop(leases);
    let (socket, listener) = bind_both(LOCALHOST).unwrap();
    let address = socket.local_addr().unwrap();
    assert_eq!(listener.local_addr().unwrap(), address, "the rules lead both to one port");
    let names = Names {
        leases: LeaseDirectory::of_this_namespace(),
        bridge: "lan".to_owned(),
        has_ipv6: false,
        servers: vec![LOCALHOST],
        client: LOCALHOST,
    };
    let server = serve_names(socket, listener, names, &sandbox()).unwrap();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };

    // A truncated answer is passed on, and the client comes by TCP. Two queries may come at once.
    let client = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.send_to(&query("long"), address).unwrap();
    let mut answer = [0; 600];
    client.recv_from(&mut answer).unwrap();
    assert_eq!(answer[2] & 2, 2, "it is truncated");
    let mut stream = connect();
    stream.write_all(&[framed(&query("long")), framed(&query("db"))].concat()).unwrap();
    assert_eq!(receive(&mut stream).unwrap().len(), 20_000);
    let answer = receive(&mut stream).unwrap();
    assert!(answer.ends_with(&[0, 4, 10, 89, 0, 2]), "{answer:?}");

    // What is not a query closes the connection.
    for bytes in [&framed(b"nonsense")[..], &[0, 0], &[0xff, 0xff]] {
        let mut stream = connect();
        stream.write_all(bytes).unwrap();
        assert!(receive(&mut stream).is_err(), "{bytes:?}");
    }
    // The first one is still connected.
    let silent: Vec<TcpStream> = (0..15).map(|_| connect()).collect();
    let mut last = connect();
    let _ = last.write_all(&framed(&query("db")));
    assert!(receive(&mut last).is_err(), "one too many");
    drop(silent);
    let mut attempts = std::iter::repeat_with(|| {
        let mut stream = connect();
        let _ = stream.write_all(&framed(&query("db")));
        receive(&mut stream)
    });
    assert!(attempts.by_ref().take(1000).any(|answer| answer.is_ok()), "the others are forgotten");
    drop((server, own));
}
