// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The health check of an image: when it runs, and what its outcomes mean. Docker's rules. Pure: PID 1 runs it and keeps the
//! time, in milliseconds since whenever.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Most bytes of output that a report holds.
pub const OUTPUT_BYTES: usize = 4096;

/// What to run, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `argv`; never empty.
    pub arguments: Vec<String>,
    /// From the end of a check to the next one.
    pub interval_ms: u64,
    /// A check that runs longer has failed.
    pub timeout_ms: u64,
    /// Failures of the first so many milliseconds do not count.
    pub start_period_ms: u64,
    /// The interval within that time, until the first success.
    pub start_interval_ms: u64,
    /// So many failures in a row make the workload unhealthy.
    pub retries: u32,
}

/// How the workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has succeeded yet, and not enough have failed.
    #[default]
    Starting,
    /// The last check succeeded, or not enough have failed since.
    Healthy,
    /// Enough have failed.
    Unhealthy,
}

/// After a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// How the workload is now.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// Exit status of the check; -1 if it has none.
    pub exit: i32,
    /// The begin of what it wrote, or why it could not run.
    pub output: String,
}

/// The state of the checks.
#[derive(Debug)]
pub struct Health {
    check: HealthCheck,
    status: HealthStatus,
    failing_streak: u32,
    began: u64,
    /// The next check is due, or the running one is too late, at this time.
    due: u64,
    running: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthTurn {
    /// Run the check.
    Run,
    /// It took too long: end it.
    GiveUp,
}

impl Health {
    /// The workload was executed `now`.
    #[must_use]
    pub fn new(check: HealthCheck, now: u64) -> Self {
        let mut health =
            Self { check, status: HealthStatus::Starting, failing_streak: 0, began: now, due: 0, running: false };
        health.due = now + health.interval(now);
        health
    }

    /// What to run.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.check.arguments
    }

    /// When [`turn`](Self::turn) is to be called again.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.due
    }

    /// What is to be done `now`, if its time has come.
    pub fn turn(&mut self, now: u64) -> Option<HealthTurn> {
        if now < self.due {
            return None;
        }
        if self.running {
            // Its end will follow.
            self.due = u64::MAX;
            return Some(HealthTurn::GiveUp);
        }
        self.running = true;
        self.due = now.saturating_add(self.check.timeout_ms);
        Some(HealthTurn::Run)
    }

    /// A check ended: with an exit status, or without one (killed, too late, not started).
    pub fn ended(&mut self, now: u64, exit: Option<i32>, output: String) -> HealthReport {
        self.running = false;
        let spared = self.status == HealthStatus::Starting && self.in_start_period(now);
        if exit == Some(0) {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !spared {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= self.check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.due = now.saturating_add(self.interval(now));
        let (status, failing_streak) = (self.status, self.failing_streak);
        HealthReport { status, failing_streak, exit: exit.unwrap_or(-1), output }
    }

    fn in_start_period(&self, now: u64) -> bool {
        now.saturating_sub(self.began) < self.check.start_period_ms
    }

    fn interval(&self, now: u64) -> u64 {
        let starting = self.status == HealthStatus::Starting && self.in_start_period(now);
        if starting { self.check.start_interval_ms } else { self.check.interval_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            arguments: alloc::vec!["true".into()],
            interval_ms: 100,
            timeout_ms: 50,
            start_period_ms: 0,
            start_interval_ms: 10,
            retries: 2,
        }
    }

    fn run(health: &mut Health, exit: Option<i32>) -> HealthReport {
        let now = health.due();
        assert_eq!(health.turn(now), Some(HealthTurn::Run));
        health.ended(now + 5, exit, String::new())
    }

    #[test]
    fn the_first_check_comes_after_an_interval_and_the_next_an_interval_after_its_end() {
        let mut health = Health::new(check(), 1000);
        assert_eq!((health.turn(1099), health.due()), (None, 1100));
        assert_eq!(run(&mut health, Some(0)).status, HealthStatus::Healthy);
        assert_eq!(health.due(), 1205);
    }

    #[test]
    fn enough_failures_in_a_row_make_it_unhealthy_and_one_success_healthy_again() {
        let mut health = Health::new(check(), 0);
        assert_eq!(run(&mut health, Some(1)).status, HealthStatus::Starting);
        let report = run(&mut health, None);
        assert_eq!((report.status, report.failing_streak, report.exit), (HealthStatus::Unhealthy, 2, -1));
        let report = run(&mut health, Some(0));
        assert_eq!((report.status, report.failing_streak), (HealthStatus::Healthy, 0));
        assert_eq!(run(&mut health, Some(1)).status, HealthStatus::Healthy, "one failure is not enough");
    }

    #[test]
    fn a_check_that_takes_too_long_is_given_up_once() {
        let mut health = Health::new(check(), 0);
        assert_eq!(health.turn(100), Some(HealthTurn::Run));
        assert_eq!(health.turn(149), None);
        assert_eq!(health.turn(150), Some(HealthTurn::GiveUp));
        assert_eq!(health.turn(10_000), None);
        assert_eq!(health.ended(151, None, "late".into()).failing_streak, 1);
        assert_eq!(health.due(), 251);
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_and_checks_come_quicker_then() {
        let mut health = Health::new(HealthCheck { start_period_ms: 1000, ..check() }, 0);
        for _ in 0..10 {
            let report = run(&mut health, Some(1));
            assert_eq!((report.status, report.failing_streak), (HealthStatus::Starting, 0));
        }
        assert_eq!(health.due(), 160);
        assert_eq!(run(&mut health, Some(0)).status, HealthStatus::Healthy);
        assert_eq!(health.due(), 265, "the first success ends it");
        let _ = run(&mut health, Some(1));
        assert_eq!(run(&mut health, Some(1)).status, HealthStatus::Unhealthy);
    }
}
