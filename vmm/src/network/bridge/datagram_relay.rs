// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries datagrams between the host's loopback addresses and a published UDP port of a machine, on the thread `datagrams`. Each
//! client has a socket of its own toward the machine, so that the answers find their way back.

use super::name_server::connected;
use super::stoppable_thread::{Stop, StoppableThread};
use crate::sandbox::{Sandbox, Thread};
use std::io::Result;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The client that was silent for longest makes room for one more.
const MAX_CLIENTS: usize = 128;
/// A client that is silent for longer is forgotten; as long as the kernel's own translation remembers it.
const MAX_SILENCE: Duration = Duration::from_secs(120);
/// Read from one socket before the others have their turn.
const MAX_DATAGRAMS: usize = 64;
const BUF_SIZE: usize = 64 << 10;

/// A socket of the host that holds a published port.
#[derive(Debug)]
pub(super) struct DatagramPort {
    pub(super) socket: UdpSocket,
    /// The port of the guest that it stands for.
    pub(super) port: u16,
}

/// Serves `ports` for the machine at `guest`, on the thread that is returned.
pub(super) fn relay_datagrams(
    ports: Vec<DatagramPort>,
    guest: IpAddr,
    sandbox: &Arc<Sandbox>,
) -> Result<StoppableThread> {
    ports.iter().try_for_each(|port| port.socket.set_nonblocking(true))?;
    let mut relay = Relay { ports, guest, clients: Vec::new() };
    let sandbox = Arc::clone(sandbox);
    let confine = move || sandbox.confine_network(Thread::Datagrams, "datagrams", Vec::new(), Vec::new());
    StoppableThread::start("datagrams", confine, move |stop| {
        if let Err(error) = relay.serve(stop) {
            log::warn!("published UDP ports are not served on loopback addresses any more: {error}");
        }
    })
}

struct Relay {
    ports: Vec<DatagramPort>,
    guest: IpAddr,
    clients: Vec<Client>,
}

struct Client {
    /// Connected to the machine.
    socket: UdpSocket,
    address: SocketAddr,
    /// In the list of ports.
    port: usize,
    last_used: Instant,
}

impl Relay {
    fn serve(&mut self, stop: &Stop) -> Result<()> {
        let mut buffer = vec![0; BUF_SIZE];
        loop {
            let ports = self.ports.iter().map(|port| port.socket.as_fd());
            let sockets = ports.chain(self.clients.iter().map(|client| client.socket.as_fd()));
            let oldest = self.clients.iter().map(|client| client.last_used + MAX_SILENCE).min();
            let Some(ready) = stop.wait(sockets, oldest)? else { return Ok(()) };
            let now = Instant::now();
            let (ready_ports, ready_clients) = ready.split_at(self.ports.len());
            for (client, _) in self.clients.iter_mut().zip(ready_clients).filter(|(_, is_ready)| **is_ready) {
                client.pass_answers(&self.ports[client.port].socket, &mut buffer, now);
            }
            for (index, _) in ready_ports.iter().enumerate().filter(|(_, is_ready)| **is_ready) {
                self.pass_requests(index, &mut buffer, now);
            }
            self.clients.retain(|client| now.saturating_duration_since(client.last_used) < MAX_SILENCE);
        }
    }

    fn pass_requests(&mut self, port: usize, buffer: &mut [u8], now: Instant) {
        for _ in 0..MAX_DATAGRAMS {
            let Ok((length, address)) = self.ports[port].socket.recv_from(buffer) else { return };
            let known = self.clients.iter_mut().find(|client| (client.port, client.address) == (port, address));
            let client = match known {
                Some(client) => client,
                // Without a descriptor for it the datagram is lost.
                None => match self.connect(port, address, now) {
                    Ok(client) => client,
                    Err(_) => continue,
                },
            };
            client.last_used = now;
            // The machine may have no server there: the client asks again, or gives up.
            let _ = client.socket.send(&buffer[..length]);
        }
    }

