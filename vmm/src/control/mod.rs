// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is said about a run and to it: the conversation with PID 1, the end and its result document, the run directory.

pub mod conversation;
pub mod counters;
pub mod end;
pub mod exec;
pub mod result;
mod rfc3339;
pub mod run_dir;
pub mod stages;
pub mod timings;
