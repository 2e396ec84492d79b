// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The interfaces that all `--network` give together, each with a MAC address and its inherited descriptor.

use crate::config::mac_address::MacAddress;
use crate::config::network::{Interface, Network, NetworkKind};
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::host::descriptor::{self, DescriptorError};
use std::os::fd::OwnedFd;

/// Options that contradict each other, or that this host cannot satisfy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkOptionError {
    #[error("--mac-address needs exactly one network device, and --network gives {0}")]
    MacAddress(usize),
    #[error("--mac-address and the `mac=` of --network contradict each other")]
    TwoMacAddresses,
    #[error("--network none contradicts another --network")]
    NoneAndNetwork,
    #[error("--network names {0} twice")]
    SameKind(NetworkKind),
    #[error("two network devices have the address {0}")]
    SameMac(MacAddress),
    #[error("two network devices have the name {0}")]
    SameName(String),
    #[error("--network fd={0}")]
    Descriptor(i32, #[source] DescriptorError),
    #[error("cannot choose a MAC address")]
    Random(#[source] std::io::Error),
    #[error("--network {0} has the MAC address of the interface; `mac=` and --mac-address do not apply to it")]
    AdoptMac(NetworkKind),
    #[error("--publish needs a network that publishes ports (--network user or bridge)")]
    Publish,
    #[error("--network-alias needs a network whose machines find each other by name (--network bridge)")]
    Alias,
}

#[derive(Debug)]
pub(crate) struct ResolvedInterface {
    pub(super) options: Interface,
    pub(super) mac: MacAddress,
    /// Of `fd=N`.
    pub(super) descriptor: Option<OwnedFd>,
    /// No `--network` was given: without this one the machine starts, too.
    pub(super) is_default: bool,
}

/// Checks the options of the network against each other.
pub(crate) fn resolve(request: &Request) -> Result<Vec<ResolvedInterface>, NetworkOptionError> {
    let requested = requested_interfaces(request)?;
    let mac_address = request.mac_address.as_ref().and_then(Given::get).copied();
    let is_default = !request.network.iter().any(|given| given.get().is_some());
    let publishes = requested.iter().any(|interface| interface.kind.publishes_ports());
    if (!request.publish.is_empty() || request.publish_all) && !publishes {
        return Err(NetworkOptionError::Publish);
    }
    let has_names = requested.iter().any(|interface| matches!(interface.kind, NetworkKind::Bridge(_)));
    if !request.network_alias.is_empty() && !has_names {
        return Err(NetworkOptionError::Alias);
    }
    let mut interfaces = Vec::<ResolvedInterface>::new();
    for options in requested {
        let given_mac = options.mac.or(mac_address);
        if given_mac.is_some() && matches!(options.kind, NetworkKind::Adopt(_)) {
            return Err(NetworkOptionError::AdoptMac(options.kind));
        }
        let mac = match given_mac {
            Some(mac) => mac,
            None => MacAddress::random().map_err(NetworkOptionError::Random)?,
        };
        if interfaces.iter().any(|other| other.mac == mac) {
            return Err(NetworkOptionError::SameMac(mac));
        }
        if let Some(name) = &options.name
            && interfaces.iter().any(|other| other.options.name.as_ref() == Some(name))
        {
            return Err(NetworkOptionError::SameName(name.clone()));
        }
        let descriptor = match options.kind {
            NetworkKind::Descriptor(number) => {
                let inherited = descriptor::inherited(number);
                Some(inherited.map_err(|source| NetworkOptionError::Descriptor(number, source))?)
            }
            _ => None,
        };
        interfaces.push(ResolvedInterface { options, mac, descriptor, is_default });
    }
    Ok(interfaces)
}

fn requested_interfaces(request: &Request) -> Result<Vec<Interface>, NetworkOptionError> {
    let mut requested: Vec<Interface> = Vec::new();
    let networks: Vec<&Network> = request.network.iter().filter_map(Given::get).collect();
    for &network in &networks {
        match network {
            Network::None if networks.iter().any(|other| **other != Network::None) => {
                return Err(NetworkOptionError::NoneAndNetwork);
            }
            Network::None => {}
            Network::Interface(interface) => {
                if requested.iter().any(|other| other.kind == interface.kind) {
                    return Err(NetworkOptionError::SameKind(interface.kind.clone()));
                }
                requested.push(interface.clone());
            }
        }
    }
    if networks.is_empty() {
        requested.push(Interface::new(NetworkKind::User));
    }
    match (request.mac_address.as_ref().and_then(Given::get), &*requested) {
        (Some(_), [one]) if one.mac.is_some() => Err(NetworkOptionError::TwoMacAddresses),
        (None, _) | (Some(_), [_]) => Ok(requested),
        (Some(_), _) => Err(NetworkOptionError::MacAddress(requested.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(networks: &[&str], mac_address: Option<&str>) -> Request {
        Request {
            network: networks.iter().map(|text| text.parse().unwrap()).collect(),
            mac_address: mac_address.map(|text| text.parse().unwrap()),
            ..Request::default()
        }
    }

    #[test]
    fn contradictions_are_rejected_by_option() {
        let mac = Some("02:00:00:00:00:01");
        for (networks, mac, object) in [
            (&["none"][..], mac, "--mac-address"),
            (&["tap=a,mac=02:00:00:00:00:02"], mac, "mac="),
            (&["tap=a", "tap=b"], mac, "gives 2"),
            (&["none", "tap=a"], None, "none"),
            (&["tap=a", "tap=a,mac=02:00:00:00:00:02"], None, "tap=a twice"),
            (&["tap=a,mac=02:00:00:00:00:02", "tap=b,mac=02:00:00:00:00:02"], None, "02:00:00:00:00:02"),
            (&["fd=777"], None, "777"),
            (&["user", "user,mtu=1500"], None, "user twice"),
            (&["adopt,mac=02:00:00:00:00:02"], None, "mac="),
            (&["adopt"], mac, "--mac-address"),
        ] {
            let error = resolve(&request(networks, mac)).unwrap_err().to_string();
            assert!(error.contains(object), "{networks:?}: {error}");
        }
    }

    #[test]
    fn default_is_the_user_network() {
        let default = resolve(&request(&[], None)).unwrap();
        assert!(default[0].is_default && default[0].options.kind == NetworkKind::User);
        assert!(!resolve(&request(&["user"], None)).unwrap()[0].is_default);
        assert!(resolve(&request(&["none", "none"], None)).unwrap().is_empty());
    }

    #[test]
    fn mac_address_option_or_a_random_one_is_used() {
        let mac = "02:00:00:00:00:01";
        assert_eq!(resolve(&request(&["tap=a"], Some(mac))).unwrap()[0].mac.to_string(), mac);
        let random = resolve(&request(&["tap=a"], None)).unwrap();
        assert_eq!(random[0].mac.octets()[0] & 3, 2);
    }
}
