// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs `stop` and `kill`. A machine that has ended is stopped already; one that does not
//! listen yet gets a signal.

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

/// Stop machines: send the stop signal, wait until they end
#[derive(Debug, Args)]
#[command(after_help = "\
A machine that has already ended, or is being stopped, is a success.

Examples:
  coracle stop web
  coracle stop -t 60 db
  coracle stop $(coracle ps -q)")]
pub(super) struct StopArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// Seconds until the power is cut [default: --stop-timeout of the machine]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, visible_alias = "timeout")]
    time: Option<u32>,
    /// Signal to send in place of the image's StopSignal
    #[arg(short, long, value_name = "SIGNAL", allow_hyphen_values = true)]
    signal: Option<SignalNumber>,
}

/// Cut the power of machines, or send a signal to their workloads
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle kill web
  coracle kill -s HUP web")]
pub(super) struct KillArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// Signal to send to the workload [default: KILL, which cuts the power]
    #[arg(short, long, value_name = "SIGNAL", allow_hyphen_values = true)]
    signal: Option<SignalNumber>,
}

/// Returns the exit status.
pub(super) fn stop(arguments: &StopArguments) -> u8 {
    let body = Stop { timeout: arguments.time, signal: arguments.signal };
    let (machines, run_dir) = arguments.machines.split();
    // All get the request before the first is waited for.
    let stopping: Vec<Result<_, Failure>> = machines
        .iter()
        .map(|machine| {
            let machine = run_dir.find(machine)?;
            let process = request_end(&machine, "/v1/stop", &body, Signal::TERM)?;
            Ok((machine.name, process))
        })
        .collect();
    print_each(stopping.into_iter().map(|stopping| {
        let (name, process) = stopping?;
        wait_for(process)?;
        Ok(Some(name))
    }))
}

/// Returns the exit status.
pub(super) fn kill(arguments: &KillArguments) -> u8 {
    let body = Kill { signal: arguments.signal };
    let cuts_power = body.cuts_power();
    arguments.machines.each(|machine| {
        require_running(machine)?;
        if !cuts_power {
            let connected = Client::connect(&machine.path);
            let sent = connected.and_then(|mut client| client.request_of_workload("/v1/kill", &body));
            return sent.map(|_: Status| ()).map_err(|error| machine_failure(machine, error));
        }
        // Before the workload runs, TERM ends a run at once, with a result.
        let signal =
            if machine.state() == MachineState::Reported(State::Starting) { Signal::TERM } else { Signal::KILL };
        wait_for(request_end(machine, "/v1/kill", &body, signal)?)
    })
}

/// Waits for the end of a process from [`request_end`].
fn wait_for(process: Option<OwnedFd>) -> Result<(), Failure> {
    process.map_or(Ok(()), |process| watch::wait_for_end(&process).fails_as(EndReason::HostError))
}

/// Requests the end. Returns the process, unless it has ended. A process that does not listen gets
/// `signal`.
fn request_end(
    machine: &MachineInfo,
    path: &str,
    body: &impl Serialize,
    signal: Signal,
) -> Result<Option<OwnedFd>, Failure> {
    let Some(process) = machine.status.as_ref().and_then(|status| status.process().open()) else { return Ok(None) };
    if machine.has_ended() {
        return Ok(Some(process));
    }
    match Client::connect(&machine.path).and_then(|mut client| client.request::<Status>("POST", path, body)) {
        Ok(_) => {}
        Err(error @ ClientError::Rejected(..)) => return Err(machine_failure(machine, error)),
        // It does not listen yet, or ended before it answered; then the signal has no effect.
        Err(ClientError::Connect(_) | ClientError::Response(_)) => drop(pidfd_send_signal(&process, signal)),
    }
    Ok(Some(process))
}
