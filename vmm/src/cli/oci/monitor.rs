// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process of a container: reads its request, and runs the machine in the container's namespaces. The network is decided here:
//! some engines make the interface between `create` and `start`.

use crate::config::request::Request;
use crate::host::netlink::Netlink;
use crate::host::system_error::Cannot as _;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::{self, Caller, Origin};
use crate::state::end::EndReason;
use crate::state::stages::Stages;
use clap::Args;
use std::path::PathBuf;

/// Internal: the process of a container
#[derive(Debug, Args)]
pub(crate) struct MonitorArguments {
    request: PathBuf,
}

/// Runs and returns the exit status.
pub(crate) fn monitor(arguments: &MonitorArguments, stages: Stages) -> u8 {
    try_monitor(arguments, stages).unwrap_or_else(|failure| failure::fail(&failure))
}

fn try_monitor(arguments: &MonitorArguments, stages: Stages) -> Result<u8, Failure> {
    let mut request = Request::read(&arguments.request).fails_as(EndReason::ConfigError)?;
    let network = if has_interface()? { "adopt" } else { "none" };
    request.network = vec![network.parse().expect("it is a network")];
    super::super::logging::start(request.log_level.unwrap_or_default());
    run::run(request, Caller::User, Origin::New, stages)
}

/// Whether the network namespace has an interface that is up, besides loopback.
fn has_interface() -> Result<bool, Failure> {
    let links = Netlink::open().and_then(|mut netlink| netlink.links());
    let links = links.cannot("list the interfaces of the container").fails_as(EndReason::HostError)?;
    Ok(links.iter().any(|link| link.is_up && !link.is_loopback && link.mac.is_some()))
}
