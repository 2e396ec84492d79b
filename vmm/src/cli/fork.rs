// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `fork`: starts copies of a running machine beside it.

use super::machines::{CopyNetworkArguments, MachineArgument, machine_failure, print};
use crate::config::name::MachineName;
use crate::config::text_form::Given;
use crate::host::directories::Directories;
use crate::machine::SnapshotReport;
use crate::run::failure::{self, Failure};
use crate::run::fork::{Fork, ForkOptions, Started};
use crate::state::end::STATUS_FAILED;
use clap::Args;

const MAX_COPIES: i64 = 1000;

/// Start copies of a running or paused machine
#[derive(Debug, Args)]
#[command(after_help = "\
The machine runs on. Each copy has its memory, its processes and its writable
layer at this moment, and a name, a host name and addresses of its own; the
copies share the memory that they do not write. Their names are printed, one a
line. If some cannot be started, the others run, and the exit status is 125.

Examples:
  coracle fork web
  coracle fork -n 10 --name test -p 80 web && coracle ps")]
pub(super) struct ForkArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Number of copies
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=MAX_COPIES))]
    copies: u16,
    /// The copies are NAME-1, NAME-2 and so on [default: the name of the machine]
    #[arg(long, value_name = "NAME")]
    name: Option<Given<MachineName>>,
    #[command(flatten)]
    network: CopyNetworkArguments,
}

/// Starts the copies and returns the exit status.
pub(super) fn fork(arguments: &ForkArguments) -> u8 {
    try_fork(arguments).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_fork(arguments: &ForkArguments) -> Result<u8, Failure> {
    let options = ForkOptions {
        copies: arguments.copies,
        prefix: arguments.name.as_ref().and_then(Given::get).cloned(),
        network: arguments.network.network.clone(),
        publish: arguments.network.publish.clone(),
    };
    options.check()?;
    let base = arguments.machine.base()?;
    let (machine, mut client) = arguments.machine.connect_to_starting()?;
    let fork = Fork::begin(&machine, &base, options)?;
    let report = client.request_with_files::<SnapshotReport>("/v1/snapshot", &(), &fork.files());
    report.map_err(|error| machine_failure(&machine, error))?;
    let mut status = 0;
    let usual = Directories::from_environment().run();
    fork.start(Some(&*base).filter(|base| *base != usual), |Started { name, is_running, messages }| {
        messages.iter().for_each(|message| failure::print_error(&format!("{name}: {message}")));
        if is_running {
            print(&format!("{name}\n"));
        } else {
            status = STATUS_FAILED;
        }
    })?;
    Ok(status)
}
