// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `create`: a machine that is kept, and not started.

use super::arguments::CreateArguments;
use super::machines::print_outcome;
use crate::config::name::MachineName;
use crate::run::failure::Failure;
use crate::run::kept;
use crate::state::stages::Stages;

/// Makes the machine, prints its name and returns the exit status.
pub(super) fn create(arguments: CreateArguments, stages: Stages) -> u8 {
    print_outcome(try_create(arguments, stages))
}

fn try_create(arguments: CreateArguments, stages: Stages) -> Result<MachineName, Failure> {
    let request = arguments.request()?;
    super::logging::start(request.log_level.unwrap_or_default());
    kept::create(&request, stages)
}
