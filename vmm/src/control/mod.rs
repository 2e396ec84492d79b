// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is said about a run and to it: the conversation with PID 1, the end and its result document, the run directory.

pub mod client;
pub mod control_socket;
pub mod conversation;
pub mod counters;
pub mod end;
pub mod entries;
pub mod event_outlet;
pub mod exec;
pub mod lifecycle;
mod log_streams;
pub mod logs;
pub mod result;
pub mod rfc3339;
pub mod rotated_file;
pub mod rotated_reader;
pub mod run_dir;
pub mod server;
pub mod stages;
pub mod status;
pub mod timings;
