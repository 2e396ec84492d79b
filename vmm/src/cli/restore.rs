// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `restore`: starts a machine from a snapshot.

use super::machines::CopyNetworkArguments;
use crate::config::destination::Destination;
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::host::system_error::Cannot as _;
use crate::machine::snapshot::{OpenSnapshot, SnapshotPlace};
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::restore;
use crate::run::{self, Caller, Origin};
use crate::state::end::EndReason;
use crate::state::stages::Stages;
use clap::Args;
use std::path::{Path, PathBuf};

/// Start a machine from a snapshot, beside the one that was saved or in its place
#[derive(Debug, Args)]
#[command(after_help = "\
The machine has the options of the one that was saved, but for its name, its
MAC addresses and its published ports. Its processes run on once it has random
numbers, a host name, addresses and the wall clock of its own. `--network`
gives it other networks, with `mac=` the addresses that they name.

Examples:
  coracle restore -d --name copy ./web.snapshot
  coracle restore -d -p 8081:80 ./web.snapshot
  coracle restore -d --network tap=tap1,mac=02:00:00:00:00:07 ./web.snapshot
  coracle restore -d warm")]
pub(super) struct RestoreArguments {
    /// Directory of the snapshot, or its name in the store
    #[arg(value_name = "SNAPSHOT", value_hint = clap::ValueHint::DirPath)]
    snapshot: PathBuf,
    /// Run in the background, and print the name once the workload runs
    #[arg(short, long)]
    detach: bool,
    /// Name of the machine [default: a random one]
    #[arg(long, value_name = "NAME")]
    name: Option<Given<MachineName>>,
    #[command(flatten)]
    network: CopyNetworkArguments,
    /// Print when each stage was reached
    #[arg(long)]
    timings: bool,
    /// Directory of the run directories
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    run_dir: Option<PathBuf>,
}

/// Runs and returns the exit status.
pub(super) fn restore(arguments: RestoreArguments, stages: Stages) -> u8 {
    try_restore(arguments, stages).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_restore(arguments: RestoreArguments, stages: Stages) -> Result<u8, Failure> {
    let RestoreArguments { snapshot, detach, name, network, timings, run_dir } = arguments;
    let CopyNetworkArguments { network, publish } = network;
    start(&snapshot, Request { name, detach, timings, run_dir, network, publish, ..Request::default() }, stages)
}

/// Starts a copy from a snapshot, by its name or its directory.
pub(super) fn start(snapshot: &Path, options: Request, stages: Stages) -> Result<u8, Failure> {
    let directory = restore::find(snapshot)?;
    let document = OpenSnapshot::read(&directory).fails_as(EndReason::SnapshotError)?;
    let request = restore::request(&document, &directory, with_absolute_paths(options)?)?;
    super::logging::start(request.log_level.unwrap_or_default());
    let entered = std::env::set_current_dir(&document.directory);
    entered.cannot(format!("enter {}", document.directory.display())).fails_as(EndReason::ConfigError)?;
    run::run(request, Caller::User, Origin::Restored(SnapshotPlace::Directory(directory)), stages)
}

/// The machine's other relative paths begin in the directory of the one that was saved.
fn with_absolute_paths(options: Request) -> Result<Request, Failure> {
    let absolute = |path: PathBuf| {
        let absolute = std::path::absolute(&path).cannot(format!("find {}", path.display()));
        absolute.fails_as(EndReason::HostError)
    };
    let destination = |destination| match destination {
        Destination::File(path) => absolute(path).map(Destination::File),
        Destination::Descriptor(number) => Ok(Destination::Descriptor(number)),
    };
    Ok(Request {
        run_dir: options.run_dir.map(absolute).transpose()?,
        cidfile: options.cidfile.map(absolute).transpose()?,
        console: options.console.map(absolute).transpose()?,
        result: options.result.map(destination).transpose()?,
        events: options.events.map(destination).transpose()?,
        ..options
    })
}
