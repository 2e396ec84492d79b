// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's side of the machine's network: from the options to network devices, and to the guest's configuration of them.
//! Runs on the thread `prepare`.

mod adopt;
mod adopted_state;
mod bridge;
mod connect;
mod guest;
mod guest_view;
mod host_routes;
mod metadata;
mod names;
mod passt;
mod publish;
mod resolve;
mod state_directory;
mod user;

pub(crate) use bridge::{BridgeNetwork, NetworkError, networks, prune_networks, remove_network};
pub(crate) use connect::{Attachment, GuestNetwork, Network, connect};
pub(crate) use resolve::{NetworkOptionError, ResolvedInterface, resolve};
use state_directory::lock_directory;

/// Puts back and removes what killed processes left in this network namespace.
pub(crate) fn restore_left() {
    match lock_directory() {
        Ok(Some(lock)) => {
            adopt::restore_left();
            bridge::restore_left(lock);
        }
        Ok(None) => {}
        Err(error) => log::warn!("cannot remove what killed machines left: {error}"),
    }
}
