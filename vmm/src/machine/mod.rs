// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The microVM: put together in [`build`], run in [`run`].

mod attach;
mod attached_clients;
mod build;
mod command_line;
mod config;
mod console_log;
mod control_port;
mod exec_clients;
mod herald;
mod operations;
mod ports;
mod run;
mod session;
mod slots;
pub(crate) mod supervisor;
mod threads;
mod timers;
mod workload_input;

pub(crate) use build::build;
pub(crate) use config::{MachineConfig, StreamOutput, Streams};
pub(crate) use console_log::ConsoleLog;
pub(crate) use herald::Herald;
pub(crate) use run::Surroundings;
