// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bridges of this network namespace that coracle made, with their machines, and the removal of those that none has. A bridge
//! is known by its MAC address, so that one whose maker was killed is found without any file.

use super::lease::{Lease, Leases};
use super::nft::{self, NftError};
use super::rules;
use super::subnet::Subnet;
use crate::config::mac_address::MacAddress;
use crate::host::netlink::{Link, Netlink};
use crate::host::system_error::{Cannot as _, SystemError};
use rustix::process::geteuid;
use std::net::IpAddr;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("networks need root")]
    Root,
    #[error("network {0} not found")]
    Missing(String),
    #[error("network {name} is in use by {users}")]
    InUse { name: String, users: String },
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// A network of `--network bridge=NAME`.
#[derive(Debug)]
pub(crate) struct BridgeNetwork {
    pub(crate) name: String,
    /// Of IPv4 and IPv6.
    pub(crate) subnets: [String; 2],
    pub(crate) gateways: [IpAddr; 2],
    pub(crate) machines: Vec<Member>,
}

/// A machine on a network.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) machine: String,
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) mac: MacAddress,
}

/// A bridge that coracle made.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) link: Link,
    pub(super) subnet: Subnet,
    /// Names of the interfaces on it.
    ports: Vec<String>,
}

impl Bridge {
    pub(super) fn all(netlink: &mut Netlink) -> Result<Vec<Self>, SystemError> {
        let links = netlink.links().cannot("list interfaces")?;
        let bridge = |link: &Link| {
            let subnet = Subnet::of_bridge(link.mac.filter(|_| link.is_bridge)?)?;
            let ports = links.iter().filter(|port| port.bridge == Some(link.index));
            Some(Self { link: link.clone(), subnet, ports: ports.map(|port| port.name.clone()).collect() })
        };
        Ok(links.iter().filter_map(bridge).collect())
    }

    /// The machines on it, or else the interfaces, which another program has put there.
    fn users(&self, live: &[Lease]) -> Vec<String> {
        let machines: Vec<_> = of_bridge(live, &self.link.name).map(|lease| lease.machine.clone()).collect();
        if machines.is_empty() { self.ports.clone() } else { machines }
    }
}

fn of_bridge<'a>(live: &'a [Lease], name: &'a str) -> impl Iterator<Item = &'a Lease> {
    live.iter().filter(move |lease| lease.bridge == name)
}

/// Lists the networks by their names.
pub(crate) fn networks() -> Result<Vec<BridgeNetwork>, NetworkError> {
    require_root()?;
    // Without the directory no machine has one.
    let leases = Leases::lock_existing().cannot("lock the leases")?;
    let live = leases.as_ref().map(Leases::live).unwrap_or_default();
    let mut networks: Vec<_> = Bridge::all(&mut open()?)?
        .into_iter()
        .map(|Bridge { link, subnet, .. }| BridgeNetwork {
            subnets: subnet.networks(),
            gateways: subnet.gateways(),
            machines: of_bridge(&live, &link.name).map(member).collect(),
            name: link.name,
        })
        .collect();
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(networks)
}

fn member(lease: &Lease) -> Member {
    Member { machine: lease.machine.clone(), addresses: lease.addresses(), mac: MacAddress::new(lease.mac) }
}

/// Removes the network `name`, which no machine may have.
pub(crate) fn remove_network(name: &str) -> Result<(), NetworkError> {
    require_root()?;
    let leases = Leases::lock().cannot("lock the leases")?;
    let (mut netlink, live) = (open()?, leases.live());
    let bridge = Bridge::all(&mut netlink)?.into_iter().find(|bridge| bridge.link.name == name);
    let bridge = bridge.ok_or_else(|| NetworkError::Missing(name.to_owned()))?;
    let users = bridge.users(&live);
    if !users.is_empty() {
        return Err(NetworkError::InUse { name: name.to_owned(), users: users.join(", ") });
    }
    nft::execute(&rules::table(&live))?;
    Ok(remove(&mut netlink, &bridge)?)
}

/// Removes the networks that no machine has, and everything else that killed machines left; returns their names.
pub(crate) fn prune_networks() -> Result<Vec<String>, NetworkError> {
    require_root()?;
    let leases = Leases::lock().cannot("lock the leases")?;
    remove_left(&leases)
}

/// Removes what machines that have ended left in this network namespace, whatever their bridges were.
pub(super) fn reclaim(leases: &Leases) {
    if let Err(error) = remove_left(leases) {
        log::warn!("cannot remove what an ended machine left on its bridge: {error}");
    }
}

/// The leases go last: if a step fails, the next start takes all of them again.
fn remove_left(leases: &Leases) -> Result<Vec<String>, NetworkError> {
    let (mut netlink, live) = (open()?, leases.live());
    let mut unused = Bridge::all(&mut netlink)?;
    unused.retain(|bridge| bridge.users(&live).is_empty());
    if unused.is_empty() && !leases.has_ended() {
        return Ok(Vec::new());
    }
    nft::execute(&rules::table(&live))?;
    for bridge in &unused {
        remove(&mut netlink, bridge)?;
    }
    leases.remove_ended();
    Ok(unused.into_iter().map(|bridge| bridge.link.name).collect())
}

fn remove(netlink: &mut Netlink, bridge: &Bridge) -> Result<(), SystemError> {
    netlink.remove_link(bridge.link.index).cannot(format!("remove the bridge {}", bridge.link.name))
}

fn open() -> Result<Netlink, SystemError> {
    Netlink::open().cannot("open a netlink socket")
}

fn require_root() -> Result<(), NetworkError> {
    if geteuid().is_root() { Ok(()) } else { Err(NetworkError::Root) }
}
