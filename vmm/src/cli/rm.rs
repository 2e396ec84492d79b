// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `rm`: removes the run directories of machines that have ended, and what is kept of them.

use super::machines::{MachineArguments, print_each};
use crate::host::directories::Directories;
use crate::host::watch;
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::kept::KeptMachines;
use crate::state::machines::{self, FindError};
use crate::state::run_dir::RunDirectory;
use clap::Args;
use rustix::process::{Signal, pidfd_send_signal};
use std::path::Path;

/// Remove machines that have ended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle rm web
  coracle rm -f $(coracle ps -aq)")]
pub(super) struct RmArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// Kill running machines; ignore unknown ones
    #[arg(short, long)]
    force: bool,
}

/// Removes the machines and returns the exit status.
pub(super) fn rm(arguments: &RmArguments) -> u8 {
    let (machines, run_dir) = arguments.machines.split();
    print_each(machines.iter().map(|machine| remove(&run_dir.path(), machine, arguments.force)))
}

/// Returns the machine's name if it existed.
fn remove(base: &Path, wanted: &str, force: bool) -> Result<Option<String>, Failure> {
    let machine = match machines::find(base, wanted) {
        Err(FindError::Unknown(_)) if force => return Ok(None),
        other => other.fails_as(EndReason::ConfigError)?,
    };
    let process = machine.status.as_ref().and_then(|status| status.process().open());
    if let Some(process) = process {
        match (machine.has_ended(), force) {
            (false, false) => {
                let error = format!("{} is {}: stop it first, or use -f", machine.name, machine.state());
                return Err(Failure::new(EndReason::ConfigError, error));
            }
            // All resources are held by descriptors, so SIGKILL leaks nothing.
            (false, true) => drop(pidfd_send_signal(&process, Signal::KILL)),
            (true, _) => {}
        }
        watch::wait_for_end(&process).fails_as(EndReason::HostError)?;
    }
    let kept = KeptMachines::of(base, &Directories::from_environment());
    let kept = kept.ok().filter(|kept| kept.contains(&machine.name));
    // A machine without a name removes its directory itself.
    if machine.path.exists() || kept.is_some() {
        // The claim keeps every start away until both are removed.
        let _claimed = RunDirectory::claim(base, &machine.name, false).fails_as(EndReason::HostError)?;
        kept.map_or(Ok(()), |kept| kept.remove(&machine.name)).fails_as(EndReason::HostError)?;
    }
    Ok(Some(machine.name))
}
