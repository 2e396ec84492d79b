// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rate-limited logging for anything that a guest can cause. Any thread.
//!
//! Each place that logs has a budget of its own: a burst of lines in each period. The first line of
//! the next period has the number of lines that were suppressed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines that one place may write in one [`PERIOD`].
const MAX_LINES: u64 = 5;
/// After this time a place has its full budget again.
const PERIOD: Duration = Duration::from_secs(10);

/// The budget of one place in the code; see [`guest_warn!`](crate::guest_warn).
#[derive(Debug, Default)]
pub struct RateLimit {
    /// Start of the current period, in nanoseconds since the first use of any limit; 0 before the
    /// first line.
    period_start: AtomicU64,
    /// Lines in the current period, suppressed ones included.
    lines: AtomicU64,
}

impl RateLimit {
    /// A full budget.
    #[must_use]
    pub const fn new() -> Self {
        Self { period_start: AtomicU64::new(0), lines: AtomicU64::new(0) }
    }

    /// Logs a warning if the budget allows it.
    pub fn warn(&self, message: std::fmt::Arguments<'_>) {
        if let Some(suppressed) = self.take(now()) {
            warn_now(message, suppressed);
        }
    }

    /// `Some(number of lines suppressed before)` if a line may be written at `now`. Two threads
    /// that enter a new period at the same moment may write one line more or miscount by one; there
    /// is a bound all the same.
    fn take(&self, now: u64) -> Option<u64> {
        let start = self.period_start.load(Ordering::Relaxed);
        if now.saturating_sub(start) >= PERIOD.as_nanos() as u64 || start == 0 {
            self.period_start.store(now, Ordering::Relaxed);
            return Some(self.lines.swap(1, Ordering::Relaxed).saturating_sub(MAX_LINES));
        }
        (self.lines.fetch_add(1, Ordering::Relaxed) < MAX_LINES).then_some(0)
    }
}

/// Never 0, which marks an unused limit.
fn now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[allow(clippy::disallowed_macros, reason = "the place that the limit guards")]
fn warn_now(message: std::fmt::Arguments<'_>, suppressed: u64) {
    if suppressed == 0 {
        log::warn!("{message}");
    } else {
        log::warn!("{message} ({suppressed} more of these were not logged)");
    }
}

/// Logs a warning that a guest can cause: at most five lines every ten seconds for each place where
/// it is used.
#[macro_export]
macro_rules! guest_warn {
    ($($argument:tt)*) => {{
        static LIMIT: $crate::guest_log::RateLimit = $crate::guest_log::RateLimit::new();
        LIMIT.warn(format_args!($($argument)*));
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_limited_and_counted_in_the_next_period() {
        let limit = RateLimit::new();
        let allowed = (0..1000).filter(|_| limit.take(1).is_some()).count() as u64;
        assert_eq!(allowed, MAX_LINES);
        let next = 1 + PERIOD.as_nanos() as u64;
        assert_eq!(limit.take(next), Some(1000 - MAX_LINES));
        assert_eq!(limit.take(next), Some(0));
    }
}
