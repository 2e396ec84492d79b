// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OpenStack's `config-2`: `openstack/latest/meta_data.json`, `network_data.json` and `user_data`. Pure.

use super::opennebula::prefix_length;
use super::{Context, ContextError, ContextInterface};
use crate::config::environment::EnvVar;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) const META_DATA: &str = "openstack/latest/meta_data.json";
pub(super) const NETWORK_DATA: &str = "openstack/latest/network_data.json";
pub(super) const USER_DATA: &str = "openstack/latest/user_data";

#[derive(Deserialize)]
struct MetaData {
    hostname: Option<String>,
    #[serde(default)]
    public_keys: BTreeMap<String, String>,
    /// What the user gave the server.
    #[serde(default)]
    meta: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkData {
    links: Vec<Link>,
    networks: Vec<Network>,
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Link {
    id: String,
    ethernet_mac_address: Option<String>,
    mtu: Option<u16>,
}

#[derive(Deserialize)]
struct Network {
    link: String,
    #[serde(rename = "type")]
    kind: String,
    ip_address: Option<String>,
    netmask: Option<String>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Route {
    network: IpAddr,
    netmask: String,
    gateway: IpAddr,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    address: Option<IpAddr>,
}

pub(super) fn parse(meta_data: &[u8], network_data: Option<&[u8]>) -> Result<Context, ContextError> {
    let json = |file, error: serde_json::Error| ContextError::Document(file, error.to_string());
    let meta: MetaData = serde_json::from_slice(meta_data).map_err(|error| json(META_DATA, error))?;
    let network: NetworkData = match network_data {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| json(NETWORK_DATA, error))?,
        None => NetworkData::default(),
    };
    let mut context = Context {
        hostname: meta.hostname,
        keys: meta.public_keys.into_values().flat_map(|keys| lines(&keys)).collect(),
        // Names that no program would look for are left out.
        variables: meta.meta.iter().filter_map(|(name, value)| variable(name, value)).collect(),
        ..Context::default()
    };
    let servers = network.networks.iter().flat_map(|network| &network.services).chain(&network.services);
    context.servers = servers.filter(|service| service.kind == "dns").filter_map(|service| service.address).collect();
    for link in &network.links {
        let invalid = |what: &str| ContextError::Value(NETWORK_DATA, link.id.clone(), what.to_owned());
        let mac = link.ethernet_mac_address.as_deref();
        let mac = mac.map(|text| text.parse().map_err(|_| invalid("invalid ethernet_mac_address"))).transpose()?;
        let mut interface = ContextInterface { mac, mtu: link.mtu, ..ContextInterface::default() };
        for network in network.networks.iter().filter(|network| network.link == link.id) {
            configure(&mut interface, network).ok_or_else(|| invalid("invalid address, netmask or route"))?;
        }
        context.interfaces.push(interface);
    }
    Ok(context)
}

fn configure(interface: &mut ContextInterface, network: &Network) -> Option<()> {
    if network.kind == "ipv4_dhcp" {
        interface.dhcp4 = true;
        return Some(());
    }
    let Some(text) = &network.ip_address else { return Some(()) };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (&**text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let prefix = match (prefix, &network.netmask) {
        (Some(prefix), _) => prefix.parse().ok()?,
        (None, Some(netmask)) => length(netmask)?,
        (None, None) => {
            if address.is_ipv4() {
                24
            } else {
                64
            }
        }
    };
    interface.addresses.push((address, prefix));
    for route in &network.routes {
        // Only default routes: `--network` has no other ones.
        if route.network.is_unspecified() && length(&route.netmask)? == 0 {
            interface.gateways.push(route.gateway);
        }
    }
    Some(())
}

/// Of a netmask of either family.
fn length(netmask: &str) -> Option<u8> {
    if let Ok(IpAddr::V6(mask)) = netmask.parse() {
        let bits = u128::from(mask);
        return (bits.count_ones() == bits.leading_ones()).then_some(bits.leading_ones() as u8);
    }
    prefix_length(netmask)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn variable(name: &str, value: &str) -> Option<EnvVar> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { format!("{name}={value}").parse().ok() } else { None }
}
