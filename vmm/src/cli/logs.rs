// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `logs`: prints the output of a detached workload, read from its run directory.

use super::machines::{self, MachineArgument};
use crate::config::moment::Moment;
use crate::config::number::Tail;
use crate::config::rfc3339;
use crate::host::system_error::Cannot as _;
use crate::host::watch::{DirectoryWatch, WakeReason};
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::logs::{LogReader, Record, Stream};
use clap::Args;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write as _};

/// Print the output of a detached workload, on standard output and standard error
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle logs web
  coracle logs -f --since 10m web
  coracle logs -t -n 20 web 2>/dev/null")]
pub(super) struct LogsArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Follow until the machine ends
    #[arg(short, long)]
    follow: bool,
    /// Start at a time (2026-11-22T10:00:00Z) or so long ago (90s, 10m, 2h)
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Start that many lines before the end; `all` means the beginning
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<Tail>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}: no logs: the machine was started without -d")]
struct NoLogsError(String);

/// Returns the exit status.
pub(super) fn logs(arguments: &LogsArguments) -> u8 {
    machines::status(show(arguments))
}

fn show(arguments: &LogsArguments) -> Result<(), Failure> {
    let machine = arguments.machine.find()?;
    let watch = DirectoryWatch::new(&machine.path).fails_as(EndReason::HostError)?;
    let process = machine.status.as_ref().filter(|_| arguments.follow).and_then(|status| status.process().open());
    let mut reader = match LogReader::open(&machine.path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::new(EndReason::ConfigError, NoLogsError(machine.name)));
        }
        other => other.cannot("read the logs").fails_as(EndReason::HostError)?,
    };
    let mut printer = Printer { timestamps: arguments.timestamps, in_line: [false; 2] };
    let since = arguments.since.map(Moment::time);
    let mut kept = arguments.tail.and_then(Tail::lines).map(|lines| (lines, VecDeque::new()));
    let mut has_ended = process.is_none();
    loop {
        while let Some(record) = reader.next().cannot("read the logs").fails_as(EndReason::HostError)? {
            if since.is_some_and(|since| record.time < since) {
                continue;
            }
            match &mut kept {
                Some((lines, records)) => keep(records, *lines, record),
                // The reader of the stream closed it.
                None if printer.print(&record).is_err() => return Ok(()),
                None => {}
            }
        }
        if let Some((_, records)) = kept.take()
            && records.iter().try_for_each(|record| printer.print(record)).is_err()
        {
            return Ok(());
        }
        if has_ended {
            return Ok(());
        }
        has_ended = match watch.wait(process.as_ref()).fails_as(EndReason::HostError)? {
            WakeReason::Changed => false,
            WakeReason::ProcessEnded => true,
            WakeReason::OutputClosed => return Ok(()),
        };
    }
}

/// Keeps the last `lines` lines. The records of one line count once.
fn keep(records: &mut VecDeque<Record>, lines: usize, record: Record) {
    records.push_back(record);
    let begun = |records: &VecDeque<Record>| {
        let full = records.iter().filter(|record| record.full).count();
        full + usize::from(records.back().is_some_and(|record| !record.full))
    };
    while begun(records) > lines {
        records.pop_front();
    }
}

/// Writes records to the streams of this process that they came from.
struct Printer {
    timestamps: bool,
    /// Of standard output and standard error: the last record had no line end.
    in_line: [bool; 2],
}

impl Printer {
    fn print(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = record.bytes();
        let in_line = &mut self.in_line[usize::from(record.stream == Stream::Stderr)];
        if self.timestamps && !*in_line {
            bytes.splice(..0, format!("{} ", rfc3339::format(record.time)).into_bytes());
        }
        *in_line = !record.full;
        match record.stream {
            Stream::Stdout => io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()),
            Stream::Stderr => io::stderr().write_all(&bytes),
        }
    }
}
