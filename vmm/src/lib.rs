// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine: one container image as one microVM in one process. The binary `coracle` is a few lines around this.
//! Each module imports only what stands below it in this list's order: cli, run, machine, api, network, state, sandbox, config, host.

mod api;
mod cli;
mod config;
mod host;
mod machine;
mod network;
mod run;
mod sandbox;
mod state;

pub use cli::main;
pub use state::stages::Stages;
