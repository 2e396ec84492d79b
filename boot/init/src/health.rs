// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The health check as a state machine: when a check runs, and what its outcome means. Docker's
//! rules. The caller runs the commands and passes the time, in milliseconds on any monotonic clock.

use alloc::string::String;
use guest_protocol::health::{HealthCheck, HealthReport, HealthStatus};

#[derive(Debug)]
pub struct HealthMonitor {
    check: HealthCheck,
    status: HealthStatus,
    failing_streak: u32,
    started: u64,
    /// Start time of the next check, or timeout of the running one.
    due: u64,
    running: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthAction {
    Run,
    /// Kill the running check, then call [`HealthMonitor::finish`] without an exit status.
    TimeOut,
}

impl HealthMonitor {
    /// `now` is the time at which the workload was executed.
    #[must_use]
    pub fn new(check: HealthCheck, now: u64) -> Self {
        let mut monitor =
            Self { check, status: HealthStatus::Starting, failing_streak: 0, started: now, due: 0, running: false };
        monitor.due = now.saturating_add(monitor.interval(now));
        monitor
    }

    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.check.arguments
    }

    /// When [`poll`](Self::poll) returns the next action.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.due
    }

    pub fn poll(&mut self, now: u64) -> Option<HealthAction> {
        if now < self.due {
            return None;
        }
        if self.running {
            self.due = u64::MAX;
            return Some(HealthAction::TimeOut);
        }
        self.running = true;
        self.due = now.saturating_add(self.check.timeout_ms);
        Some(HealthAction::Run)
    }

    /// A check ended. `exit` is `None` if it was killed or could not be started.
    pub fn finish(&mut self, now: u64, exit: Option<i32>, output: String) -> HealthReport {
        self.running = false;
        let ignored = self.status == HealthStatus::Starting && self.in_start_period(now);
        if exit == Some(0) {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !ignored {
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
        now.saturating_sub(self.started) < self.check.start_period_ms
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

    fn run(monitor: &mut HealthMonitor, exit: Option<i32>) -> HealthReport {
        let now = monitor.due();
        assert_eq!(monitor.poll(now), Some(HealthAction::Run));
        monitor.finish(now + 5, exit, String::new())
    }

    #[test]
    fn checks_are_one_interval_apart_counted_from_their_end() {
        let mut monitor = HealthMonitor::new(check(), 1000);
        assert_eq!((monitor.poll(1099), monitor.due()), (None, 1100));
        assert_eq!(run(&mut monitor, Some(0)).status, HealthStatus::Healthy);
        assert_eq!(monitor.due(), 1205);
    }

    #[test]
    fn retries_failures_in_a_row_mean_unhealthy() {
        let mut monitor = HealthMonitor::new(check(), 0);
        assert_eq!(run(&mut monitor, Some(1)).status, HealthStatus::Starting);
        let report = run(&mut monitor, None);
        assert_eq!((report.status, report.failing_streak, report.exit), (HealthStatus::Unhealthy, 2, -1));
        let report = run(&mut monitor, Some(0));
        assert_eq!((report.status, report.failing_streak), (HealthStatus::Healthy, 0));
        assert_eq!(run(&mut monitor, Some(1)).status, HealthStatus::Healthy, "one failure is not enough");
    }

    #[test]
    fn check_above_its_timeout_is_ended_once() {
        let mut monitor = HealthMonitor::new(check(), 0);
        assert_eq!(monitor.poll(100), Some(HealthAction::Run));
        assert_eq!(monitor.poll(149), None);
        assert_eq!(monitor.poll(150), Some(HealthAction::TimeOut));
        assert_eq!(monitor.poll(10_000), None);
        assert_eq!(monitor.finish(151, None, "late".into()).failing_streak, 1);
        assert_eq!(monitor.due(), 251);
    }

    #[test]
    fn start_period_ignores_failures_and_shortens_the_interval() {
        let mut monitor = HealthMonitor::new(HealthCheck { start_period_ms: 1000, ..check() }, 0);
        for _ in 0..10 {
            let report = run(&mut monitor, Some(1));
            assert_eq!((report.status, report.failing_streak), (HealthStatus::Starting, 0));
        }
        assert_eq!(monitor.due(), 160);
        assert_eq!(run(&mut monitor, Some(0)).status, HealthStatus::Healthy);
        assert_eq!(monitor.due(), 265, "the first success ends it");
        let _ = run(&mut monitor, Some(1));
        assert_eq!(run(&mut monitor, Some(1)).status, HealthStatus::Unhealthy);
    }
}
