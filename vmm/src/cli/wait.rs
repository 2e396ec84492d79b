// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `wait`: waits for the end of machines and prints their exit statuses.

use super::machines::{MachineArguments, machine_failure, print_each};
use crate::api::client::{Client, ClientError};
use crate::host::watch::{self, DirectoryWatch, WakeReason};
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::{End, EndReason};
use crate::state::machines::MachineInfo;
use crate::state::status::Status;
use clap::Args;

/// Wait until machines have ended, and print their exit statuses
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle wait web
  test \"$(coracle wait job)\" = 0")]
pub(super) struct WaitArguments {
    #[command(flatten)]
    machines: MachineArguments,
}

/// Nobody knows how it ended.
#[derive(Debug, thiserror::Error)]
enum UnknownEndError {
    #[error("{0} was killed: nobody knows how its workload ended")]
    Dead(String),
    #[error("{0} ended and its entry is gone: start it with --name to keep it")]
    Gone(String),
}

/// Waits and returns the exit status.
pub(super) fn wait(arguments: &WaitArguments) -> u8 {
    let (machines, run_dir) = arguments.machines.split();
    print_each(machines.iter().map(|machine| {
        let end = end_of(&run_dir.path(), run_dir.find(machine)?)?;
        Ok(Some(end.status.to_string()))
    }))
}

/// Waits until the process of `entry` has ended, and says how the run did.
fn end_of(base: &std::path::Path, mut entry: MachineInfo) -> Result<End, Failure> {
    let watch = DirectoryWatch::new(&entry.path).fails_as(EndReason::HostError)?;
    loop {
        let process = entry.status.as_ref().and_then(|status| status.process().open());
        if entry.has_ended() {
            if let Some(process) = &process {
                watch::wait_for_end(process).fails_as(EndReason::HostError)?;
            }
            let MachineInfo { name, status, .. } = entry;
            let unknown = || Failure::new(EndReason::HostError, UnknownEndError::Dead(name));
            return status.and_then(|status| status.end).ok_or_else(unknown);
        }
        // The machine's own word is there even if its entry goes away with it.
        match Client::connect(&entry.path).and_then(|client| client.wait::<Status>("/v1/wait")) {
            Ok(status) => entry = MachineInfo { status: Some(status), ..entry },
            Err(error @ ClientError::Rejected(..)) => return Err(machine_failure(&entry, error)),
            // It does not listen yet, or no more: the next change tells.
            Err(ClientError::Connect(_) | ClientError::Response(_)) => {
                let woken = watch.wait(process.as_ref()).fails_as(EndReason::HostError)?;
                let id = entry.name.clone();
                let gone = || Failure::new(EndReason::HostError, UnknownEndError::Gone(id));
                entry = MachineInfo::read(base, &entry.name).ok_or_else(gone)?;
                if woken != WakeReason::Changed && !entry.has_ended() {
                    return Err(Failure::new(EndReason::HostError, UnknownEndError::Gone(entry.name)));
                }
            }
        }
    }
}
