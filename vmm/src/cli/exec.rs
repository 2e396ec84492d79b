// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `exec`: another process in a running machine, for which this process stands.

use super::machines::{RunDirArgument, client_failure, connect};
use crate::api::attached::{self, AttachedError, Left, Streams};
use crate::api::server::Exec;
use crate::config::environment::{self, EnvVar};
use crate::host::signals::Signals;
use crate::host::terminal::{self, RawTerminal};
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use std::path::PathBuf;

/// What a shell makes of a program that nobody reads any more.
pub(super) const STATUS_PIPE: u8 = 128 + 13;

/// Execute a command in a running machine, beside its workload: same streams, same signals, same exit status
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle exec web ps
  coracle exec -it web sh
  echo SELECT 1 | coracle exec -i -u postgres db psql

Exit status: the command's own; 128 + n if signal n ended it; 125 if coracle could not do it; 126 or 127 if the command
could not be executed or was not found. If this process is killed, the command gets HUP.")]
pub(super) struct ExecArguments {
    /// Keep standard input open to the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Return once it was executed; it has no streams
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set a variable on top of the workload's; without a value, copy it from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<EnvVar>,
    /// Set the variables in a file, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    env_file: Vec<PathBuf>,
    /// Working directory [default: the workload's]
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Name or number, with :GROUP if wanted [default: the workload's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    run_dir: RunDirArgument,
    /// Name of the machine, or a beginning of it that no other has
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Executes and returns the exit status.
pub(super) fn exec(arguments: &ExecArguments) -> u8 {
    try_exec(arguments).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_exec(arguments: &ExecArguments) -> Result<u8, Failure> {
    if arguments.tty && arguments.interactive && !terminal::is_terminal(std::io::stdin()) {
        return Err(Failure::new(EndReason::ConfigError, "-i with -t needs a terminal as standard input"));
    }
    let files = environment::read_files(&arguments.env_file).fails_as(EndReason::ConfigError)?;
    let host = |name: &str| std::env::var(name).ok();
    let request = Exec {
        command: arguments.command.clone(),
        env: environment::complete(&[], &files, &arguments.env, host),
        workdir: arguments.workdir.clone().unwrap_or_default(),
        user: arguments.user.clone().unwrap_or_default(),
        interactive: arguments.interactive,
        terminal: arguments.tty.then(terminal::standard_window_size),
        detach: arguments.detach,
    };
    let entry = arguments.run_dir.find(&arguments.machine)?;
    let signals = Signals::block().fails_as(EndReason::HostError)?;
    let stream = connect(&entry)?.upgrade("/v1/exec", &request).map_err(|error| client_failure(&entry, error))?;
    let terminal = match arguments.tty && arguments.interactive {
        true => Some(RawTerminal::enter(std::io::stdin()).fails_as(EndReason::HostError)?),
        false => None,
    };
    let mut streams = Streams {
        input: arguments.interactive,
        terminal,
        shows_terminal: false,
        detach_keys: None,
        signals_go_on: true,
    };
    let left = match attached::relay(stream, &mut streams, &signals) {
        Err(AttachedError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(STATUS_PIPE),
        outcome => outcome.fails_as(EndReason::HostError)?,
    };
    // The terminal is the person's again before there is anything to read.
    drop(streams);
    let Left::Over(over) = left else {
        unreachable!("nothing else ends a relay without detach keys whose signals go on")
    };
    if let Some(message) = &over.message {
        failure::print_error(message);
    }
    Ok(over.status)
}
