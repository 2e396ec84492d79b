// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network bridge[=NAME]`: a bridge for each named network, a tap for each machine, and one nftables table for all of them.
//!
//! [`connect`] takes a lease and a tap, which end with the process; for `check` it only looks. [`BridgeGuard::take`] joins the tap
//! to the bridge, writes the table and starts the threads `names`, `ports` and `datagrams`, as the last step before the machine
//! runs. What a killed process left, [`restore_left`] removes at the next start in the namespace.

mod connections;
mod datagram_relay;
mod dns;
mod host_ports;
mod lease;
mod name_connections;
mod name_server;
mod networks;
mod nft;
mod rules;
mod stoppable_thread;
mod subnet;

pub(crate) use networks::{BridgeNetwork, NetworkError, networks, prune_networks, remove_network};

use super::adopted_state::INTERFACE_SETTINGS;
use super::guest::{complete, configuration, default_route};
use super::host_routes;
use super::resolve::ResolvedInterface;
use crate::config::request::Request;
use crate::host::netlink::Netlink;
use crate::host::system_error::{Cannot as _, SystemError};
use crate::sandbox::Sandbox;
use crate::state::published_port::PublishedPort;
use devices::virtio::net::{Backend, Tap, TapError};
use guest_protocol::run_spec::{Address, Interface, Resolver};
use host_ports::{HostPorts, relay_ports};
use lease::{Lease, LeaseDirectory, Leases, OwnLease};
use name_server::{Names, bind_both, serve_names};
use networks::{Bridge, reclaim};
use nft::NftError;
use rustix::process::geteuid;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use stoppable_thread::StoppableThread;
use subnet::{PREFIX4, PREFIX6, Subnet};

/// Of `--network bridge` without a name.
const DEFAULT_NAME: &str = "coracle0";

