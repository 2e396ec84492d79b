// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The name server of one machine on a bridge, on the thread `names`. It answers for the machines on the bridge, which it reads
//! from the leases at each query, and forwards everything else to the host's name servers, one after the other. Connections have
//! threads of their own (`name_connections.rs`).
//!
//! It serves its own machine only: an nftables rule leads that machine's queries of the gateway's address to the port of this
//! process. So no process depends on another one, and the port 53 of the host stays free for others.

use super::dns::{MAX_UDP_ANSWERS, Query, is_answer};
use super::lease::LeaseDirectory;
use super::name_connections::NameConnections;
use super::stoppable_thread::{Stop, StoppableThread};
use crate::network::state_directory::state_directory;
use crate::sandbox::{Grant, Right, Sandbox, Thread};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::io::{ErrorKind, Result};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const PORT: u16 = 53;
/// A client's query is shorter, its options included.
pub(super) const MAX_QUERY_BYTES: usize = 4096;
const ANSWER_BUF_SIZE: usize = 64 << 10;
/// More of them wait in the socket's buffer, or are lost, for which clients ask again.
const MAX_FORWARDED: usize = 64;
/// Then the next server is asked. Clients wait for 5 s.
pub(super) const MAX_ANSWER_TIME: Duration = Duration::from_secs(2);
/// As many as glibc reads.
const MAX_SERVERS: usize = 3;
const MAX_PORTS_TRIED: u32 = 16;

/// What the answers come from.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) leases: LeaseDirectory,
    pub(super) bridge: String,
    pub(super) has_ipv6: bool,
    /// The host's name servers.
    pub(super) servers: Vec<IpAddr>,
    /// The machine that is served.
    pub(super) client: IpAddr,
}

/// Sockets of one port of `address`, for datagrams and for connections.
pub(super) fn bind_both(address: IpAddr) -> Result<(UdpSocket, TcpListener)> {
    let mut attempts = MAX_PORTS_TRIED;
    loop {
        let socket = UdpSocket::bind((address, 0))?;
        match TcpListener::bind(socket.local_addr()?) {
            // Another process has the port for connections.
            Err(error) if error.kind() == ErrorKind::AddrInUse && attempts > 1 => attempts -= 1,
            listener => return Ok((socket, listener?)),
        }
    }
}

/// Serves the names at these sockets, on the thread that is returned. It can read the leases, and ask name servers.
pub(super) fn serve_names(
    socket: UdpSocket,
    listener: TcpListener,
    mut names: Names,
    sandbox: &Arc<Sandbox>,
) -> Result<StoppableThread> {
    names.servers.truncate(MAX_SERVERS);
    socket.set_nonblocking(true)?;
    let names = Arc::new(names);
    let connections = NameConnections::new(listener, Arc::clone(&names))?;
    let mut server = Server { socket, connections, names, forwarded: Vec::new() };
    let leases = Grant::new(&state_directory(), Right::Read)?;
    let sandbox = Arc::clone(sandbox);
    let confine = move || sandbox.confine_network(Thread::Names, "names", vec![leases], vec![PORT]);
    StoppableThread::start("names", confine, move |stop| {
        if let Err(error) = server.serve(stop) {
            log::warn!("the name server of the bridge ended: {error}");
        }
    })
}

struct Server {
    socket: UdpSocket,
    connections: NameConnections,
    names: Arc<Names>,
    forwarded: Vec<Forwarded>,
}

/// A query that waits for the answer of a server. It has a socket of its own, so that its port is hard to guess.
struct Forwarded {
    socket: UdpSocket,
    client: SocketAddr,
    query: Vec<u8>,
    /// Servers that were asked.
    asked: usize,
    deadline: Instant,
}

