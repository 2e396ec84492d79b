// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The DHCP clients of all interfaces with `ip=dhcp`: their sockets, and the addresses and routes that they get. The workload
//! starts once each has an address; from then on the event loop calls [`Dhcp::serve`].
//!
//! A socket is open only while an answer is expected, and passes only datagrams to the client, so that it costs nothing between
//! two renewals, and little in a flood.

use super::failure::Failure;
use super::launch::timespec;
use super::network::{Kernel, STEP};
use crate::freestanding::Line;
use crate::freestanding::system_call::{milliseconds_since_boot, open_packet_socket};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use guest_init::dhcp::client::{Action, Client};
use guest_init::dhcp::frame::{CLIENT_PORT, FILTER};
use guest_init::dhcp::lease::Settings;
use guest_init::dhcp::message::MAX_MESSAGE_SIZE;
use guest_init::rtnetlink;
use guest_protocol::protocol::FailureKind;
use guest_protocol::run_spec::{Interface, Route, RunSpec};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};

/// A bridge with the spanning tree protocol forwards nothing for its first 30 s.
const MAX_START_TIME_MS: u64 = 40_000;
/// Read from one interface in one turn of the event loop.
const MAX_FRAMES: usize = 16;
/// IPv6 needs as much, RFC 8200, 5.
const MIN_IPV6_MTU: u16 = 1280;

pub(crate) struct Dhcp {
    clients: Vec<Attached>,
    /// All interfaces as the host has configured them.
    interfaces: Vec<Interface>,
    /// The sockets of all clients.
    epoll: OwnedFd,
}

/// A client and its interface.
struct Attached {
    /// In the list of all interfaces.
    position: usize,
    index: u32,
    name: String,
    /// That of the routes through it.
    metric: Option<u32>,
    client: Client,
    /// Open while the client expects frames.
    socket: Option<OwnedFd>,
    /// The client's port, so that the kernel does not reject the answers of a server that the other socket receives, too.
    port: Option<OwnedFd>,
    /// What the interface is configured with.
    current: Option<Settings>,
}

impl Dhcp {
    pub(crate) fn new(interfaces: &[Interface]) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { clients: Vec::new(), interfaces: interfaces.into(), epoll })
    }

    /// Adds a client for the interface at `position`, which is up, and sends its first message.
    pub(crate) fn add(
        &mut self,
        position: usize,
        index: u32,
        metric: Option<u32>,
        hostname: &str,
    ) -> Result<(), Failure> {
        let Interface { mac, name, .. } = &self.interfaces[position];
        let name = if name.is_empty() { format!("eth{position}") } else { name.clone() };
        let now = milliseconds_since_boot();
        let client = Client::new(*mac, hostname, seed(), now);
        let mut attached = Attached { position, index, name, metric, client, socket: None, port: None, current: None };
        attached.open(&self.epoll).map_err(|errno| {
            let what = format!("{}: DHCP needs packet sockets (CONFIG_PACKET) in the guest kernel", attached.name);
            Failure::setup(STEP, what, errno)
        })?;
        attached.turn(&self.interfaces[position], &self.epoll, now);
        self.clients.push(attached);
        Ok(())
    }

    /// Waits until each interface has its address.
    pub(crate) fn wait_for_addresses(&mut self) -> Result<(), Failure> {
        let deadline = milliseconds_since_boot() + MAX_START_TIME_MS;
        loop {
            self.serve();
            let Some(missing) = self.clients.iter().find(|attached| attached.current.is_none()) else { return Ok(()) };
            let now = milliseconds_since_boot();
            if now >= deadline {
                let seconds = MAX_START_TIME_MS / 1000;
                let detail = format!("{}: no DHCP server gave an address within {seconds} s", missing.name);
                return Err(Failure::new(FailureKind::Network, STEP, detail));
            }
            let next = self.due().unwrap_or(deadline).min(deadline);
            let mut sockets = [PollFd::new(&self.epoll, PollFlags::IN)];
            poll(&mut sockets, Some(&timespec(next.saturating_sub(now))))
                .map_err(|errno| Failure::setup(STEP, "poll", errno))?;
        }
    }

    /// When to call [`Dhcp::serve`], besides when the descriptor is readable.
    pub(crate) fn due(&self) -> Option<u64> {
        self.clients.iter().filter_map(|attached| attached.client.due()).min()
    }

    /// Handles what has arrived and what is due. Returns whether an address has changed.
    pub(crate) fn serve(&mut self) -> bool {
        let now = milliseconds_since_boot();
        let before = self.clients.iter().map(Attached::address).collect::<Vec<_>>();
        for attached in &mut self.clients {
            attached.turn(&self.interfaces[attached.position], &self.epoll, now);
        }
        !self.clients.iter().map(Attached::address).eq(before)
    }

    /// The addresses of all interfaces.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let of = |(position, interface): (usize, &Interface)| {
            let client = self.clients.iter().find(|attached| attached.position == position);
            let fixed: Vec<IpAddr> = interface.addresses.iter().map(|own| own.address).collect();
            client.and_then(Attached::address).into_iter().chain(fixed).collect::<Vec<_>>()
        };
        self.interfaces.iter().enumerate().flat_map(of).collect()
    }

    /// Adds to `spec` what the workload's files of `/etc` show of it.
    pub(crate) fn complete(&self, spec: &mut RunSpec) {
        for attached in &self.clients {
            let (Some(settings), Some(wanted)) = (&attached.current, self.interfaces[attached.position].dhcp) else {
                continue;
            };
            spec.interfaces[attached.position].addresses.insert(0, settings.address);
            if spec.resolver.servers.is_empty() {
                spec.resolver.servers.clone_from(&settings.name_servers);
            }
            if wanted.search && spec.resolver.search.is_empty() {
                spec.resolver.search.clone_from(&settings.search);
            }
        }
    }

    /// Gives the addresses back to their servers.
    pub(crate) fn release(&mut self) {
        for attached in &mut self.clients {
            if let Some(frame) = attached.client.release() {
                let _ = attached.send(&frame, &self.epoll);
            }
        }
    }
}

