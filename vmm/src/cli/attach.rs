// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `attach`: stands for the workload of a detached machine: same streams, same signals,
//! same exit status.

use super::exec::{finish, relay_failure};
use super::machines::{MachineArgument, machine_failure};
use crate::api::client::Upgrade;
use crate::api::detach_keys::DetachKeys;
use crate::api::relay::{RelayEnd, Streams, relay};
use crate::host::signals::Signals;
use crate::host::terminal::{self, RawTerminal};
use crate::host::watch;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use clap::{ArgAction, Args};
use std::path::Path;

/// Attach to a detached machine's streams, from now on: same signals, same exit status
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle attach web
  coracle run -dit --name sh oci:DIR sh && coracle attach sh
  coracle attach --no-stdin --sig-proxy=false web

Input reaches a machine that was started with -i. It ends neither with this
process nor with its input: others may attach. With -t the machine has the
terminal, and --detach-keys leave it.
Exit status: the workload's own, as of `coracle run`; 0 after --detach-keys;
128 + n if signal n ended this process; 125 if coracle failed, or if this
process read so slowly that output was rotated out of the log (--log-size of
`run`).")]
pub(super) struct AttachArguments {
    /// Do not pass standard input to the workload
    #[arg(long)]
    no_stdin: bool,
    /// Forward signals to the workload, unless it has a terminal
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    sig_proxy: bool,
    /// Keys that detach from a machine with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    #[command(flatten)]
    machine: MachineArgument,
}

/// Returns the exit status.
pub(super) fn attach(arguments: &AttachArguments) -> u8 {
    try_attach(arguments).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_attach(arguments: &AttachArguments) -> Result<u8, Failure> {
    let (machine, client) = arguments.machine.connect_to_starting()?;
    let status = machine.status.as_ref();
    let has_terminal = status.is_some_and(|status| status.terminal);
    let input = !arguments.no_stdin && status.is_some_and(|status| status.interactive);
    if has_terminal && input && !terminal::is_terminal(std::io::stdin()) {
        let error = format!("{}: has a terminal, but standard input is none: use --no-stdin", machine.name);
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let process = status.and_then(|status| status.process().open());
    let signals = Signals::block().fails_as(EndReason::HostError)?;
    let upgraded = client.upgrade("/v1/attach", &(), &signals).map_err(|error| machine_failure(&machine, error))?;
    let stream = match upgraded {
        Upgrade::Channel(stream) => stream,
        Upgrade::Signalled(signal) => return Ok(finish(&machine, RelayEnd::Signalled(signal))),
    };
    let terminal = match has_terminal && input {
        true => Some(RawTerminal::enter(std::io::stdin()).fails_as(EndReason::HostError)?),
        false => None,
    };
    let mut streams = Streams {
        input,
        detach_keys: terminal.as_ref().map(|_| arguments.detach_keys.clone()),
        terminal,
        redraw: has_terminal,
        forward_signals: arguments.sig_proxy && !has_terminal,
    };
    let relayed = relay(stream, &mut streams, &signals);
    // The terminal is restored before messages are printed.
    drop(streams);
    let end = relayed.map_err(|error| relay_failure(&machine, process.as_ref(), error))?;
    if let (RelayEnd::Exited(_), Some(process)) = (&end, process.filter(|_| has_ended(&machine))) {
        // Nothing of the machine is left when this process ends.
        watch::wait_for_end(&process).fails_as(EndReason::HostError)?;
    }
    Ok(finish(&machine, end))
}

/// Whether the machine has ended, and not only this client's channel.
fn has_ended(machine: &MachineInfo) -> bool {
    let base = machine.path.parent().unwrap_or(Path::new("."));
    MachineInfo::read(base, &machine.name).is_none_or(|machine| machine.has_ended())
}