impl Server {
    fn serve(&mut self, stop: &Stop) -> Result<()> {
        let mut buffer = vec![0; ANSWER_BUF_SIZE];
        loop {
            let own = [self.connections.listener.as_fd(), self.socket.as_fd()];
            let waiting = self.forwarded.iter().map(|forwarded| forwarded.socket.as_fd());
            let next = self.forwarded.iter().map(|forwarded| forwarded.deadline).min();
            let Some(ready) = stop.wait(own.into_iter().chain(waiting), next)? else { return Ok(()) };
            self.receive_answers(&ready[2..], &mut buffer);
            if ready[0] {
                self.connections.accept(stop);
            }
            if ready[1] {
                self.receive_query(&mut buffer[..MAX_QUERY_BYTES]);
            }
        }
    }

    fn receive_query(&mut self, buffer: &mut [u8]) {
        let Ok((length, client)) = self.socket.recv_from(buffer) else { return };
        let Some(query) = Query::parse(&buffer[..length]).filter(|_| client.ip() == self.names.client) else { return };
        let addresses = self.names.addresses_of(&query);
        if addresses.is_empty() {
            if self.forwarded.len() < MAX_FORWARDED {
                self.forward(&buffer[..length], client, 0);
            }
        } else {
            self.answer(&query.answer(&addresses, MAX_UDP_ANSWERS), client);
        }
    }

    /// Asks the first server from number `asked` on that can be asked.
    fn forward(&mut self, query: &[u8], client: SocketAddr, mut asked: usize) {
        while let Some(server) = self.names.servers.get(asked) {
            asked += 1;
            if let Ok(socket) = send(query, *server) {
                let deadline = Instant::now() + MAX_ANSWER_TIME;
                self.forwarded.push(Forwarded { socket, client, query: query.to_vec(), asked, deadline });
                return;
            }
        }
        if let Some(query) = Query::parse(query) {
            self.answer(&query.failure(), client);
        }
    }

    /// `ready` has a word for each of the forwarded queries.
    fn receive_answers(&mut self, ready: &[bool], buffer: &mut [u8]) {
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.forwarded);
        for (forwarded, &is_ready) in waiting.into_iter().zip(ready) {
            let received = if is_ready { forwarded.socket.recv(buffer) } else { Err(ErrorKind::WouldBlock.into()) };
            match received {
                Ok(length) if is_answer(&buffer[..length], &forwarded.query) => {
                    self.answer(&buffer[..length], forwarded.client);
                }
                // Another packet, or nothing yet.
                Err(error) if error.kind() != ErrorKind::WouldBlock => self.forward_again(&forwarded),
                _ if now >= forwarded.deadline => self.forward_again(&forwarded),
                _ => self.forwarded.push(forwarded),
            }
        }
    }

    fn forward_again(&mut self, forwarded: &Forwarded) {
        self.forward(&forwarded.query, forwarded.client, forwarded.asked);
    }

    fn answer(&self, packet: &[u8], client: SocketAddr) {
        // A client asks again.
        let _ = self.socket.send_to(packet, client);
    }
}

impl Names {
    /// The addresses of the machines that have the name in `query`.
    pub(super) fn addresses_of(&self, query: &Query<'_>) -> Vec<IpAddr> {
        if query.is_of_the_internet() { self.find(&query.name) } else { Vec::new() }
    }

    pub(super) fn find(&self, name: &str) -> Vec<IpAddr> {
        let live = self.leases.live();
        let found = live.iter().filter(|lease| lease.bridge == self.bridge && lease.has_name(name));
        found.flat_map(|lease| lease.addresses()).filter(|address| address.is_ipv4() || self.has_ipv6).collect()
    }
}

fn send(query: &[u8], server: IpAddr) -> Result<UdpSocket> {
    let socket = connected((server, PORT).into())?;
    socket.send(query)?;
    Ok(socket)
}

/// A socket for datagrams to and from `peer`, which does not block. Its own address is the kernel's choice: no thread that runs with
/// the guest can bind one.
pub(super) fn connected(peer: SocketAddr) -> Result<UdpSocket> {
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&socket, &peer)?;
    Ok(socket.into())
}
