// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's side of the machine's network: from the options to network devices, and to the guest's configuration of them.
//! Runs on the thread `prepare`.

mod connect;
mod guest;
mod host_routes;
mod names;
mod passt;
mod publish;
mod resolve;
mod user;

pub(crate) use connect::{GuestNetwork, Network, connect};
pub(crate) use resolve::{NetworkOptionError, ResolvedInterface, resolve};
