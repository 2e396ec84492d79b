// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `network`: docker's group of the verbs for networks, for those of `--network bridge`.

use super::list::{ListArguments, Listed};
use super::machines::{json_text, print, print_each};
use super::prune::confirm;
use crate::network::{self, BridgeNetwork, NetworkError};
use crate::run::failure::{self, Failure};
use crate::state::end::EndReason;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

/// Manage the networks that `--network bridge=NAME` makes
#[derive(Debug, Args)]
pub(super) struct NetworkArguments {
    #[command(subcommand)]
    verb: NetworkVerb,
}

#[derive(Debug, Subcommand)]
enum NetworkVerb {
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    Inspect(InspectArguments),
    #[command(visible_alias = "remove")]
    Rm(RmArguments),
    Prune(PruneArguments),
}

/// Print what networks are, as JSON
#[derive(Debug, Args)]
struct InspectArguments {
    /// The networks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Remove networks that no machine has
#[derive(Debug, Args)]
struct RmArguments {
    /// The networks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Ignore those that do not exist
    #[arg(short, long)]
    force: bool,
}

/// Remove what killed machines left: networks that no machine has, addresses, rules
#[derive(Debug, Args)]
struct PruneArguments {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Executes the verb and returns the exit status.
pub(super) fn network(arguments: &NetworkArguments) -> u8 {
    let outcome = match &arguments.verb {
        NetworkVerb::Ls(arguments) => ls(arguments),
        NetworkVerb::Inspect(arguments) => inspect(&arguments.names),
        NetworkVerb::Rm(arguments) => Ok(rm(arguments)),
        NetworkVerb::Prune(arguments) => prune(arguments),
    };
    outcome.unwrap_or_else(|failure| failure::fail(&failure))
}

fn ls(arguments: &ListArguments) -> Result<u8, Failure> {
    arguments.print(&network::networks().map_err(fails)?);
    Ok(0)
}

impl Listed<5> for BridgeNetwork {
    const TITLES: [&'static str; 5] = ["NAME", "DRIVER", "IPV4", "IPV6", "MACHINES"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn row(&self) -> [String; 5] {
        let [ipv4, ipv6] = self.subnets.clone();
        [self.name.clone(), "bridge".to_owned(), ipv4, ipv6, self.machines.len().to_string()]
    }

    /// Has docker's keys where docker has the same thing.
    fn describe(&self) -> Value {
        let pools = self.subnets.iter().zip(self.gateways);
        let pools: Vec<_> = pools.map(|(subnet, gateway)| json!({ "Subnet": subnet, "Gateway": gateway })).collect();
        let machines = self.machines.iter().map(|machine| {
            let [ipv4, ipv6] = machine.addresses;
            let described = json!({
                "Name": machine.machine,
                "MacAddress": machine.mac,
                "IPv4Address": ipv4,
                "IPv6Address": ipv6,
            });
            (machine.machine.clone(), described)
        });
        json!({
            "Name": self.name,
            "Driver": "bridge",
            "EnableIPv6": true,
            "IPAM": { "Config": pools },
            "Containers": machines.collect::<Map<_, _>>(),
        })
    }
}

fn inspect(names: &[String]) -> Result<u8, Failure> {
    let networks = network::networks().map_err(fails)?;
    let (mut found, mut status) = (Vec::new(), 0);
    for name in names {
        match networks.iter().find(|network| network.name == *name) {
            Some(network) => found.push(network.describe()),
            None => status = failure::fail(&fails(NetworkError::Missing(name.clone()))),
        }
    }
    print(&json_text(&found));
    Ok(status)
}

fn rm(arguments: &RmArguments) -> u8 {
    print_each(arguments.names.iter().map(|name| match network::remove_network(name) {
        Ok(()) => Ok(Some(name.to_string())),
        Err(NetworkError::Missing(_)) if arguments.force => Ok(None),
        Err(error) => Err(fails(error)),
    }))
}

fn prune(arguments: &PruneArguments) -> Result<u8, Failure> {
    if confirm(arguments.force, "network prune", "all networks that no machine has")? {
        network::prune_networks().map_err(fails)?.iter().for_each(|name| print(&format!("{name}\n")));
    }
    Ok(0)
}

fn fails(error: NetworkError) -> Failure {
    let reason = match error {
        NetworkError::Root | NetworkError::Missing(_) | NetworkError::InUse { .. } => EndReason::ConfigError,
        NetworkError::System(_) | NetworkError::Nft(_) => EndReason::HostError,
    };
    Failure::new(reason, error)
}
