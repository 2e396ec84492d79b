// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects each interface to its network: opens, starts or creates what its kind needs, in the order of the options.

use super::guest;
use super::names::{self, NoHostError};
use super::resolve::ResolvedInterface;
use crate::config::network::NetworkKind;
use crate::config::request::Request;
use devices::virtio::net::{NetConfig, Tap, TapError};
use guest_protocol::run_spec::{self, Resolver};
use std::net::IpAddr;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    NoHost(#[from] NoHostError),
}

/// The machine's network, connected.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// In the order of the options.
    pub(crate) devices: Vec<NetConfig>,
    pub(crate) guest: GuestNetwork,
}

/// The guest's side of the network.
#[derive(Debug, Default)]
pub(crate) struct GuestNetwork {
    /// Of the devices, in the same order.
    pub(crate) interfaces: Vec<run_spec::Interface>,
    pub(crate) resolver: Resolver,
    pub(crate) hosts: Vec<run_spec::Host>,
}

/// Connects `interfaces`.
pub(crate) fn connect(request: &Request, interfaces: Vec<ResolvedInterface>) -> Result<Network, ConnectError> {
    let mut network = Network::default();
    // The first network's that has one.
    let mut host: Option<IpAddr> = None;
    for (index, interface) in interfaces.into_iter().enumerate() {
        let guest = guest::configuration(&interface);
        let tap = match (&interface.options.kind, interface.descriptor) {
            (NetworkKind::Tap(name), _) => Tap::open(name)?,
            (NetworkKind::Descriptor(_), Some(descriptor)) => Tap::inherit(descriptor)?,
            (kind, _) => unreachable!("`{kind}` is rejected when the options are resolved"),
        };
        let name = format!("net-{index}");
        network.devices.push(NetConfig { name, backend: tap.into(), mac: guest.mac, mtu: interface.options.mtu });
        host = host.or_else(|| guest.routes.iter().find_map(|route| route.gateway));
        network.guest.interfaces.push(guest);
    }
    network.guest.resolver = names::resolver(request, Resolver::default());
    network.guest.hosts = names::hosts(request, host)?;
    Ok(network)
}
