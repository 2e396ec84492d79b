// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine leaves on disk: the run directory with its status, events, logs and result, and how a run ended. Any
//! process may read it without the machine.

pub(crate) mod counters;
pub(crate) mod end;
pub(crate) mod event_outlet;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod machines;
pub(crate) mod result;
pub(crate) mod rotated_file;
pub(crate) mod rotated_reader;
pub(crate) mod run_dir;
pub(crate) mod stages;
pub(crate) mod status;
pub(crate) mod timings;