#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    #[error("--network bridge needs root; --network user does not")]
    Root,
    #[error("--network bridge={0}: an interface with this name exists and is not a bridge of coracle")]
    Foreign(String),
    #[error("--network bridge: the network assigns the addresses; `ip=` and `gw=` do not apply to it")]
    Addresses,
    #[error("--network bridge={0}: no free address, the network has 253 machines")]
    Full(String),
    #[error(
        "--network bridge={0}: no free subnet; the host has routes to 10.89.0.0/16, 172.30.0.0/16 and 192.168.0.0/16"
    )]
    Subnets(String),
    #[error("cannot publish {0}")]
    Port(PublishedPort, #[source] std::io::Error),
    #[error("--network bridge")]
    System(#[from] SystemError),
    #[error("--network bridge")]
    Nft(#[from] NftError),
    #[error(transparent)]
    Tap(#[from] TapError),
}

/// What the machine's options and its other networks give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) request: &'a Request,
    /// Name of the machine.
    pub(super) machine: &'a str,
    pub(super) ports: &'a [PublishedPort],
    /// Pairs of queues of an interface whose backend can have several: one for each vCPU.
    pub(super) queue_pairs: u16,
    /// Nothing is made or changed.
    pub(super) is_check: bool,
}

/// A machine's place on a bridge, before its tap goes to the device.
#[derive(Debug)]
pub(super) struct Bridged {
    pub(super) backend: Backend,
    pub(super) guest: Interface,
    pub(super) gateway: IpAddr,
    /// The gateway, and the host's search list.
    pub(super) resolver: Resolver,
    /// `None` for `check`.
    pub(super) guard: Option<BridgeGuard>,
}

/// A machine's hold on its bridge. Dropping it gives back the address, the rules, and with the last machine the bridge.
#[derive(Debug)]
pub(crate) struct BridgeGuard {
    lease: Option<OwnLease>,
    /// Until the threads have them.
    ports: HostPorts,
    servers: Vec<IpAddr>,
    threads: Vec<StoppableThread>,
}

/// Removes what killed machines left on their bridges. `lock` is that of the state directory.
pub(super) fn restore_left(lock: File) {
    reclaim(&Leases::with_lock(lock));
}

/// Takes an address and a tap on the bridge `name`.
pub(super) fn connect(
    interface: &ResolvedInterface,
    name: Option<&str>,
    wanted: Wanted<'_>,
) -> Result<Bridged, BridgeError> {
    let mut guest = configuration(interface);
    if !guest.addresses.is_empty() || !guest.routes.is_empty() {
        return Err(BridgeError::Addresses);
    }
    if !geteuid().is_root() {
        return Err(BridgeError::Root);
    }
    let bridge = name.unwrap_or(DEFAULT_NAME);
    let leases = match wanted.is_check {
        true => Leases::lock_existing().cannot("lock the leases")?,
        false => Some(Leases::lock().cannot("lock the leases")?),
    };
    let live = leases.as_ref().map(Leases::live).unwrap_or_default();
    let lease = new_lease(bridge, guest.mac, wanted, &live)?;
    let [address4, address6] = lease.addresses();
    let [gateway4, gateway6] = lease.subnet.gateways();
    let mut addresses = vec![Address { address: address4, prefix: PREFIX4 }];
    let mut routes = vec![default_route(gateway4)];
    if has_ipv6() {
        addresses.push(Address { address: address6, prefix: PREFIX6 });
        routes.extend(forwards_ipv6().then(|| default_route(gateway6)));
    }
    complete(&mut guest, addresses, routes);
    let (mut resolver, local_server) = host_routes::resolver();
    let mut servers = if wanted.request.dns.is_empty() { resolver.servers } else { wanted.request.dns.clone() };
    if servers.is_empty() {
        servers.extend(local_server);
    }
    resolver.servers = vec![gateway4];

    let (backend, guard) = match leases {
        Some(leases) if !wanted.is_check => {
            let ports = HostPorts::hold(wanted.ports).map_err(|(port, error)| BridgeError::Port(port, error))?;
            let tap = Tap::create(&lease.tap(), wanted.queue_pairs)?;
            let lease = Some(leases.take(lease).cannot("write the lease")?);
            (tap.into(), Some(BridgeGuard { lease, ports, servers, threads: Vec::new() }))
        }
        _ => {
            File::options().read(true).write(true).open("/dev/net/tun").cannot("open /dev/net/tun")?;
            nft::check(&rules::table(&[&*live, &[lease]].concat()))?;
            (Backend::None, None)
        }
    };
    Ok(Bridged { backend, guest, gateway: gateway4, resolver, guard })
}

/// Chooses an address among those that no live lease has.
fn new_lease(bridge: &str, mac: [u8; 6], wanted: Wanted<'_>, live: &[Lease]) -> Result<Lease, BridgeError> {
    let mut netlink = Netlink::open().cannot("open a netlink socket")?;
    let existing = Bridge::all(&mut netlink)?.into_iter().find(|found| found.link.name == bridge);
    let links = netlink.links().cannot("list interfaces")?;
    if existing.is_none() && links.iter().any(|link| link.name == bridge) {
        return Err(BridgeError::Foreign(bridge.to_owned()));
    }
    // A machine whose bridge is not there yet is about to make it.
    let of_machine = || live.iter().find(|lease| lease.bridge == bridge).map(|lease| lease.subnet);
    let subnet = match existing.map(|found| found.subnet).or_else(of_machine) {
        Some(subnet) => subnet,
        None => {
            let taken: Vec<Subnet> = live.iter().map(|lease| lease.subnet).collect();
            let networks = host_networks(&mut netlink).cannot("list addresses and routes")?;
            Subnet::free(&taken, &networks).ok_or_else(|| BridgeError::Subnets(bridge.to_owned()))?
        }
    };
    let host = lease::free_host(subnet, live).ok_or_else(|| BridgeError::Full(bridge.to_owned()))?;
    Ok(Lease {
        bridge: bridge.to_owned(),
        subnet,
        host,
        machine: wanted.machine.to_owned(),
        aliases: wanted.request.network_alias.iter().map(ToString::to_string).collect(),
        mac,
        ports: wanted.ports.to_vec(),
        name_server: None,
    })
}

/// The networks that this host reaches.
fn host_networks(netlink: &mut Netlink) -> std::io::Result<Vec<(IpAddr, u8)>> {
    let routes = netlink.routes()?.into_iter().map(|route| route.destination);
    Ok(routes.chain(netlink.addresses()?.into_iter().map(|own| (own.address, own.prefix))).collect())
}

/// Whether a bridge that is made now gets IPv6 addresses.
fn has_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6").is_ok_and(|text| text.trim() == "0")
}

/// Whether machines reach more by IPv6 than the host and one another. Forwarding stays as it is: a host that forwards does not
/// take its own address from a router any more.
fn forwards_ipv6() -> bool {
    let forwards = || fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
    host_routes::default_routes()[1] && forwards().is_ok_and(|text| text.trim() == "1")
}

impl BridgeGuard {
    /// Joins the tap to the bridge, which the first machine makes, writes the rules, and starts the threads.
    pub(super) fn take(&mut self, sandbox: &Arc<Sandbox>) -> Result<(), BridgeError> {
        let Some(own) = &mut self.lease else { return Ok(()) };
        let leases = Leases::lock().cannot("lock the leases")?;
        join(own.get())?;
        // The kernel's default of all new interfaces, too.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").cannot("enable IPv4 forwarding")?;
        let (bridge, [client, _]) = (own.get().bridge.clone(), own.get().addresses());
        let [gateway, _] = own.get().subnet.gateways();
        let (socket, listener) = bind_both(gateway).cannot("bind the name server")?;
        let port = socket.local_addr().cannot("bind the name server")?.port();
        leases.set_name_server(own, port).cannot("write the lease")?;
        nft::execute(&rules::table(&leases.live()))?;
        warn_of_firewall(&bridge);
        let (leases, servers) = (LeaseDirectory::of_this_namespace(), std::mem::take(&mut self.servers));
        let names = Names { leases, bridge, has_ipv6: has_ipv6(), servers, client };
        self.threads.push(serve_names(socket, listener, names, sandbox).cannot("start the name server")?);
        let relays = relay_ports(std::mem::take(&mut self.ports), client, sandbox);
        let relays = relays.cannot("serve the published ports")?;
        self.threads.extend(relays);
        Ok(())
    }
}

impl Drop for BridgeGuard {
    fn drop(&mut self) {
        self.threads.clear();
        self.lease = None;
        match Leases::lock_existing() {
            Ok(leases) => leases.iter().for_each(reclaim),
            Err(error) => log::warn!("cannot remove what the machine had on its bridge: {error}"),
        }
    }
}

/// Makes the machine's tap a port of its bridge, and the bridge, if there is none.
fn join(lease: &Lease) -> Result<(), BridgeError> {
    let mut netlink = Netlink::open().cannot("open a netlink socket")?;
    let name = &lease.bridge;
    let is_missing = !Bridge::all(&mut netlink)?.iter().any(|bridge| bridge.link.name == *name);
    if is_missing {
        match netlink.create_bridge(name, lease.subnet.bridge_mac()) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(BridgeError::Foreign(name.clone())),
            made => made.cannot(format!("make the bridge {name}"))?,
        }
    }
    let links = netlink.links().cannot("list interfaces")?;
    let index = |name: &str| links.iter().find(|link| link.name == name).map(|link| link.index);
    let (Some(bridge), Some(tap)) = (index(name), index(&lease.tap())) else {
        return Err(BridgeError::Foreign(name.clone()));
    };
    if is_missing {
        // Otherwise a machine could be the host's router.
        let accept_ra = Path::new(INTERFACE_SETTINGS).join(name).join("accept_ra");
        if has_ipv6() {
            fs::write(accept_ra, "0").cannot("ignore routers on the bridge")?;
        }
        for (address, prefix) in lease.subnet.gateways().into_iter().zip([PREFIX4, PREFIX6]) {
            if address.is_ipv4() || has_ipv6() {
                netlink.add_address(bridge, address, prefix).cannot(format!("give the bridge {address}"))?;
            }
        }
        netlink.set_up(bridge).cannot("set the bridge up")?;
    }
    netlink.join_bridge(tap, bridge).cannot("join the tap to the bridge")?;
    Ok(netlink.set_up(tap).cannot("set the tap up")?)
}

/// Tables of others stay as they are, and what one of them drops is dropped.
fn warn_of_firewall(bridge: &str) {
    let chain = nft::chains().ok().and_then(|text| rules::forward_policy_drop(&text));
    if let Some(chain) = chain {
        log::warn!(
            "the firewall drops forwarded packets (nftables chain {chain}): until it accepts those of {bridge}, machines \
             reach only the host and one another"
        );
    }
}

#[cfg(test)]
mod bridge_tests;
