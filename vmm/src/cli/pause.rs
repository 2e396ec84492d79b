// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs `pause` and `resume`.

use super::machines::{MachineArguments, connect, machine_failure};
use crate::state::status::Status;
use clap::Args;

/// Pause machines: stop their vCPUs until they are resumed
#[derive(Debug, Args)]
#[command(after_help = "\
Time goes on meanwhile: clocks in the guest are right afterwards, and --timeout
is not extended.

Example:
  coracle pause web && cp scratch.img copy.img; coracle resume web")]
pub(super) struct PauseArguments {
    #[command(flatten)]
    machines: MachineArguments,
}

/// Resume paused machines
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle resume web")]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    machines: MachineArguments,
}

/// Returns the exit status.
pub(super) fn pause(arguments: &PauseArguments) -> u8 {
    request(&arguments.machines, "/v1/pause")
}

/// Returns the exit status.
pub(super) fn resume(arguments: &ResumeArguments) -> u8 {
    request(&arguments.machines, "/v1/resume")
}

fn request(machines: &MachineArguments, path: &str) -> u8 {
    machines.each(|machine| {
        let sent = connect(machine)?.request_of_workload::<Status>(path, &());
        sent.map(drop).map_err(|error| machine_failure(machine, error))
    })
}
