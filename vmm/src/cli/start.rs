// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `start`: runs machines that are kept again, each on its layer, with the options that it was made with.

use super::machines::MachineArguments;
use crate::host::directories::Directories;
use crate::host::system_error::Cannot as _;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::{self, Caller, Origin};
use crate::state::end::EndReason;
use crate::state::kept::{KeptDocument, KeptMachines};
use crate::state::machines;
use crate::state::stages::Stages;
use clap::Args;
use std::path::Path;

/// Start machines that are kept: those of `create`, and of `run --name`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle start web
  coracle start -a job; echo $?")]
pub(super) struct StartArguments {
    #[command(flatten)]
    machines: MachineArguments,
    /// Run in the foreground, with the exit status of the workload
    #[arg(short, long)]
    attach: bool,
    /// With -a, and a machine that was made with -i, pass standard input on
    #[arg(short, long, requires = "attach")]
    interactive: bool,
}

/// Starts the machines and returns the exit status.
pub(super) fn start(arguments: &StartArguments, stages: &Stages) -> u8 {
    let (names, run_dir) = arguments.machines.split();
    if arguments.attach && names.len() > 1 {
        let error = "--attach: only one machine can be started in the foreground";
        return failure::fail(&Failure::new(EndReason::ConfigError, error));
    }
    let base = match run_dir.absolute_path() {
        Ok(base) => base,
        Err(failure) => return failure::fail(&failure),
    };
    let mut status = 0;
    for name in names {
        match start_one(arguments, name, &base, stages.clone()) {
            Ok(0) => {}
            Ok(other) => status = other,
            Err(failure) => status = failure::fail(&failure),
        }
    }
    status
}

fn start_one(arguments: &StartArguments, wanted: &str, base: &Path, stages: Stages) -> Result<u8, Failure> {
    let directories = Directories::from_environment();
    let machine = machines::find(base, wanted).fails_as(EndReason::ConfigError)?;
    let kept = KeptMachines::of(base, &directories).fails_as(EndReason::HostError)?;
    let KeptDocument { directory, mut request, .. } = kept.read(&machine.name).fails_as(EndReason::ConfigError)?;
    if base != directories.run() {
        request.run_dir = Some(base.to_owned());
    }
    request.detach = !arguments.attach;
    if arguments.attach {
        request.interactive &= arguments.interactive;
    }
    super::logging::start(request.log_level.unwrap_or_default());
    let entered = std::env::set_current_dir(&directory);
    entered.cannot(format!("enter {}", directory.display())).fails_as(EndReason::ConfigError)?;
    run::run(request, Caller::User, Origin::Kept, stages)
}
