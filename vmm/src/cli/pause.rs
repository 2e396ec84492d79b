// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs `pause` and `resume`.

use super::machines::{MachineArguments, connect, machine_failure};
use crate::state::status::Status;
use clap::Args;

/// Hold machines: their vCPUs stand still until they are resumed
#[derive(Debug, Args)]
#[command(after_help = "\
Time goes on meanwhile: clocks in the guest are right afterwards, and --timeout counts on.

Example:
  coracle pause web && cp scratch.img copy.img; coracle resume web")]
pub(super) struct PauseArguments {
    #[command(flatten)]
    machines: MachineArguments,
}

/// Let paused machines go on
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle resume web")]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    machines: MachineArguments,
}

/// Pauses and returns the exit status.
pub(super) fn pause(arguments: &PauseArguments) -> u8 {
    ask(&arguments.machines, "/v1/pause")
}

/// Resumes and returns the exit status.
pub(super) fn resume(arguments: &ResumeArguments) -> u8 {
    ask(&arguments.machines, "/v1/resume")
}

fn ask(machines: &MachineArguments, path: &str) -> u8 {
    machines.each(|entry| {
        let asked = connect(entry)?.request::<Status>("POST", path, &());
        asked.map(drop).map_err(|error| machine_failure(entry, error))
    })
}
