// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the verbs for machines have in common: which run directory, which machines, and what becomes of several at once.

use crate::api::client::{Client, ClientError};
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::{self, MachineInfo};
use clap::{Args, ValueHint};
use std::io::Write as _;
use std::path::PathBuf;

/// Where the machines are.
#[derive(Debug, Args)]
pub(super) struct RunDirArgument {
    /// Folder of the machines' entries [default: $XDG_RUNTIME_DIR/coracle, or /run/coracle]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    run_dir: Option<PathBuf>,
}

/// One machine.
#[derive(Debug, Args)]
pub(super) struct MachineArgument {
    /// Name of the machine, or a beginning of it that no other has
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// Some machines.
#[derive(Debug, Args)]
pub(super) struct MachineArguments {
    /// Names of machines, or beginnings of them that no other has
    #[arg(value_name = "MACHINE", required = true)]
    machines: Vec<String>,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

impl RunDirArgument {
    /// The folder.
    pub(super) fn path(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| Directories::from_environment().run())
    }

    /// All of its entries.
    pub(super) fn machines(&self) -> Result<Vec<MachineInfo>, Failure> {
        machines::list(&self.path()).fails_as(EndReason::HostError)
    }

    /// The entry that is meant.
    pub(super) fn find(&self, machine: &str) -> Result<MachineInfo, Failure> {
        machines::find(&self.path(), machine).fails_as(EndReason::ConfigError)
    }
}

impl MachineArgument {
    /// The entry that is meant.
    pub(super) fn find(&self) -> Result<MachineInfo, Failure> {
        self.run_dir.find(&self.machine)
    }
}

impl MachineArguments {
    /// The names as typed, and where to look.
    pub(super) fn split(&self) -> (&[String], &RunDirArgument) {
        (&self.machines, &self.run_dir)
    }

    /// Does `act` for each, and prints the names of those for which it was done.
    pub(super) fn each(&self, act: impl Fn(&MachineInfo) -> Result<(), Failure>) -> u8 {
        print_each(self.machines.iter().map(|machine| {
            let entry = self.run_dir.find(machine)?;
            act(&entry).map(|()| Some(entry.name))
        }))
    }
}

/// Prints what was found out or done of each machine, if there is anything to say, whatever becomes of the others. One
/// that failed costs the status.
pub(super) fn print_each(outcomes: impl Iterator<Item = Result<Option<String>, Failure>>) -> u8 {
    let mut status = 0;
    for outcome in outcomes {
        match outcome {
            Ok(Some(line)) => print(&format!("{line}\n")),
            Ok(None) => {}
            Err(failure) => status = failure::fail(&failure),
        }
    }
    status
}

/// The status of a verb that did it or could not.
pub(super) fn status(outcome: Result<(), Failure>) -> u8 {
    outcome.map_or_else(|failure| failure::fail(&failure), |()| 0)
}

/// Refuses a machine that has ended.
pub(super) fn require_running(entry: &MachineInfo) -> Result<(), Failure> {
    if entry.has_ended() {
        let error = format!("{} does not run: it is {}", entry.name, entry.state());
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    Ok(())
}

/// Connects to a running machine.
pub(super) fn connect(entry: &MachineInfo) -> Result<Client, Failure> {
    require_running(entry)?;
    Client::connect(&entry.path).map_err(|error| client_failure(entry, error))
}

/// A machine did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{id}")]
struct MachineError {
    id: String,
    source: ClientError,
}

pub(super) fn client_failure(entry: &MachineInfo, source: ClientError) -> Failure {
    Failure::new(EndReason::HostError, MachineError { id: entry.name.clone(), source })
}

/// Writes to standard output. Whoever closed it does not want to read it.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
