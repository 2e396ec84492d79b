// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the verbs for machines have in common: which run directory, which machines, and what becomes of several at once.

use super::failure::{self, FailsAs as _, Failure};
use crate::control::client::{Client, ClientError};
use crate::control::end::{EndReason, STATUS_FAILED};
use crate::control::entries::{self, Entry};
use crate::host::folders::Folders;
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
        self.run_dir.clone().unwrap_or_else(|| Folders::from_environment().run())
    }

    /// All of its entries.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, Failure> {
        entries::list(&self.path()).fails_as(EndReason::HostError)
    }

    /// The entry that is meant.
    pub(super) fn find(&self, machine: &str) -> Result<Entry, Failure> {
        entries::find(&self.path(), machine).fails_as(EndReason::ConfigError)
    }
}

impl MachineArgument {
    /// The entry that is meant.
    pub(super) fn find(&self) -> Result<Entry, Failure> {
        self.run_dir.find(&self.machine)
    }
}

impl MachineArguments {
    /// The names as typed, and where to look.
    pub(super) fn split(&self) -> (&[String], &RunDirArgument) {
        (&self.machines, &self.run_dir)
    }

    /// Does `act` for each, whatever becomes of the others, and prints the names of those for which it was done. One that
    /// fails costs the status.
    pub(super) fn each(&self, act: impl Fn(&Entry) -> Result<(), Failure>) -> u8 {
        let mut status = 0;
        for machine in &self.machines {
            match self.run_dir.find(machine).and_then(|entry| act(&entry).map(|()| entry.id)) {
                Ok(id) => print(&format!("{id}\n")),
                Err(failure) => {
                    failure::say(&failure.line());
                    status = STATUS_FAILED;
                }
            }
        }
        status
    }
}

/// The status of a verb that did it or could not.
pub(super) fn status(outcome: Result<(), Failure>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            failure::say(&failure.line());
            STATUS_FAILED
        }
    }
}

/// Connects to a running machine.
pub(super) fn connect(entry: &Entry) -> Result<Client, Failure> {
    if entry.is_over() {
        let error = format!("{} does not run: it is {}", entry.id, entry.life());
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    Client::connect(&entry.path).map_err(|error| client_failure(entry, error))
}

/// A machine did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{id}")]
struct MachineError {
    id: String,
    source: ClientError,
}

pub(super) fn client_failure(entry: &Entry, source: ClientError) -> Failure {
    Failure::new(EndReason::HostError, MachineError { id: entry.id.clone(), source })
}

/// Writes to standard output. Whoever closed it does not want to read it.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
