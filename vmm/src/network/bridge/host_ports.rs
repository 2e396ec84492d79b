// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's side of published ports, besides the nftables rules: sockets that hold each port, so that no other process takes
//! it, and a relay for what the rules leave out, TCP connections and datagrams from the host's loopback addresses.
//!
//! The kernel has a switch for the latter (`route_localnet`), by which machines would reach the host's own loopback addresses, too.
//!
//! The thread `ports` accepts connections; each has two threads, for its two directions. Datagrams are in `datagram_relay.rs`.

use super::connections::{Connections, Counted};
use super::datagram_relay::{DatagramPort, relay_datagrams};
use super::stoppable_thread::{Stop, StoppableThread};
use crate::config::publish::Protocol;
use crate::host::forbidden_call::name_thread;
use crate::sandbox::{Sandbox, Thread};
use crate::state::published_port::PublishedPort;
use std::io::{ErrorKind, Result};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Any more are closed at once.
const MAX_CONNECTIONS: usize = 128;
const MAX_CONNECT_TIME: Duration = Duration::from_secs(10);
/// `io::copy` has a buffer of 8 KiB on it.
const STACK_SIZE: usize = 128 << 10;

/// The ports, as long as this lives.
#[derive(Debug, Default)]
pub(super) struct HostPorts {
    listeners: Vec<Listener>,
    datagrams: Vec<DatagramPort>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// The port of the guest that it stands for.
    port: u16,
}

impl HostPorts {
    /// Binds every port of the host.
    pub(super) fn hold(ports: &[PublishedPort]) -> std::result::Result<Self, (PublishedPort, std::io::Error)> {
        let mut held = Self::default();
        for port in ports {
            held.bind(port.host(), port).map_err(|error| (*port, error))?;
            if port.host_ip.is_unspecified() && port.host_ip.is_ipv4() {
                // Of IPv6 the loopback address stands for all; where the host has none, there is nothing to hold.
                let bound = held.bind((Ipv6Addr::LOCALHOST, port.host_port).into(), port);
                match bound {
                    Err(error) if error.kind() == ErrorKind::AddrInUse => return Err((*port, error)),
                    _ => {}
                }
            }
        }
        Ok(held)
    }

    fn bind(&mut self, address: SocketAddr, port: &PublishedPort) -> Result<()> {
        match port.protocol {
            Protocol::Tcp => {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                self.listeners.push(Listener { socket, port: port.port });
            }
            Protocol::Udp => {
                self.datagrams.push(DatagramPort { socket: UdpSocket::bind(address)?, port: port.port });
            }
        }
        Ok(())
    }
}

/// Connects what reaches the sockets of `ports` with the machine at `guest`, on the threads that are returned. Connections that
/// there are at their end go on until the machine's own ends.
pub(super) fn relay_ports(ports: HostPorts, guest: IpAddr, sandbox: &Arc<Sandbox>) -> Result<Vec<StoppableThread>> {
    let HostPorts { listeners, datagrams } = ports;
    let mut threads = Vec::new();
    if !listeners.is_empty() {
        let of_guest = listeners.iter().map(|listener| listener.port).collect();
        let sandbox = Arc::clone(sandbox);
        let confine = move || sandbox.confine_network(Thread::Ports, "ports", Vec::new(), of_guest);
        threads.push(StoppableThread::start("ports", confine, move |stop| accept(&listeners, guest, stop))?);
    }
    if !datagrams.is_empty() {
        threads.push(relay_datagrams(datagrams, guest, sandbox)?);
    }
    Ok(threads)
}

fn accept(listeners: &[Listener], guest: IpAddr, stop: &Stop) {
    let connections = Connections::at_most(MAX_CONNECTIONS);
    loop {
        let ready = match stop.wait(listeners.iter().map(|listener| listener.socket.as_fd()), None) {
            Ok(Some(ready)) => ready,
            Ok(None) => return,
            Err(error) => return log::warn!("published ports are not served on loopback addresses any more: {error}"),
        };
        let ready = listeners.iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        for (listener, _) in ready {
            if let Some((stream, _, counted)) = connections.accept(&listener.socket, stop) {
                let server = SocketAddr::new(guest, listener.port);
                // Without a thread the connection is closed.
                let _ = thread(move || relay(&stream, server, counted));
            }
        }
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new().name("port".to_owned()).stack_size(STACK_SIZE).spawn(|| {
        name_thread("port");
        work();
    })
}

/// Copies both directions until both have ended. An end of one closes that direction on the other side.
fn relay(client: &TcpStream, server: SocketAddr, _counted: Counted) {
    let connect = || {
        client.set_nonblocking(false)?;
        let server = TcpStream::connect_timeout(&server, MAX_CONNECT_TIME)?;
        Ok((server.try_clone()?, client.try_clone()?, server))
    };
    let connected: Result<_> = connect();
    let Ok((from_server, to_client, to_server)) = connected else { return };
    let answers = thread(move || copy(from_server, to_client));
    if let Ok(answers) = answers {
        if let Ok(client) = client.try_clone() {
            copy(client, to_server);
        }
        let _ = answers.join();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    // After an error nothing more is read, and the peer has to notice.
    let how = if std::io::copy(&mut from, &mut to).is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(how);
    if how == Shutdown::Both {
        let _ = from.shutdown(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::request::SandboxMode;
    use std::io::{Read as _, Write as _};
    use std::net::Ipv4Addr;

    fn port(host_port: u16, port: u16, protocol: Protocol) -> PublishedPort {
        PublishedPort { host_ip: Ipv4Addr::LOCALHOST.into(), host_port, port, protocol }
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn held_ports_are_in_use() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = port(free_port(), 80, protocol);
            let held = HostPorts::hold(&[port]).unwrap();
            let (named, error) = HostPorts::hold(&[port]).unwrap_err();
            assert_eq!((named, error.kind()), (port, ErrorKind::AddrInUse));
            drop(held);
            assert!(HostPorts::hold(&[port]).is_ok());
        }
    }

    #[test]
    fn relay_carries_both_directions_to_their_ends() {
        let guest = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = guest.local_addr().unwrap();
        let host_port = free_port();
        let held = HostPorts::hold(&[port(host_port, address.port(), Protocol::Tcp)]).unwrap();
        let sandbox = Arc::new(Sandbox::new(SandboxMode::Auto).unwrap());
        let relay = relay_ports(held, address.ip(), &sandbox).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = guest.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, host_port)).unwrap();
        client.write_all(b"text").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "TEXT");
        served.join().unwrap();
        drop(relay);
        // A process that another test starts holds the listener until it executes its program.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, host_port)).is_ok() {
            assert!(std::time::Instant::now() < deadline, "the listener is still there");
        }
    }
}
