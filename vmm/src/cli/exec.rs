// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `exec`: runs another process in a running machine, and stands for it: same streams,
//! same signals, same exit status.

use super::machines::{RunDirArgument, machine_failure};
use crate::api::client::Upgrade;
use crate::api::relay::{RelayEnd, RelayError, Streams, relay};
use crate::api::server::Exec;
use crate::config::environment::{self, EnvVar};
use crate::host::signals::Signals;
use crate::host::terminal::{self, RawTerminal};
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use clap::{Args, ValueHint};
use guest_protocol::attributes::ProcessAttributes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// As a shell reports a program that SIGPIPE ended.
const STATUS_PIPE: u8 = 128 + 13;
/// From the end of a connection to the end of a process that was killed.
const KILL_TIME: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Run a command in a running machine, beside its workload: same streams, signals and exit status
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle exec web ps
  coracle exec -it web sh
  echo SELECT 1 | coracle exec -i -u postgres db psql

While the machine starts, the command waits for its workload, up to 120 s.
Exit status: the command's own; 128 + n if signal n ended it; 125 if coracle
failed; 126 or 127 if the command could not be executed or was not found. If
this process is killed, the command gets HUP.")]
pub(super) struct ExecArguments {
    /// Pass standard input to the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Return once the command runs; it has no streams
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set an environment variable; without a value, copy it from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<EnvVar>,
    /// Set the environment variables in a file, one per line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    env_file: Vec<PathBuf>,
    /// Working directory [default: the workload's]
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Name or number, optionally with :GROUP [default: the workload's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Limits, groups and privileges of a process in place of the workload's; of an OCI runtime
    #[arg(long, value_name = "JSON", hide = true, value_parser = attributes)]
    attributes: Option<ProcessAttributes>,
    #[command(flatten)]
    run_dir: RunDirArgument,
    /// Name or container ID of the machine, or an unambiguous beginning
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn attributes(text: &str) -> Result<ProcessAttributes, serde_json::Error> {
    serde_json::from_str(text)
}

/// Returns the exit status.
pub(super) fn exec(arguments: &ExecArguments) -> u8 {
    try_exec(arguments).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_exec(arguments: &ExecArguments) -> Result<u8, Failure> {
    if arguments.tty && arguments.interactive && !terminal::is_terminal(std::io::stdin()) {
        return Err(Failure::new(EndReason::ConfigError, "-it: standard input is not a terminal"));
    }
    let files = environment::read_files(&arguments.env_file).fails_as(EndReason::ConfigError)?;
    let request = Exec {
        command: arguments.command.clone(),
        env: environment::complete(&[], &files, &arguments.env, environment::host_value)
            .fails_as(EndReason::ConfigError)?,
        workdir: arguments.workdir.clone().unwrap_or_default(),
        user: arguments.user.clone().unwrap_or_default(),
        interactive: arguments.interactive,
        terminal: arguments.tty.then(terminal::standard_window_size),
        detach: arguments.detach,
        attributes: arguments.attributes.clone(),
    };
    let (machine, client) = arguments.run_dir.connect_to_starting(&arguments.machine)?;
    let signals = Signals::block().fails_as(EndReason::HostError)?;
    let process = machine.status.as_ref().and_then(|status| status.process().open());
    let upgraded = client.upgrade("/v1/exec", &request, &signals).map_err(|error| machine_failure(&machine, error))?;
    let stream = match upgraded {
        Upgrade::Channel(stream) => stream,
        Upgrade::Signalled(signal) => return Ok(finish(&machine, RelayEnd::Signalled(signal))),
    };
    let terminal = match arguments.tty && arguments.interactive {
        true => Some(RawTerminal::enter(std::io::stdin()).fails_as(EndReason::HostError)?),
        false => None,
    };
    let mut streams =
        Streams { input: arguments.interactive, terminal, redraw: false, detach_keys: None, forward_signals: true };
    let relayed = relay(stream, &mut streams, &signals);
    // The terminal is restored before messages are printed.
    drop(streams);
    relayed.map(|end| finish(&machine, end)).map_err(|error| relay_failure(&machine, process.as_ref(), error))
}

/// Prints how a relay ended, if there is something to print. Returns the exit status.
pub(super) fn finish(machine: &MachineInfo, end: RelayEnd) -> u8 {
    match end {
        RelayEnd::Exited(exit) => {
            exit.message.iter().for_each(|message| failure::print_error(message));
            exit.status
        }
        RelayEnd::Detached => {
            failure::print_error(&format!("{}: detached, still running", machine.name));
            0
        }
        RelayEnd::Signalled(signal) => 128_u8.saturating_add(signal),
        RelayEnd::OutputClosed => STATUS_PIPE,
    }
}

/// A connection that ended without an exit status: in most cases `process` was killed.
pub(super) fn relay_failure(machine: &MachineInfo, process: Option<&OwnedFd>, error: RelayError) -> Failure {
    let has_ended = |process: &OwnedFd| poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&KILL_TIME)) == Ok(1);
    match error {
        RelayError::Closed if process.is_some_and(has_ended) => {
            machine_failure(machine, "exit status unknown: coracle was killed")
        }
        error => machine_failure(machine, error),
    }
}
