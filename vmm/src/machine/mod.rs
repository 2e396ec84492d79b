// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The microVM: assembled in [`build`], run in [`run`].

mod attach;
mod base;
mod build;
mod command_line;
mod config;
mod console_log;
mod disks;
mod monitor;
mod ports;
mod rates;
mod run;
pub(crate) mod snapshot;
pub(crate) mod supervisor;
pub(crate) mod template;
mod threads;

pub(crate) use build::{Machine, build};
pub(crate) use config::{MachineConfig, StreamOutput, Streams};
pub(crate) use console_log::ConsoleLog;
pub(crate) use monitor::{LayerReport, ServiceNotifier, SnapshotReport};
pub(crate) use run::{Outcome, RunContext};
