// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `attach`: the streams of a detached workload, as if it had been started here.

use super::exec::STATUS_PIPE;
use super::machines::{MachineArgument, client_failure, connect};
use crate::api::attached::{self, AttachedError, Left, Streams};
use crate::api::detach_keys::DetachKeys;
use crate::host::signals::Signals;
use crate::host::terminal::{self, RawTerminal};
use crate::host::watch;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use clap::{ArgAction, Args};
use std::path::Path;

/// Get the output of a detached machine from now on and be its input: same streams, same signals, same exit status
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle attach web
  coracle run -dit --name sh oci:DIR sh && coracle attach sh
  coracle attach --no-stdin --sig-proxy=false web

Input reaches a machine that was started with -i, and ends with neither this process nor its input: others may attach.
With -t the terminal is the machine's, and --detach-keys leave it.
Exit status: the workload's own, as of `coracle run`; 0 after --detach-keys; 128 + n if signal n ended this process; 125 if coracle
could not do it, or if this process took the output so slowly that the log (--log-size of `run`) did not reach back to it.")]
pub(super) struct AttachArguments {
    /// Keep standard input to this process
    #[arg(long)]
    no_stdin: bool,
    /// Signals to this process are the workload's, unless it has a terminal
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    sig_proxy: bool,
    /// Keys that leave a machine with a terminal to itself
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    #[command(flatten)]
    machine: MachineArgument,
}

/// Attaches and returns the exit status.
pub(super) fn attach(arguments: &AttachArguments) -> u8 {
    try_attach(arguments).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_attach(arguments: &AttachArguments) -> Result<u8, Failure> {
    let entry = arguments.machine.find()?;
    let client = connect(&entry)?;
    let status = entry.status.as_ref();
    let has_terminal = status.is_some_and(|status| status.terminal);
    let input = !arguments.no_stdin && status.is_some_and(|status| status.interactive);
    if has_terminal && input && !terminal::is_terminal(std::io::stdin()) {
        let error = format!("{} has a terminal: standard input has to be one, or --no-stdin", entry.name);
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let process = status.and_then(|status| status.process().open());
    let signals = Signals::block().fails_as(EndReason::HostError)?;
    let stream = client.upgrade("/v1/attach", &()).map_err(|error| client_failure(&entry, error))?;
    let terminal = match has_terminal && input {
        true => Some(RawTerminal::enter(std::io::stdin()).fails_as(EndReason::HostError)?),
        false => None,
    };
    let mut streams = Streams {
        input,
        detach_keys: terminal.as_ref().map(|_| arguments.detach_keys.clone()),
        terminal,
        shows_terminal: has_terminal,
        signals_go_on: arguments.sig_proxy && !has_terminal,
    };
    let left = match attached::relay(stream, &mut streams, &signals) {
        Err(AttachedError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(STATUS_PIPE),
        outcome => outcome.fails_as(EndReason::HostError)?,
    };
    // The terminal is the person's again before there is anything to read.
    drop(streams);
    Ok(match left {
        Left::Over(over) => {
            if let Some(process) = process.filter(|_| has_ended(&entry)) {
                watch::wait_for_end(&process).fails_as(EndReason::HostError)?;
            }
            over.message.iter().for_each(|message| failure::print_error(message));
            over.status
        }
        Left::Detached => {
            failure::print_error(&format!("detached from {}, which goes on", entry.name));
            0
        }
        Left::Signalled(signal) => 128_u8.saturating_add(signal),
    })
}

/// Whether it is the machine that is over: then its process is awaited, so that nothing of it is left behind this one.
fn has_ended(entry: &MachineInfo) -> bool {
    let base = entry.path.parent().unwrap_or(Path::new("."));
    MachineInfo::read(base, &entry.name).is_none_or(|entry| entry.has_ended())
}
