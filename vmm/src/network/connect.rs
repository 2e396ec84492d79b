// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects each interface to its network: opens, starts or creates what its kind needs, in the order of the options.

use super::guest;
use super::resolve::ResolvedInterface;
use crate::config::network::NetworkKind;
use devices::virtio::net::{NetConfig, Tap, TapError};
use guest_protocol::run_spec;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Tap(#[from] TapError),
}

/// The machine's network, connected.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// In the order of the options.
    pub(crate) devices: Vec<NetConfig>,
    /// The guest's side of the same interfaces.
    pub(crate) guest: Vec<run_spec::Interface>,
}

/// Connects `interfaces`.
pub(crate) fn connect(interfaces: Vec<ResolvedInterface>) -> Result<Network, ConnectError> {
    let mut network = Network::default();
    for (index, interface) in interfaces.into_iter().enumerate() {
        let guest = guest::configuration(&interface);
        let tap = match (&interface.options.kind, interface.descriptor) {
            (NetworkKind::Tap(name), _) => Tap::open(name)?,
            (NetworkKind::Descriptor(_), Some(descriptor)) => Tap::inherit(descriptor)?,
            (kind, _) => unreachable!("`{kind}` is rejected when the options are resolved"),
        };
        let name = format!("net-{index}");
        network.devices.push(NetConfig { name, backend: tap.into(), mac: guest.mac, mtu: interface.options.mtu });
        network.guest.push(guest);
    }
    Ok(network)
}
