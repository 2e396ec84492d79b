// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is fixed for the whole of a supervisor. Plain data.

use guest_protocol::run_spec::RunSpec;
use std::time::Duration;

/// What is fixed for the whole of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What PID 1 gets in answer to its `Hello`.
    pub(crate) spec: RunSpec,
    /// What TERM becomes for the workload.
    pub(crate) stop_signal: u8,
    /// From TERM to the power cut.
    pub(crate) stop_timeout: Duration,
    /// Longest run.
    pub(crate) timeout: Option<Duration>,
    /// `-t`.
    pub(crate) terminal: bool,
}
