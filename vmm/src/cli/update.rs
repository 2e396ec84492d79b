// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `update`.

use super::machines::{MachineArguments, connect, machine_failure};
use crate::config::limits::{Change, DiskLimits, Limits, NetworkLimits};
use clap::Args;

/// Change the rate limits of running machines
#[derive(Debug, Args)]
#[command(after_help = "\
Limits are those of run's --disk and --network; 0 lifts one, and what is not
named stays as it is. They apply at once, and until the machine ends.

Examples:
  coracle update --disk root,read-bps=10m,read-iops=500 web
  coracle update --network eth0,rx-bps=0,tx-bps=1m web")]
pub(super) struct UpdateArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// New limits of a disk by its serial, e.g. root,read-bps=10m,write-iops=0
    #[arg(long = "disk", value_name = "SERIAL,LIMIT=N", required_unless_present = "networks")]
    disks: Vec<Change<DiskLimits>>,
    /// New limits of an interface by its name in the guest, e.g. eth0,rx-bps=10m
    #[arg(long = "network", value_name = "NAME,LIMIT=N")]
    networks: Vec<Change<NetworkLimits>>,
}

/// Returns the exit status.
pub(super) fn update(arguments: &UpdateArguments) -> u8 {
    let limits = Limits {
        disks: arguments.disks.iter().map(|Change(name, limits)| (name.clone(), *limits)).collect(),
        networks: arguments.networks.iter().map(|Change(name, limits)| (name.clone(), *limits)).collect(),
    };
    arguments.machines.each(|machine| {
        let sent = connect(machine)?.request_of_workload::<Limits>("/v1/limits", &limits);
        sent.map(drop).map_err(|error| machine_failure(machine, error))
    })
}
