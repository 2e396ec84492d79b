// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's side of the machine's network: from the options to network devices, and to the guest's configuration of them.
//! Runs on the thread `prepare`.

mod adopt;
mod adopted_state;
mod connect;
mod guest;
mod guest_view;
mod host_routes;
mod metadata;
mod names;
mod passt;
mod publish;
mod resolve;
mod user;

pub(crate) use adopt::restore_left;
pub(crate) use connect::{Attachment, GuestNetwork, Network, connect};
pub(crate) use resolve::{NetworkOptionError, ResolvedInterface, resolve};
