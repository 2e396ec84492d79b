// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `run`: merges the options into a request, and prints or runs it.

use super::arguments::RunArguments;
use super::machines::print;
use super::restore;
use crate::machine::snapshot::{SnapshotPlace, UnnamedSnapshot};
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::{self, Caller, Origin};
use crate::state::end::EndReason;
use crate::state::stages::Stages;
use std::sync::Arc;

/// Runs and returns the exit status.
pub(super) fn run(arguments: RunArguments, stages: Stages) -> u8 {
    try_run(arguments, stages).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_run(arguments: RunArguments, stages: Stages) -> Result<u8, Failure> {
    let RunArguments { print_config, detached, kept, .. } = arguments;
    let origin = match (&arguments.restored, &arguments.restored_files) {
        (Some(directory), _) => Origin::Restored(SnapshotPlace::Directory(directory.clone())),
        (None, Some(numbers)) => {
            let files = UnnamedSnapshot::inherited(numbers).fails_as(EndReason::SnapshotError)?;
            Origin::Restored(SnapshotPlace::Unnamed(Arc::new(files)))
        }
        _ if kept => Origin::Kept,
        _ => Origin::New,
    };
    if let Some((snapshot, options)) = arguments.copy_options()? {
        return restore::start(&snapshot, options, stages);
    }
    let request = arguments.request()?;
    super::logging::start(request.log_level.unwrap_or_default());
    if print_config {
        let document = request.to_document().fails_as(EndReason::ConfigError)?;
        print(&format!("{document}\n"));
        return Ok(0);
    }
    let caller = if detached { Caller::Detach } else { Caller::User };
    run::run(request, caller, origin, stages)
}
