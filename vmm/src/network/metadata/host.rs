// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host 169.254.169.254 on the guest's link: smoltcp's ARP, IPv4 and TCP between frames and the service. Used on the event
//! loop of the interface.
//!
//! Memory is bounded: a number of connections, each with buffers of a fixed size, and a few frames on their way to the guest. A
//! connection has a deadline, so that idle ones do not keep others out.

use super::service::{MAX_HEAD_BYTES, Service};
use devices::virtio::net::InternalHost;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Clock;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Locally administered; the link has two hosts and the network's own.
pub(super) const MAC: EthernetAddress = EthernetAddress([0x06, 0xa9, 0xfe, 0xa9, 0xfe, 0x01]);
const PORT: u16 = 80;
const MAX_CONNECTIONS: usize = 16;
/// From its first byte to its last.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(10);
const SEND_BUF_SIZE: usize = 16 << 10;
/// Frames to the guest that wait.
const MAX_FRAMES: usize = 32;
const MTU: usize = 1500;
const ETHERNET_HEADER_SIZE: usize = 14;

/// The metadata service as a host on the link.
#[derive(Debug)]
pub(super) struct MetadataHost {
    service: Service,
    started: Instant,
    wire: Wire,
    stack: IpStack,
    connections: Vec<Connection>,
}

struct IpStack {
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl std::fmt::Debug for IpStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpStack").finish_non_exhaustive()
    }
}

/// One socket: it listens, or has a client.
#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    /// When it ends at the latest. `None` while it listens.
    deadline: Option<Instant>,
    request: Vec<u8>,
    /// What is left of the answer, the next byte first. `None` before there is one.
    answer: Option<VecDeque<u8>>,
}

impl MetadataHost {
    pub(super) fn new(service: Service) -> Self {
        let started = Instant::now();
        let mut wire = Wire::default();
        let mut interface = Interface::new(Config::new(MAC.into()), &mut wire, Clock::ZERO);
        // The guest is on the link, whatever its address.
        let everything = IpCidr::Ipv4(Ipv4Cidr::new(ADDRESS, 0));
        interface.update_ip_addrs(|addresses| addresses.push(everything).expect("there is room for two"));
        let mut sockets = SocketSet::new(Vec::new());
        let connections = (0..MAX_CONNECTIONS).map(|_| Connection::listen(&mut sockets)).collect();
        Self { service, started, wire, stack: IpStack { interface, sockets }, connections }
    }

    /// Advances everything that can advance now.
    fn advance(&mut self) {
        let now = Instant::now();
        let clock = self.clock(now);
        let IpStack { interface, sockets } = &mut self.stack;
        interface.poll(clock, &mut self.wire, sockets);
        for connection in &mut self.connections {
            connection.advance(sockets, &mut self.service, now);
        }
        interface.poll(clock, &mut self.wire, sockets);
    }

    fn clock(&self, now: Instant) -> Clock {
        Clock::from_micros(i64::try_from(now.duration_since(self.started).as_micros()).unwrap_or(i64::MAX))
    }
}

impl InternalHost for MetadataHost {
    fn receive(&mut self, frame: &[u8]) -> bool {
        if !is_for_service(frame) {
            return false;
        }
        self.wire.received = Some(frame.to_vec());
        self.advance();
        true
    }

    fn send(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.wire.sent.is_empty() {
            self.advance();
        }
        let Some(frame) = self.wire.sent.pop_front() else { return false };
        buffer.extend_from_slice(&frame);
        true
    }

    fn next_timeout(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let clock = self.clock(now);
        let IpStack { interface, sockets } = &mut self.stack;
        let delay = interface.poll_delay(clock, sockets).map(Duration::from);
        let deadlines = self.connections.iter().filter_map(|connection| connection.deadline);
        let deadline = deadlines.min().map(|deadline| deadline.saturating_duration_since(now));
        delay.into_iter().chain(deadline).min()
    }
}

impl Connection {
    fn listen(sockets: &mut SocketSet<'static>) -> Self {
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(MAX_HEAD_BYTES), buffer(SEND_BUF_SIZE));
        socket.listen(PORT).expect("the socket is new, and the port is not 0");
        Self { handle: sockets.add(socket), deadline: None, request: Vec::new(), answer: None }
    }

    fn advance(&mut self, sockets: &mut SocketSet<'static>, service: &mut Service, now: Instant) {
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        match socket.state() {
            State::Listen => return,
            // The guest has ended its side, too. Its port is not used again so soon that it matters.
            State::Closed | State::TimeWait => {
                sockets.remove(self.handle);
                *self = Self::listen(sockets);
                return;
            }
            _ => {}
        }
        if now >= *self.deadline.get_or_insert(now + MAX_CONNECTION_TIME) {
            // The reset goes out with the next poll; the state is `Closed` then.
            socket.abort();
            return;
        }
        if self.answer.is_none() && socket.can_recv() {
            // An error is a state that the next call sees.
            let _ = socket.recv(|bytes| {
                self.request.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            self.answer = service.answer(&self.request, now).map(VecDeque::from);
        } else if self.answer.is_none() && !socket.may_recv() && socket.state() != State::SynReceived {
            // The client has sent all and no request.
            socket.close();
        }
        if let Some(answer) = &mut self.answer {
            while socket.can_send() && !answer.is_empty() {
                let sent = socket.send_slice(answer.as_slices().0).unwrap_or(0);
                answer.drain(..sent);
            }
            if answer.is_empty() {
                socket.close();
            }
        }
    }
}

/// Whether `frame` is for the service's address: an ARP request for it, or an IPv4 packet to it.
fn is_for_service(frame: &[u8]) -> bool {
    const TYPE: usize = 12;
    const ARP_TARGET: usize = ETHERNET_HEADER_SIZE + 24;
    const IP_DESTINATION: usize = ETHERNET_HEADER_SIZE + 16;
    let at = match frame.get(TYPE..ETHERNET_HEADER_SIZE) {
        Some([0x08, 0x06]) => ARP_TARGET,
        Some([0x08, 0x00]) => IP_DESTINATION,
        _ => return false,
    };
    frame.get(at..at + 4) == Some(&ADDRESS.octets())
}

/// Frames between smoltcp and the link.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) received: Option<Vec<u8>>,
    pub(super) sent: VecDeque<Vec<u8>>,
}

impl phy::Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Clock) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.take()?;
        // A guest that takes no replies gets no more.
        (self.sent.len() < MAX_FRAMES).then_some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: Clock) -> Option<Sent<'_>> {
        (self.sent.len() < MAX_FRAMES).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // The guest leaves them to the device.
        checksum.tcp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + ETHERNET_HEADER_SIZE;
        capabilities.checksum = checksum;
        capabilities
    }
}

pub(super) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(super) struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
