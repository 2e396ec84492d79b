// SPDX-License-Identifier: Apache-2.0 OR MIT
//! NoCloud's `cidata`: `meta-data`, `network-config` (versions 1 and 2) and `user-data`. Pure.

use super::opennebula::prefix_length;
use super::yaml;
use super::{Context, ContextError, ContextInterface};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) const META_DATA: &str = "meta-data";
pub(super) const NETWORK_CONFIG: &str = "network-config";
pub(super) const USER_DATA: &str = "user-data";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MetaData {
    local_hostname: Option<String>,
    hostname: Option<String>,
    public_keys: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkConfig {
    version: u32,
    /// Of version 2.
    ethernets: BTreeMap<String, Ethernet>,
    /// Of version 1.
    config: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ethernet {
    #[serde(rename = "match")]
    matches: Match,
    addresses: Vec<String>,
    gateway4: Option<IpAddr>,
    gateway6: Option<IpAddr>,
    routes: Vec<Route>,
    nameservers: NameServers,
    dhcp4: bool,
    mtu: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Match {
    macaddress: Option<String>,
}

#[derive(Deserialize)]
struct Route {
    to: String,
    via: Option<IpAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NameServers {
    addresses: Vec<IpAddr>,
    search: Vec<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    mac_address: Option<String>,
    mtu: Option<u16>,
    #[serde(default)]
    subnets: Vec<Subnet>,
    #[serde(default)]
    address: Value,
    #[serde(default)]
    search: Value,
}

#[derive(Deserialize)]
struct Subnet {
    #[serde(rename = "type")]
    kind: String,
    address: Option<String>,
    netmask: Option<String>,
    gateway: Option<IpAddr>,
    #[serde(default)]
    dns_nameservers: Value,
    #[serde(default)]
    dns_search: Value,
}

pub(super) fn parse(meta_data: &str, network_config: Option<&str>) -> Result<Context, ContextError> {
    let meta: MetaData = document(META_DATA, meta_data)?;
    let mut context = Context { hostname: meta.local_hostname.or(meta.hostname), ..Context::default() };
    // A list, one key, or keys by name.
    context.keys = match &meta.public_keys {
        Value::Object(keys) => keys.values().flat_map(list).collect(),
        other => list(other),
    };
    let Some(text) = network_config else { return Ok(context) };
    let mut value: Value = document(NETWORK_CONFIG, text)?;
    // Some have all of it below `network`.
    if let Some(inner) = value.get_mut("network") {
        value = inner.take();
    }
    let network: NetworkConfig = from_value(NETWORK_CONFIG, value)?;
    match network.version {
        1 => version1(&mut context, &network.config)?,
        2 => version2(&mut context, network.ethernets)?,
        other => {
            let what = format!("version {other} is not supported");
            return Err(ContextError::Document(NETWORK_CONFIG, what));
        }
    }
    Ok(context)
}

fn version2(context: &mut Context, ethernets: BTreeMap<String, Ethernet>) -> Result<(), ContextError> {
    for (name, ethernet) in ethernets {
        let invalid = |what: &str| ContextError::Value(NETWORK_CONFIG, name.clone(), what.to_owned());
        let mac = ethernet.matches.macaddress.map(|text| text.parse().map_err(|_| invalid("invalid macaddress")));
        let mut interface =
            ContextInterface { mac: mac.transpose()?, mtu: ethernet.mtu, ..ContextInterface::default() };
        interface.dhcp4 = ethernet.dhcp4;
        for text in &ethernet.addresses {
            interface.addresses.push(address(text, None).ok_or_else(|| invalid("invalid address"))?);
        }
        interface.gateways.extend(ethernet.gateway4.into_iter().chain(ethernet.gateway6));
        let is_default = |route: &&Route| matches!(&*route.to, "default" | "0.0.0.0/0" | "::/0");
        interface.gateways.extend(ethernet.routes.iter().filter(is_default).filter_map(|route| route.via));
        context.servers.extend(ethernet.nameservers.addresses);
        context.search.extend(ethernet.nameservers.search);
        context.interfaces.push(interface);
    }
    Ok(())
}

fn version1(context: &mut Context, items: &[Item]) -> Result<(), ContextError> {
    let invalid = |kind: &str| ContextError::Value(NETWORK_CONFIG, kind.to_owned(), "invalid address".to_owned());
    let servers = |value: &Value| {
        let parse = |text: String| text.parse::<IpAddr>().map_err(|_| invalid("nameserver"));
        list(value).into_iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    for item in items {
        match &*item.kind {
            "physical" => {
                let mac = item.mac_address.as_deref().map(|text| text.parse().map_err(|_| invalid(&item.kind)));
                let mut interface =
                    ContextInterface { mac: mac.transpose()?, mtu: item.mtu, ..ContextInterface::default() };
                for subnet in &item.subnets {
                    interface.dhcp4 |= matches!(&*subnet.kind, "dhcp" | "dhcp4");
                    if let Some(text) = &subnet.address {
                        let own = address(text, subnet.netmask.as_deref()).ok_or_else(|| invalid(&item.kind))?;
                        interface.addresses.push(own);
                    }
                    interface.gateways.extend(subnet.gateway);
                    context.servers.extend(servers(&subnet.dns_nameservers)?);
                    context.search.extend(list(&subnet.dns_search));
                }
                context.interfaces.push(interface);
            }
            "nameserver" => {
                context.servers.extend(servers(&item.address)?);
                context.search.extend(list(&item.search));
            }
            other => {
                let what = format!("type {other} is not supported");
                return Err(ContextError::Document(NETWORK_CONFIG, what));
            }
        }
    }
    Ok(())
}

/// `ADDRESS/PREFIX`, or `ADDRESS` with its netmask.
fn address(text: &str, netmask: Option<&str>) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        Some((address, prefix)) => Some((address.parse().ok()?, prefix.parse().ok()?)),
        None => {
            let address: IpAddr = text.parse().ok()?;
            let prefix = match netmask {
                Some(netmask) => prefix_length(netmask)?,
                None => {
                    if address.is_ipv4() {
                        24
                    } else {
                        64
                    }
                }
            };
            Some((address, prefix))
        }
    }
}

/// The strings of a list, or the one that stands for it.
fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn document<T: serde::de::DeserializeOwned + Default>(file: &'static str, text: &str) -> Result<T, ContextError> {
    match yaml::parse(text).map_err(|error| ContextError::Document(file, error.to_string()))? {
        Value::Null => Ok(T::default()),
        value => from_value(file, value),
    }
}

fn from_value<T: serde::de::DeserializeOwned>(file: &'static str, value: Value) -> Result<T, ContextError> {
    serde_json::from_value(value).map_err(|error| ContextError::Document(file, error.to_string()))
}
