// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The microVM: put together in [`build`], run in [`run`].

mod attach;
mod attached_clients;
mod build;
mod command_line;
mod console_log;
mod control_port;
mod exec_clients;
mod herald;
mod operations;
mod parts;
mod ports;
mod run;
mod session;
mod slots;
mod threads;
mod timers;
mod workload_input;

pub use build::{BuildError, Machine, build};
pub use console_log::ConsoleLog;
pub use herald::Herald;
pub use parts::{Parts, StreamOutput, Streams};
pub use run::{Outcome, Surroundings};
