// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine leaves on disk: its run directory with status, events, logs and result, and how it ended. Any process can read it
//! without the machine. The formats are in `README.md`.

pub(crate) mod counters;
pub(crate) mod end;
pub(crate) mod event_outlet;
pub(crate) mod kept;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod machines;
pub(crate) mod published_port;
pub(crate) mod result;
pub(crate) mod rotated_file;
pub(crate) mod rotated_reader;
pub(crate) mod run_dir;
pub(crate) mod saved_layers;
pub(crate) mod snapshots;
pub(crate) mod stages;
pub(crate) mod status;
pub(crate) mod template_failures;
pub(crate) mod templates;
pub(crate) mod volumes;