    fn connect(&mut self, port: usize, address: SocketAddr, now: Instant) -> Result<&mut Client> {
        let socket = connected((self.guest, self.ports[port].port).into())?;
        if self.clients.len() >= MAX_CLIENTS {
            let oldest = self.clients.iter().enumerate().min_by_key(|(_, client)| client.last_used);
            if let Some((index, _)) = oldest {
                self.clients.remove(index);
            }
        }
        self.clients.push(Client { socket, address, port, last_used: now });
        Ok(self.clients.last_mut().expect("it was added"))
    }
}

impl Client {
    fn pass_answers(&mut self, port: &UdpSocket, buffer: &mut [u8], now: Instant) {
        for _ in 0..MAX_DATAGRAMS {
            match self.socket.recv(buffer) {
                Ok(length) => {
                    self.last_used = now;
                    let _ = port.send_to(&buffer[..length], self.address);
                }
                // Nothing more, or that the machine has rejected a datagram.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::request::SandboxMode;
    use std::collections::BTreeSet;
    use std::io::ErrorKind;

    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// A process that another test starts holds the descriptors of this one until it executes its program.
    fn bind_again(address: SocketAddr) -> UdpSocket {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match UdpSocket::bind(address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {}
                bound => return bound.unwrap(),
            }
            std::thread::yield_now();
        }
    }

    fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    }

    /// A relay, where it is reached, and the server of its machine.
    fn relay() -> (StoppableThread, SocketAddr, UdpSocket) {
        let (guest, socket) = (bound(), bound());
        let (server, address) = (guest.local_addr().unwrap(), socket.local_addr().unwrap());
        let port = DatagramPort { socket, port: server.port() };
        let sandbox = Arc::new(Sandbox::new(SandboxMode::Auto).unwrap());
        (relay_datagrams(vec![port], server.ip(), &sandbox).unwrap(), address, guest)
    }

    #[test]
    fn datagrams_and_answers_find_their_clients() {
        let (relay, address, guest) = relay();
        let clients = [bound(), bound()];
        for (client, text) in clients.iter().zip(["one", "two"]) {
            client.send_to(text.as_bytes(), address).unwrap();
        }
        for _ in &clients {
            let (text, from) = receive(&guest);
            guest.send_to(&[b"for ", &text[..]].concat(), from).unwrap();
        }
        for (client, text) in clients.iter().zip(["for one", "for two"]) {
            assert_eq!(receive(client), (text.as_bytes().to_vec(), address));
        }
        // An empty one, too; and one client has one socket.
        clients[0].send_to(&[], address).unwrap();
        clients[0].send_to(b"again", address).unwrap();
        let [empty, again] = [receive(&guest), receive(&guest)];
        assert_eq!((&*empty.0, &*again.0, empty.1), (&[][..], &b"again"[..], again.1));
        drop(relay);
        bind_again(address);
    }

    #[test]
    fn oldest_client_makes_room_for_another() {
        let (_relay, address, guest) = relay();
        let mut sockets = BTreeSet::new();
        let clients: Vec<UdpSocket> = (0..MAX_CLIENTS + 1).map(|_| bound()).collect();
        for client in &clients {
            client.send_to(b"x", address).unwrap();
            sockets.insert(receive(&guest).1);
        }
        assert_eq!(sockets.len(), MAX_CLIENTS + 1);
        // The second one is known, the first one is not.
        clients[1].send_to(b"x", address).unwrap();
        assert!(!sockets.insert(receive(&guest).1));
        clients[0].send_to(b"x", address).unwrap();
        assert!(sockets.insert(receive(&guest).1));
    }

    #[test]
    fn machine_without_a_server_does_not_end_the_relay() {
        let (_relay, address, guest) = relay();
        let server = guest.local_addr().unwrap();
        drop(guest);
        let client = bound();
        for _ in 0..3 {
            client.send_to(b"lost", address).unwrap();
        }
        let guest = bind_again(server);
        guest.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // A rejection that was on its way costs a datagram.
        let found = (0..100).any(|_| {
            client.send_to(b"text", address).unwrap();
            guest.recv_from(&mut [0; 10]).is_ok()
        });
        assert!(found);
    }
}
