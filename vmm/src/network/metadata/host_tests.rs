// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host on its link, with smoltcp as the guest at the other end.

use super::document::Document;
use super::host::{ADDRESS, MetadataHost, Wire};
use super::service::Service;
use devices::virtio::net::InternalHost;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Clock;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

/// A guest with an address of a network that has nothing to do with the service's.
struct Guest {
    host: MetadataHost,
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    clock: i64,
    next_port: u16,
}

impl Guest {
    fn new(document: &[u8]) -> Self {
        let host = MetadataHost::new(Service::new(Document::parse(document).unwrap()));
        let mut wire = Wire::default();
        let mac = EthernetAddress([2, 0, 0, 0, 0, 1]);
        let mut interface = Interface::new(Config::new(mac.into()), &mut wire, Clock::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The service's address is on the link, as by the route that PID 1 adds.
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 2, 15), 0)).unwrap();
        });
        Self { host, interface, sockets: SocketSet::new(Vec::new()), wire, clock: 0, next_port: 40_000 }
    }

    /// Lets time pass and carries frames both ways.
    fn exchange(&mut self) {
        self.clock += 1;
        let now = Clock::from_millis(self.clock);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for frame in std::mem::take(&mut self.wire.sent) {
            self.host.receive(&frame);
        }
        let mut frame = Vec::new();
        while self.host.send(&mut frame) {
            self.wire.received = Some(std::mem::take(&mut frame));
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 1 << 17]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let context = self.interface.context();
        self.sockets.get_mut::<Socket<'_>>(handle).connect(context, (ADDRESS, 80), self.next_port).unwrap();
        handle
    }

    /// The whole answer to `request`, until the service ends the connection.
    fn request(&mut self, request: &str) -> String {
        let handle = self.connect();
        let (mut rest, mut answer) = (request.as_bytes(), Vec::new());
        for _ in 0..2000 {
            self.exchange();
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            if socket.can_send() && !rest.is_empty() {
                let sent = socket.send_slice(rest).unwrap();
                rest = &rest[sent..];
            }
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes))).unwrap();
            }
            if matches!(socket.state(), State::CloseWait | State::LastAck) {
                socket.close();
            }
            if matches!(socket.state(), State::Closed | State::TimeWait) {
                self.sockets.remove(handle);
                return String::from_utf8(answer).unwrap();
            }
        }
        panic!("no end of the connection; received: {}", String::from_utf8_lossy(&answer));
    }

    fn token(&mut self) -> String {
        let put = "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
        let answer = self.request(put);
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    }
}

#[test]
fn guest_of_any_network_reads_a_large_value_with_a_token() {
    let value = "0123456789".repeat(6000);
    let mut guest = Guest::new(format!(r#"{{"user-data": "{value}"}}"#).as_bytes());
    let token = guest.token();
    let get = format!("GET /user-data HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n");
    let answer = guest.request(&get);
    assert_eq!(answer.split("\r\n\r\n").nth(1), Some(&*value));
    // More in a row than there are sockets.
    for _ in 0..40 {
        assert!(guest.request("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 401"));
    }
}

#[test]
fn idle_connections_are_bounded_and_the_next_client_waits_for_none() {
    let mut guest = Guest::new(b"{}");
    let idle: Vec<_> = (0..30).map(|_| guest.connect()).collect();
    for _ in 0..50 {
        guest.exchange();
    }
    let state = |guest: &Guest, handle| guest.sockets.get::<Socket<'_>>(handle).state();
    let established = idle.iter().filter(|&&handle| state(&guest, handle) == State::Established).count();
    assert_eq!(established, 16);
    // Their deadline is known, so that the worker wakes for it.
    assert!(guest.host.next_timeout().is_some());
    for handle in idle {
        guest.sockets.get_mut::<Socket<'_>>(handle).abort();
    }
    guest.exchange();
    assert!(guest.request("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 401"));
}

#[test]
fn other_frames_are_left_to_the_backend_and_replies_are_bounded() {
    let mut host = MetadataHost::new(Service::new(Document::parse(b"{}").unwrap()));
    let mut arp = vec![0xff_u8; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    arp.extend(ADDRESS.octets());
    for (at, value) in [(12, 0x86), (13, 0xdd), (41, 1), (38, 10)] {
        let mut other = arp.clone();
        other[at] = value;
        assert!(!host.receive(&other), "{at}");
    }
    for length in 0..arp.len() {
        assert!(!host.receive(&arp[..length]), "{length}");
    }
    for _ in 0..1000 {
        assert!(host.receive(&arp));
    }
    let (mut replies, mut frame) = (0, Vec::new());
    while host.send(&mut frame) {
        assert_eq!((&frame[..6], frame[21]), (&[2, 0, 0, 0, 0, 1][..], 2));
        (replies, frame) = (replies + 1, Vec::new());
    }
    assert_eq!(replies, 32);
    assert!(host.next_timeout().is_none());
}
