// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `events`: the changes of a machine's status, from its entry.

use super::machines::{self, MachineArgument};
use crate::host::watch::{DirectoryWatch, WakeReason};
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::lifecycle::EVENTS_FILE;
use crate::state::rotated_reader::RotatedReader;
use clap::Args;
use std::io::{self, Write as _};

/// Show how a machine's status changed, one JSON object a line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle events web
  coracle events -f web | jq -r --unbuffered .state")]
pub(super) struct EventsArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Go on until the machine ends
    #[arg(short, long)]
    follow: bool,
}

/// Shows and returns the exit status.
pub(super) fn events(arguments: &EventsArguments) -> u8 {
    machines::status(show(arguments))
}

fn show(arguments: &EventsArguments) -> Result<(), Failure> {
    let entry = arguments.machine.find()?;
    let watch = DirectoryWatch::new(&entry.path).fails_as(EndReason::HostError)?;
    let process = entry.status.as_ref().filter(|_| arguments.follow).and_then(|status| status.process().open());
    let mut reader = RotatedReader::new(&entry.path.join(EVENTS_FILE));
    loop {
        let ended = process.is_none();
        if copy(&mut reader).fails_as(EndReason::HostError)? == Reader::Left || ended {
            return Ok(());
        }
        match watch.wait(process.as_ref()).fails_as(EndReason::HostError)? {
            WakeReason::Changed => {}
            WakeReason::ProcessEnded => {
                copy(&mut reader).fails_as(EndReason::HostError)?;
                return Ok(());
            }
            WakeReason::OutputClosed => return Ok(()),
        }
    }
}

/// Whoever reads standard output.
#[derive(PartialEq, Eq)]
enum Reader {
    Reads,
    Left,
}

fn copy(reader: &mut RotatedReader) -> io::Result<Reader> {
    let mut stdout = io::stdout().lock();
    while let Some(line) = reader.peek()? {
        if stdout.write_all(line).is_err() {
            return Ok(Reader::Left);
        }
        reader.take();
    }
    Ok(Reader::Reads)
}