impl AsFd for Dhcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Attached {
    fn address(&self) -> Option<IpAddr> {
        self.current.as_ref().map(|settings| settings.address.address)
    }

    fn turn(&mut self, interface: &Interface, epoll: &OwnedFd, now: u64) {
        for _ in 0..MAX_FRAMES {
            let Some(socket) = &self.socket else { break };
            let mut frame = [0; MAX_MESSAGE_SIZE as usize + 14];
            // An interface that is down reports it once; the client asks again.
            let Ok((_, length)) = recv(socket, &mut frame[..], RecvFlags::DONTWAIT) else { break };
            if let Some(action) = self.client.receive(&frame[..length.min(frame.len())], now) {
                self.act(action, interface, epoll);
            }
        }
        while let Some(action) = self.client.poll(now) {
            self.act(action, interface, epoll);
        }
        if !self.client.expects_frames() {
            (self.socket, self.port) = (None, None);
        }
    }

    fn act(&mut self, action: Action, interface: &Interface, epoll: &OwnedFd) {
        match action {
            // The client sends it again.
            Action::Send(frame) => drop(self.send(&frame, epoll)),
            Action::Configure(settings) => self.configure(settings, interface),
            Action::Remove => {
                self.print("the address is not valid any more", None);
                self.remove(interface);
            }
        }
    }

    fn send(&mut self, frame: &[u8], epoll: &OwnedFd) -> Result<(), Errno> {
        self.open(epoll)?;
        let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
        send(socket, frame, SendFlags::DONTWAIT).map(drop)
    }

    fn open(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        if self.socket.is_none() {
            let socket = open_packet_socket(self.index, &FILTER)?;
            epoll::add(epoll, &socket, EventData::new_u64(0), EventFlags::IN)?;
            self.socket = Some(socket);
        }
        if self.port.is_none()
            && let Some(address) = self.client.address()
        {
            let flags = SocketFlags::CLOEXEC;
            let port = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
            // If the workload has the port, the kernel rejects nothing, either.
            let _ = bind(&port, &SocketAddr::new(address.into(), CLIENT_PORT));
            self.port = Some(port);
        }
        Ok(())
    }

    /// Configures the interface. What the kernel rejects of it is printed, and the rest is used.
    fn configure(&mut self, settings: Settings, interface: &Interface) {
        let is_same = |current: &Settings| {
            (current.address, &current.routes, current.mtu) == (settings.address, &settings.routes, settings.mtu)
        };
        if !self.current.as_ref().is_some_and(is_same) {
            self.remove(interface);
            self.ask(&rtnetlink::add_address(self.index, settings.address), "address");
            self.add_fixed_routes(interface);
            self.add_routes(settings.routes.iter());
            let has_ipv6 = interface.addresses.iter().any(|own| own.address.is_ipv6());
            let is_enough = |mtu: &u16| *mtu >= MIN_IPV6_MTU || !has_ipv6;
            if let Some(mtu) = settings.mtu.filter(is_enough).filter(|_| interface.mtu.is_none()) {
                self.ask(&rtnetlink::bring_up(self.index, "", Some(mtu)), "MTU");
            }
        }
        self.current = Some(settings);
    }

    /// Removes the address. With an interface's only address of IPv4 the kernel removes all its routes.
    fn remove(&mut self, interface: &Interface) {
        if let Some(settings) = self.current.take() {
            self.ask(&rtnetlink::delete_address(self.index, settings.address), "address");
            self.add_fixed_routes(interface);
        }
    }

    /// The routes of IPv4 that the host has configured.
    fn add_fixed_routes(&self, interface: &Interface) {
        self.add_routes(interface.routes.iter().filter(|route| route.destination.address.is_ipv4()));
    }

    fn add_routes<'a>(&self, routes: impl Iterator<Item = &'a Route>) {
        for route in routes {
            self.ask(&rtnetlink::add_route(self.index, route, self.metric), "route");
        }
    }

    fn ask(&self, request: &[u8], what: &str) {
        match Kernel::open().and_then(|kernel| kernel.ask(request)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => self.print(&format!("the kernel rejects the {what}"), Some(errno)),
        }
    }

    fn print(&self, text: &str, errno: Option<Errno>) {
        let cause = errno.map_or_else(String::new, |errno| format!(" (errno {})", errno.raw_os_error()));
        Line::new(format_args!("{}: DHCP: {text}{cause}", self.name)).to_console();
    }
}

/// Before the kernel's generator is ready, its output is random enough to tell clients apart.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes[..], GetRandomFlags::INSECURE) {
        Ok(_) => bytes.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
        Err(_) => milliseconds_since_boot(),
    }
}
