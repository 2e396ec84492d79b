// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The health check of an image and its outcome. PID 1 runs the checks by docker's rules and
//! reports each one.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bound of [`HealthReport::output`].
pub const MAX_OUTPUT_BYTES: usize = 4096;

/// A command and its schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `argv`; never empty.
    pub arguments: Vec<String>,
    /// From the end of a check to the start of the next.
    pub interval_ms: u64,
    /// A check that runs longer is killed and has failed.
    pub timeout_ms: u64,
    /// Failures within this time after the start do not count.
    pub start_period_ms: u64,
    /// The interval within the start period, until the first success.
    pub start_interval_ms: u64,
    /// Consecutive failures that make the workload unhealthy.
    pub retries: u32,
}

/// Health of the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has succeeded yet, and fewer than `retries` have failed.
    #[default]
    Starting,
    /// A check has succeeded, and fewer than `retries` have failed since.
    Healthy,
    /// The last `retries` checks failed.
    Unhealthy,
}

/// The outcome of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Health after this check.
    pub status: HealthStatus,
    /// Consecutive failures.
    pub failing_streak: u32,
    /// Exit status of the check, or -1 if it was killed or did not run.
    pub exit: i32,
    /// The beginning of the check's output, or the reason why it did not run.
    pub output: String,
}
