// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The deadlines of a run. Kept by `main`'s event loop, which waits no longer than the next one.

use crate::control::conversation::TimerKind;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Deadlines by kind, and the beat of a profile.
#[derive(Debug)]
pub(super) struct Timers {
    deadlines: HashMap<TimerKind, Instant>,
    /// Interval and next beat.
    sample: Option<(Duration, Instant)>,
}

impl Timers {
    /// No deadline; a beat every `sample`.
    pub(super) fn new(sample: Option<Duration>) -> Self {
        Self { deadlines: HashMap::new(), sample: sample.map(|interval| (interval, Instant::now())) }
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
        let beat = self.sample.map(|(_, next)| next);
        let next = self.deadlines.values().copied().chain(beat).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// A deadline that has passed at `now`; it is forgotten.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<TimerKind> {
        let kind = *self.deadlines.iter().find(|(_, deadline)| **deadline <= now)?.0;
        self.deadlines.remove(&kind);
        Some(kind)
    }

    /// Whether a beat is due at `now`. Beats that were missed are not made up for.
    pub(super) fn take_sample(&mut self, now: Instant) -> bool {
        match &mut self.sample {
            Some((interval, next)) if *next <= now => {
                *next = now + *interval;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_deadline_is_waited_for_and_each_expires_once() {
        let now = Instant::now();
        let mut timers = Timers::new(None);
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
        let mut timers = Timers::new(Some(Duration::from_millis(1)));
        let later = now + Duration::from_millis(5);
        assert!(timers.take_sample(later));
        assert!(!timers.take_sample(later));
        assert!(timers.take_sample(later + Duration::from_millis(1)));
    }
}
