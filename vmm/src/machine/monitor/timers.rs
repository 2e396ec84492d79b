// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The deadlines of a run. `main`'s event loop waits no longer than until the next one.

use crate::machine::supervisor::TimerKind;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Timers {
    deadlines: HashMap<TimerKind, Instant>,
    /// Samples the guest for a profile.
    sample: Option<Periodic>,
    /// Of a service manager's watchdog.
    heartbeat: Option<Periodic>,
}

#[derive(Debug)]
struct Periodic {
    interval: Duration,
    next: Instant,
}

impl Periodic {
    fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now() }
    }

    /// Whether it is due at `now`. Missed periods are skipped.
    fn take(&mut self, now: Instant) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

impl Timers {
    /// No deadlines; samples and heartbeats at these intervals.
    pub(super) fn new(sample: Option<Duration>, heartbeat: Option<Duration>) -> Self {
        Self { deadlines: HashMap::new(), sample: sample.map(Periodic::new), heartbeat: heartbeat.map(Periodic::new) }
    }

    /// Sets a deadline or removes it.
    pub(super) fn set(&mut self, kind: TimerKind, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.deadlines.insert(kind, deadline),
            None => self.deadlines.remove(&kind),
        };
    }

    /// From `now` until something is due.
    pub(super) fn until_next(&self, now: Instant) -> Option<Duration> {
        let periodic = self.sample.iter().chain(&self.heartbeat).map(|periodic| periodic.next);
        let next = self.deadlines.values().copied().chain(periodic).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Removes a deadline that has passed at `now`.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<TimerKind> {
        let kind = *self.deadlines.iter().find(|(_, deadline)| **deadline <= now)?.0;
        self.deadlines.remove(&kind);
        Some(kind)
    }

    /// Whether a sample of the guest is due at `now`.
    pub(super) fn take_sample(&mut self, now: Instant) -> bool {
        self.sample.as_mut().is_some_and(|periodic| periodic.take(now))
    }

    /// Whether the service manager is to be notified at `now` that `main` runs.
    pub(super) fn take_heartbeat(&mut self, now: Instant) -> bool {
        self.heartbeat.as_mut().is_some_and(|periodic| periodic.take(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_expires_once_and_the_next_one_bounds_the_wait() {
        let now = Instant::now();
        let mut timers = Timers::new(None, None);
        assert_eq!(timers.until_next(now), None);
        timers.set(TimerKind::Run, Some(now + Duration::from_secs(9)));
        timers.set(TimerKind::Stop, Some(now + Duration::from_secs(5)));
        assert_eq!(timers.until_next(now), Some(Duration::from_secs(5)));
        assert_eq!(timers.take_expired(now + Duration::from_secs(6)), Some(TimerKind::Stop));
        assert_eq!(timers.take_expired(now + Duration::from_secs(6)), None);
        timers.set(TimerKind::Run, None);
        assert_eq!(timers.until_next(now), None);
    }

    #[test]
    fn samples_are_due_at_their_interval() {
        let now = Instant::now();
        let mut timers = Timers::new(Some(Duration::from_millis(1)), None);
        let later = now + Duration::from_millis(5);
        assert!(timers.take_sample(later));
        assert!(!timers.take_sample(later));
        assert!(timers.take_sample(later + Duration::from_millis(1)));
    }
}
