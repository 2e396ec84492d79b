// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `events`: prints the changes of a machine's status, read from its run directory.

use super::machines::{self, MachineArgument};
use crate::host::system_error::Cannot as _;
use crate::host::watch::{DirectoryWatch, WakeReason};
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::lifecycle::EVENTS_FILE;
use crate::state::rotated_reader::RotatedReader;
use clap::Args;
use std::io::{self, Write as _};

/// Print each change of a machine's status, one JSON object per line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle events web
  coracle events -f web | jq -r --unbuffered .state")]
pub(super) struct EventsArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Follow until the machine ends
    #[arg(short, long)]
    follow: bool,
}

/// Returns the exit status.
pub(super) fn events(arguments: &EventsArguments) -> u8 {
    machines::status(show(arguments))
}

fn show(arguments: &EventsArguments) -> Result<(), Failure> {
    let machine = arguments.machine.find()?;
    let watch = DirectoryWatch::new(&machine.path).fails_as(EndReason::HostError)?;
    let process = machine.status.as_ref().filter(|_| arguments.follow).and_then(|status| status.process().open());
    let path = machine.path.join(EVENTS_FILE);
    let mut reader = RotatedReader::new(&path);
    loop {
        let is_open = copy(&mut reader).cannot(format!("read {}", path.display())).fails_as(EndReason::HostError)?;
        if !is_open || process.is_none() {
            return Ok(());
        }
        match watch.wait(process.as_ref()).fails_as(EndReason::HostError)? {
            WakeReason::Changed => {}
            WakeReason::ProcessEnded => {
                copy(&mut reader).cannot(format!("read {}", path.display())).fails_as(EndReason::HostError)?;
                return Ok(());
            }
            WakeReason::OutputClosed => return Ok(()),
        }
    }
}

/// Prints what is new. Returns whether standard output is still open.
fn copy(reader: &mut RotatedReader) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    while let Some(line) = reader.peek()? {
        if stdout.write_all(line).is_err() {
            return Ok(false);
        }
        reader.take();
    }
    Ok(true)
}
