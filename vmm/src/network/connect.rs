// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects each interface to its network: opens, starts or creates what its kind needs, in the order of the options.

use super::adopt::{self, AdoptError, AdoptGuard};
use super::adopted_state::INTERFACE_SETTINGS;
use super::bridge::{self, BridgeError, BridgeGuard, Bridged, Wanted};
use super::guest;
use super::host_routes;
use super::metadata::{self, MetadataError};
use super::names::{self, NoHostError};
use super::publish::{self, PublishError};
use super::resolve::ResolvedInterface;
use super::state_directory::state_directory;
use super::user::{self, UserError};
use crate::config::mac_address::MacAddress;
use crate::config::name::MachineName;
use crate::config::network::NetworkKind;
use crate::config::publish::Protocol;
use crate::config::request::Request;
use crate::host::helper_process::HelperProcess;
use crate::host::system_error::chain;
use crate::sandbox::Sandbox;
use crate::state::published_port::PublishedPort;
use devices::rate_limit::RateLimits;
use devices::virtio::net::{Backend, MAX_QUEUE_PAIRS, NetConfig, StreamSocket, Tap, TapError};
use guest_protocol::run_spec::{self, Resolver};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_socket, socket_with};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error("--network user")]
    User(#[from] UserError),
    #[error("--network socket={0}")]
    Socket(PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    NoHost(#[from] NoHostError),
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("cannot choose a MAC address")]
    Random(#[source] std::io::Error),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

/// What an interface has on the host besides its device. Dropping it, after the machine, undoes it.
#[derive(Debug)]
pub(crate) enum Attachment {
    Process(HelperProcess),
    Adopted(AdoptGuard),
    Bridged(BridgeGuard),
}

impl Attachment {
    /// Changes the host's configuration for the machine, as the last step before it runs. Threads that it starts are confined by
    /// `sandbox`. `check` does not take this step.
    pub(crate) fn take_effect(&mut self, sandbox: &Arc<Sandbox>) -> Result<(), ConnectError> {
        match self {
            Self::Process(_) => Ok(()),
            Self::Adopted(guard) => Ok(guard.take()?),
            Self::Bridged(guard) => Ok(guard.take(sandbox)?),
        }
    }

    /// The process that is ended when this is dropped.
    pub(crate) fn helper(&self) -> Option<u32> {
        match self {
            Self::Process(process) => Some(process.id()),
            Self::Adopted(_) | Self::Bridged(_) => None,
        }
    }

    /// Whether programs of the host are executed when this is dropped.
    pub(crate) fn executes_programs(&self) -> bool {
        match self {
            Self::Process(_) | Self::Adopted(_) => false,
            Self::Bridged(_) => true,
        }
    }

    /// If the interface's configuration is changed when this is dropped: the directories of its state and of its settings.
    pub(crate) fn restores(&self) -> Option<[PathBuf; 2]> {
        match self {
            Self::Process(_) | Self::Bridged(_) => None,
            Self::Adopted(_) => Some([state_directory(), INTERFACE_SETTINGS.into()]),
        }
    }
}

/// The machine's network, connected.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// In the order of the options.
    pub(crate) devices: Vec<NetConfig>,
    pub(crate) guest: GuestNetwork,
    pub(crate) published: Vec<PublishedPort>,
    /// Dropped when the machine has ended.
    pub(crate) attachments: Vec<Attachment>,
}

/// The guest's side of the network.
#[derive(Debug, Default)]
pub(crate) struct GuestNetwork {
    /// Of the devices, in the same order.
    pub(crate) interfaces: Vec<run_spec::Interface>,
    pub(crate) resolver: Resolver,
    pub(crate) hosts: Vec<run_spec::Host>,
    /// The TCP ports that the host publishes.
    pub(crate) published: Vec<u16>,
}

/// One interface, connected.
struct Connected {
    backend: Backend,
    guest: run_spec::Interface,
    /// The most that the guest's driver may set.
    device_mtu: Option<u16>,
    /// What the network offers, if it does.
    resolver: Option<Resolver>,
    /// The host as the guest reaches it.
    host: Option<IpAddr>,
    /// The resolver is a server of this process, which asks the name servers of `--dns` itself.
    forwards_names: bool,
    attachment: Option<Attachment>,
}

/// Connects the `interfaces` of `machine`. `exposed` are the image's ExposedPorts, for `-P`. For a check nothing is made that
/// others see.
pub(crate) fn connect(
    request: &Request,
    machine: &MachineName,
    interfaces: Vec<ResolvedInterface>,
    exposed: &[String],
    is_check: bool,
) -> Result<Network, ConnectError> {
    let mut network = Network { published: publish::published(request, exposed)?, ..Network::default() };
    let tcp = network.published.iter().filter(|published| published.protocol == Protocol::Tcp);
    network.guest.published = tcp.map(|published| published.port).collect();
    // Each is the first network's that has one.
    let (mut resolver, mut host) = (None, None);
    let mut name_server = None;
    // The first network that can publishes them.
    let mut unpublished = network.published.clone();
    for (index, interface) in interfaces.into_iter().enumerate() {
        let is_default = interface.is_default && network.published.is_empty();
        let limits = interface.options.limits;
        // The kernel counts its names in the same order.
        let name = interface.options.name.clone().unwrap_or_else(|| format!("eth{index}"));
        let ports =
            if interface.options.kind.publishes_ports() { std::mem::take(&mut unpublished) } else { Vec::new() };
        let queue_pairs = u16::from(request.cpus.unwrap_or_default().get()).min(MAX_QUEUE_PAIRS);
        let wanted = Wanted { request, machine: machine.as_str(), ports: &ports, queue_pairs, is_check };
        let connected = match connect_one(interface, wanted) {
            Err(ConnectError::User(error)) if is_default => {
                log::warn!("no network: {}", chain(&error));
                continue;
            }
            connected => connected?,
        };
        let mtu = connected.device_mtu;
        network.devices.push(NetConfig {
            name,
            backend: connected.backend,
            internal_host: None,
            mac: connected.guest.mac,
            mtu,
            limits,
        });
        network.guest.interfaces.push(connected.guest);
        network.attachments.extend(connected.attachment);
        if connected.forwards_names {
            name_server = name_server.or(connected.resolver.as_ref().map(|resolver| resolver.servers.clone()));
        }
        resolver = resolver.or(connected.resolver);
        host = host.or(connected.host);
    }
    if let Some(path) = &request.metadata {
        serve_metadata(&mut network, path)?;
    }
    for dhcp in network.guest.interfaces.iter_mut().filter_map(|interface| interface.dhcp.as_mut()) {
        dhcp.search = request.dns_search.is_empty();
    }
    let offered = resolver.unwrap_or_else(|| names::hosts_own(&network.guest.interfaces, || host_routes::resolver().0));
    network.guest.resolver = names::resolver(request, offered);
    if let Some(servers) = name_server {
        network.guest.resolver.servers = servers;
    }
    network.guest.hosts = names::hosts(request, host)?;
    Ok(network)
}

/// Adds the metadata service at `path` to the first interface, or to one of its own.
fn serve_metadata(network: &mut Network, path: &Path) -> Result<(), ConnectError> {
    let service = metadata::open(path)?;
    if network.devices.is_empty() {
        let mac = MacAddress::random().map_err(ConnectError::Random)?.octets();
        let (name, limits) = ("eth0".to_owned(), RateLimits::default());
        network.devices.push(NetConfig { name, backend: Backend::None, internal_host: None, mac, mtu: None, limits });
        network.guest.interfaces.push(run_spec::Interface { mac, ..run_spec::Interface::default() });
    }
    network.devices[0].internal_host = Some(service);
    metadata::add_route(&mut network.guest.interfaces[0]);
    Ok(())
}

fn connect_one(interface: ResolvedInterface, wanted: Wanted<'_>) -> Result<Connected, ConnectError> {
    let device_mtu = interface.options.mtu;
    let backend = match (&interface.options.kind, &interface.descriptor) {
        (NetworkKind::User, _) => {
            let user = user::connect(&interface, wanted.ports)?;
            return Ok(Connected {
                backend: user.socket.into(),
                guest: user.guest,
                device_mtu,
                resolver: Some(user.resolver),
                host: user.host,
                forwards_names: false,
                attachment: Some(Attachment::Process(user.process)),
            });
        }
        (NetworkKind::Bridge(name), _) => {
            let bridged = bridge::connect(&interface, name.as_deref(), wanted)?;
            let Bridged { backend, guest, gateway, resolver, guard } = bridged;
            return Ok(Connected {
                backend,
                guest,
                device_mtu,
                resolver: Some(resolver),
                host: Some(gateway),
                forwards_names: true,
                attachment: guard.map(Attachment::Bridged),
            });
        }
        (NetworkKind::Adopt(name), _) => {
            let adopted = adopt::adopt(name.as_deref())?;
            let mut guest = guest::configuration(&interface);
            guest.mac = adopted.mac;
            guest.mtu = guest.mtu.or(u16::try_from(adopted.mtu).ok());
            guest::complete(&mut guest, adopted.addresses, adopted.routes);
            let (resolver, local_server) = host_routes::resolver();
            if let (Some(server), true) = (local_server, resolver.servers.is_empty()) {
                log::warn!("the machine cannot reach the host's name server {server}; --dns gives another");
            }
            return Ok(Connected {
                backend: adopted.socket.into(),
                device_mtu: guest.mtu,
                guest,
                resolver: Some(resolver),
                // The gateway is not this host.
                host: None,
                forwards_names: false,
                attachment: Some(Attachment::Adopted(adopted.guard)),
            });
        }
        (NetworkKind::Tap(name), _) => Tap::open(name, wanted.queue_pairs)?.into(),
        (NetworkKind::Descriptor(number), None) => unreachable!("descriptor {number} was duplicated"),
        (NetworkKind::Descriptor(_), Some(descriptor)) => {
            let descriptor = descriptor.try_clone().map_err(|source| TapError::Setup { name: "fd".to_owned(), source });
            Tap::inherit(descriptor?)?.into()
        }
        (NetworkKind::Socket(path), _) => stream(path).map_err(|source| ConnectError::Socket(path.clone(), source))?,
    };
    let guest = guest::configuration(&interface);
    let host = guest.routes.iter().find_map(|route| route.gateway);
    Ok(Connected { backend, guest, device_mtu, resolver: None, host, forwards_names: false, attachment: None })
}

/// A client of the socket at `path`, which connects again whenever the connection ends. Its first connection shows whether there
/// is a server.
fn stream(path: &Path) -> std::io::Result<Backend> {
    let mut first = Some(connect_stream(path)?);
    let path = path.to_owned();
    let again = move || first.take().map_or_else(|| connect_stream(&path), Ok);
    Ok(StreamSocket::reconnecting(Box::new(again))?.into())
}

/// Does not block: a server whose queue is full is tried again later.
fn connect_stream(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect_socket(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
