// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the verbs for machines share: their arguments, the connection to a machine, one outcome for each of several machines.

use crate::api::client::Client;
use crate::config::network::Network;
use crate::config::publish::Publish;
use crate::config::text_form::Given;
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::{self, FindError, MachineInfo, MachineState};
use crate::state::status::State;
use clap::{Args, ValueHint};
use serde::Serialize;
use std::error::Error;
use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// From the start of a process to its name in the run directory, on a busy host.
const APPEAR_LIMIT: Duration = Duration::from_secs(2);
const APPEAR_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(super) struct RunDirArgument {
    /// Directory of all machines [default: $XDG_RUNTIME_DIR/coracle, or /run/coracle]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    run_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MachineArgument {
    /// Name or container ID of the machine, or an unambiguous beginning
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

#[derive(Debug, Args)]
pub(super) struct CopyNetworkArguments {
    /// Networks in place of those of the machine; as many
    #[arg(long, value_name = "NETWORK")]
    pub(super) network: Vec<Given<Network>>,
    /// Publish a port of the copy; of several copies on a free port of the host
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT[/udp]")]
    pub(super) publish: Vec<Publish>,
}

#[derive(Debug, Args)]
pub(super) struct MachineArguments {
    /// Names or container IDs of machines, or unambiguous beginnings
    #[arg(value_name = "MACHINE", required = true)]
    machines: Vec<String>,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

impl RunDirArgument {
    pub(super) fn path(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| Directories::from_environment().run())
    }

    pub(super) fn absolute_path(&self) -> Result<PathBuf, Failure> {
        std::path::absolute(self.path()).fails_as(EndReason::HostError)
    }

    pub(super) fn machines(&self) -> Result<Vec<MachineInfo>, Failure> {
        machines::list(&self.path()).fails_as(EndReason::HostError)
    }

    pub(super) fn find(&self, machine: &str) -> Result<MachineInfo, Failure> {
        machines::find(&self.path(), machine).fails_as(EndReason::ConfigError)
    }

    /// Finds a machine and connects to it. Its process may have just begun (`coracle run -d --name m & coracle exec m ...`): the
    /// name may be unknown for [`APPEAR_LIMIT`].
    pub(super) fn connect_to_starting(&self, machine: &str) -> Result<(MachineInfo, Client), Failure> {
        let (base, deadline) = (self.path(), Instant::now() + APPEAR_LIMIT);
        loop {
            let found = machines::find(&base, machine);
            let may_appear = match &found {
                Err(FindError::Unknown(_)) => true,
                Err(_) => false,
                Ok(found) => match Client::connect(&found.path) {
                    Ok(client) if !found.has_ended() => return Ok((found.clone(), client)),
                    // Its process has not written anything yet, or does not listen yet.
                    _ => found.status.is_none() || found.state() == MachineState::Reported(State::Starting),
                },
            };
            if !may_appear || Instant::now() >= deadline {
                let found = found.fails_as(EndReason::ConfigError)?;
                return connect(&found).map(|client| (found, client));
            }
            // There is no directory yet whose changes could be watched.
            sleep(APPEAR_INTERVAL);
        }
    }
}

impl MachineArgument {
    pub(super) fn find(&self) -> Result<MachineInfo, Failure> {
        self.run_dir.find(&self.machine)
    }

    /// Base of the run directories, absolute.
    pub(super) fn base(&self) -> Result<PathBuf, Failure> {
        self.run_dir.absolute_path()
    }

    /// See [`RunDirArgument::connect_to_starting`].
    pub(super) fn connect_to_starting(&self) -> Result<(MachineInfo, Client), Failure> {
        self.run_dir.connect_to_starting(&self.machine)
    }
}

impl MachineArguments {
    /// The names as given, and where to look for them.
    pub(super) fn split(&self) -> (&[String], &RunDirArgument) {
        (&self.machines, &self.run_dir)
    }

    /// Calls `act` for each, and prints the names of those for which it succeeds.
    pub(super) fn each(&self, act: impl Fn(&MachineInfo) -> Result<(), Failure>) -> u8 {
        print_each(self.machines.iter().map(|machine| {
            let machine = self.run_dir.find(machine)?;
            act(&machine).map(|()| Some(machine.name))
        }))
    }
}

/// Prints each outcome, one line for each object. A failure does not affect the other objects, only the exit status.
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

/// Prints an outcome as a line. Returns the exit status.
pub(super) fn print_outcome(outcome: Result<impl Display, Failure>) -> u8 {
    status(outcome.map(|line| print(&format!("{line}\n"))))
}

/// The exit status of an outcome. A failure is printed.
pub(super) fn status(outcome: Result<(), Failure>) -> u8 {
    outcome.map_or_else(|failure| failure::fail(&failure), |()| 0)
}

/// Fails for a machine that has ended.
pub(super) fn require_running(machine: &MachineInfo) -> Result<(), Failure> {
    if machine.has_ended() {
        let error = format!("{} is not running: it is {}", machine.name, machine.state());
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    Ok(())
}

pub(super) fn connect(machine: &MachineInfo) -> Result<Client, Failure> {
    require_running(machine)?;
    Client::connect(&machine.path).map_err(|error| machine_failure(machine, error))
}

#[derive(Debug, thiserror::Error)]
#[error("{name}")]
struct MachineError {
    name: String,
    source: Box<dyn Error + Send + Sync>,
}

/// A failure that names the machine.
pub(super) fn machine_failure(machine: &MachineInfo, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
    Failure::new(EndReason::HostError, MachineError { name: machine.name.clone(), source: source.into() })
}

/// A JSON document of the output, with a line end.
pub(super) fn json_text(document: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string_pretty(document).expect("keys are strings, and numbers are finite") + "\n"
}

/// Writes to standard output. It is no error if its reader has closed it.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
