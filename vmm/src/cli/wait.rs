// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `wait`: waits until machines end, and prints their exit statuses.

use super::machines::{MachineArguments, machine_failure, print_each};
use crate::api::client::{Client, ClientError};
use crate::host::watch::{self, DirectoryWatch, WakeReason};
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::{End, EndReason};
use crate::state::machines::MachineInfo;
use crate::state::status::Status;
use clap::Args;

/// Wait until machines end, and print their exit statuses
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle wait web
  test \"$(coracle wait job)\" = 0")]
pub(super) struct WaitArguments {
    #[command(flatten)]
    machines: MachineArguments,
}

#[derive(Debug, thiserror::Error)]
enum UnknownEndError {
    #[error("{0}: exit status unknown: coracle was killed")]
    Dead(String),
    #[error("{0}: no exit status: it has never run; `coracle start {0}` runs it")]
    Created(String),
    #[error("{0}: exit status unknown: run directory removed; `--name` keeps it")]
    Gone(String),
}

/// Returns the exit status.
pub(super) fn wait(arguments: &WaitArguments) -> u8 {
    let (machines, run_dir) = arguments.machines.split();
    print_each(machines.iter().map(|machine| {
        let end = end_of(&run_dir.path(), run_dir.find(machine)?)?;
        Ok(Some(end.status.to_string()))
    }))
}

/// Waits until the process of the machine has ended, and returns how the run ended.
fn end_of(base: &std::path::Path, mut machine: MachineInfo) -> Result<End, Failure> {
    let watch = DirectoryWatch::new(&machine.path).fails_as(EndReason::HostError)?;
    loop {
        let process = machine.status.as_ref().and_then(|status| status.process().open());
        if machine.has_ended() {
            if let Some(process) = &process {
                watch::wait_for_end(process).fails_as(EndReason::HostError)?;
            }
            let MachineInfo { name, status, is_created, .. } = machine;
            let error = if is_created { UnknownEndError::Created } else { UnknownEndError::Dead };
            let unknown = || Failure::new(EndReason::HostError, error(name));
            return status.and_then(|status| status.end).ok_or_else(unknown);
        }
        // The machine itself answers even if its run directory is removed at the end.
        match Client::connect(&machine.path).and_then(|client| client.wait::<Status>("/v1/wait")) {
            Ok(status) => machine = MachineInfo { status: Some(status), ..machine },
            Err(error @ ClientError::Rejected(..)) => return Err(machine_failure(&machine, error)),
            // It does not listen yet, or no more: wait for a change of the run directory.
            Err(ClientError::Connect(_) | ClientError::Response(_)) => {
                let woken = watch.wait(process.as_ref()).fails_as(EndReason::HostError)?;
                let id = machine.name.clone();
                let gone = || Failure::new(EndReason::HostError, UnknownEndError::Gone(id));
                machine = MachineInfo::read(base, &machine.name).ok_or_else(gone)?;
                if woken != WakeReason::Changed && !machine.has_ended() {
                    return Err(Failure::new(EndReason::HostError, UnknownEndError::Gone(machine.name)));
                }
            }
        }
    }
}
