// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The deadlines of a run. Kept by `main`'s event loop, which waits no longer than the next one.

use crate::machine::supervisor::TimerKind;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Deadlines by kind, and two beats: of a profile, and of a service manager's watchdog.
#[derive(Debug)]
pub(super) struct Timers {
    deadlines: HashMap<TimerKind, Instant>,
    sample: Option<Beat>,
    heartbeat: Option<Beat>,
}

/// Something that is due again and again.
#[derive(Debug)]
struct Beat {
    interval: Duration,
    next: Instant,
}

impl Beat {
    fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now() }
    }

    /// Whether it is due at `now`. Beats that were missed are not made up for.
    fn take(&mut self, now: Instant) -> bool {
        let due = self.next <= now;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

impl Timers {
    /// No deadline; beats at these intervals.
    pub(super) fn new(sample: Option<Duration>, heartbeat: Option<Duration>) -> Self {
        Self { deadlines: HashMap::new(), sample: sample.map(Beat::new), heartbeat: heartbeat.map(Beat::new) }
    }

    /// Sets or forgets a deadline. One beyond the end of time is none.
    pub(super) fn set(&mut self, kind: TimerKind, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.deadlines.insert(kind, deadline),
            None => self.deadlines.remove(&kind),
        };
    }

    /// From `now` to the next deadline or beat.
    pub(super) fn until_next(&self, now: Instant) -> Option<Duration> {
        let beats = self.sample.iter().chain(&self.heartbeat).map(|beat| beat.next);
        let next = self.deadlines.values().copied().chain(beats).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// A deadline that has passed at `now`; it is forgotten.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<TimerKind> {
        let kind = *self.deadlines.iter().find(|(_, deadline)| **deadline <= now)?.0;
        self.deadlines.remove(&kind);
        Some(kind)
    }

    /// Whether a sample of the guest is due at `now`.
    pub(super) fn take_sample(&mut self, now: Instant) -> bool {
        self.sample.as_mut().is_some_and(|beat| beat.take(now))
    }

    /// Whether the service manager is to hear at `now` that `main` runs.
    pub(super) fn take_heartbeat(&mut self, now: Instant) -> bool {
        self.heartbeat.as_mut().is_some_and(|beat| beat.take(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_deadline_is_waited_for_and_each_expires_once() {
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
    fn beats_come_at_their_interval() {
        let now = Instant::now();
        let mut timers = Timers::new(Some(Duration::from_millis(1)), None);
        let later = now + Duration::from_millis(5);
        assert!(timers.take_sample(later));
        assert!(!timers.take_sample(later));
        assert!(timers.take_sample(later + Duration::from_millis(1)));
    }
}
