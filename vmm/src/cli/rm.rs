// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `rm`: removes the entries of machines that have ended.

use super::machines::{MachineArguments, print_each};
use crate::host::watch;
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::{self, FindError};
use crate::state::run_dir;
use clap::Args;
use rustix::process::{Signal, pidfd_send_signal};
use std::path::Path;

/// Remove the entries of machines that have ended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle rm web
  coracle rm -f $(coracle ps -aq)")]
pub(super) struct RmArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// Kill those that run; do not mind those that are not there
    #[arg(short, long)]
    force: bool,
}

/// Removes and returns the exit status.
pub(super) fn rm(arguments: &RmArguments) -> u8 {
    let (machines, run_dir) = arguments.machines.split();
    print_each(machines.iter().map(|machine| remove(&run_dir.path(), machine, arguments.force)))
}

/// The name of what was removed, if it was there.
fn remove(base: &Path, machine: &str, force: bool) -> Result<Option<String>, Failure> {
    let entry = match machines::find(base, machine) {
        Err(FindError::Unknown(_)) if force => return Ok(None),
        other => other.fails_as(EndReason::ConfigError)?,
    };
    let process = entry.status.as_ref().and_then(|status| status.process().open());
    if let Some(process) = process {
        match (entry.has_ended(), force) {
            (false, false) => {
                let error = format!("{} is {}: stop it first, or use -f", entry.name, entry.state());
                return Err(Failure::new(EndReason::ConfigError, error));
            }
            // Nothing hangs on a process but descriptors.
            (false, true) => drop(pidfd_send_signal(&process, Signal::KILL)),
            (true, _) => {}
        }
        watch::wait_for_end(&process).fails_as(EndReason::HostError)?;
    }
    // One without a name took its entry away itself.
    if entry.path.exists() {
        run_dir::remove(base, &entry.name).fails_as(EndReason::HostError)?;
    }
    Ok(Some(entry.name))
}
