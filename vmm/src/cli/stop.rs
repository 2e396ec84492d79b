// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs `stop` and `kill`. Stopping what is over, or does not listen yet, works too: there the process is asked by
//! signal.

use super::machines::{MachineArguments, machine_failure, print_each, require_running};
use crate::api::client::{Client, ClientError};
use crate::api::server::{Kill, Stop};
use crate::config::number::seconds;
use crate::config::signal::SignalNumber;
use crate::host::watch;
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::{MachineInfo, MachineState};
use crate::state::status::{State, Status};
use clap::Args;
use rustix::process::{Signal, pidfd_send_signal};
use serde::Serialize;
use std::os::fd::OwnedFd;

/// Ask machines to end, and wait until they have
#[derive(Debug, Args)]
#[command(after_help = "\
A machine that has ended already is a success, as is one that another `stop` is ending.

Examples:
  coracle stop web
  coracle stop -t 60 db
  coracle stop $(coracle ps -q)")]
pub(super) struct StopArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// From now until power is cut [default: what the machine was started with]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, visible_alias = "timeout")]
    time: Option<u32>,
    /// What to send instead of the image's StopSignal
    #[arg(short, long, value_name = "SIGNAL", allow_hyphen_values = true)]
    signal: Option<SignalNumber>,
}

/// End machines at once, or send a signal to their workloads
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle kill web
  coracle kill -s HUP web")]
pub(super) struct KillArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// What to send to the workload [default: KILL, which cuts the power]
    #[arg(short, long, value_name = "SIGNAL", allow_hyphen_values = true)]
    signal: Option<SignalNumber>,
}

/// Stops and returns the exit status.
pub(super) fn stop(arguments: &StopArguments) -> u8 {
    let body = Stop { timeout: arguments.time, signal: arguments.signal };
    let (machines, run_dir) = arguments.machines.split();
    // All are asked before the first is waited for.
    let asked: Vec<Result<_, Failure>> = machines
        .iter()
        .map(|machine| {
            let entry = run_dir.find(machine)?;
            Ok((entry.name.clone(), ask(&entry, "/v1/stop", &body, Signal::TERM)?))
        })
        .collect();
    print_each(asked.into_iter().map(|asked| {
        let (id, process) = asked?;
        wait_for(process)?;
        Ok(Some(id))
    }))
}

/// Kills and returns the exit status.
pub(super) fn kill(arguments: &KillArguments) -> u8 {
    let body = Kill { signal: arguments.signal };
    let cuts_power = arguments.signal.is_none_or(|signal| signal.get() == 9);
    arguments.machines.each(|entry| {
        require_running(entry)?;
        if !cuts_power {
            let asked = Client::connect(&entry.path).and_then(|mut client| client.request("POST", "/v1/kill", &body));
            return asked.map(|_: Status| ()).map_err(|error| machine_failure(entry, error));
        }
        // Before the workload runs, TERM ends a run at once, and in order.
        let signal = if entry.state() == MachineState::Reported(State::Starting) { Signal::TERM } else { Signal::KILL };
        wait_for(ask(entry, "/v1/kill", &body, signal)?)
    })
}

/// Waits for the end of a process that [`ask`] returned.
fn wait_for(process: Option<OwnedFd>) -> Result<(), Failure> {
    process.map_or(Ok(()), |process| watch::wait_for_end(&process).fails_as(EndReason::HostError))
}

/// Asks for an end; returns the process whose end that will be, if it has not come yet. A process that does not listen gets
/// `signal`.
fn ask(entry: &MachineInfo, path: &str, body: &impl Serialize, signal: Signal) -> Result<Option<OwnedFd>, Failure> {
    let Some(process) = entry.status.as_ref().and_then(|status| status.process().open()) else { return Ok(None) };
    if entry.has_ended() {
        return Ok(Some(process));
    }
    match Client::connect(&entry.path).and_then(|mut client| client.request::<Status>("POST", path, body)) {
        Ok(_) => {}
        Err(error @ ClientError::Rejected(..)) => return Err(machine_failure(entry, error)),
        // It does not listen yet, or it ended before it had answered, and then the signal meets nobody.
        Err(ClientError::Connect(_) | ClientError::Response(_)) => drop(pidfd_send_signal(&process, signal)),
    }
    Ok(Some(process))
}
