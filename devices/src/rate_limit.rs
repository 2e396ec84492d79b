// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Limits of what passes between a device and the host, in bytes and operations (packets, requests)
//! for each second and direction. A worker asks its [`Limiter`]; the host sets limits at any time
//! through a [`RateControl`].
//!
//! A worker that has to wait returns. A timer descriptor wakes it, so that nothing spins or sleeps.
//! The limiter belongs to the device and goes from worker to worker: a driver gains nothing by a
//! reset.

use crate::event_loop::Source;
use crate::token_bucket::TokenBucket;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io::Result;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A wait is no shorter, so that little passes with each wake-up only if little is allowed.
const MIN_WAIT: Duration = Duration::from_millis(2);
/// A wait is no longer, so that new limits are seen.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The limits of one direction; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Bytes for each second.
    pub bytes: Option<NonZeroU64>,
    /// Packets or requests for each second.
    pub operations: Option<NonZeroU64>,
}

/// The limits of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// What the guest reads or receives.
    pub to_guest: Rate,
    /// What the guest writes or sends.
    pub from_guest: Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToGuest,
    FromGuest,
}

#[derive(Debug)]
struct Shared {
    /// Read by the worker when the timer has expired.
    limits: Mutex<RateLimits>,
    timer: OwnedFd,
}

impl Shared {
    fn limits(&self) -> RateLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_after(&self, delay: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // No longer than MAX_WAIT, and not zero, which would disarm the timer.
        let it_value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos().max(1)) };
        let times = Itimerspec { it_interval: zero, it_value };
        // It fails for invalid times only.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times);
    }
}

/// The host's access to the limits of a device.
#[derive(Clone, Debug)]
pub struct RateControl(Arc<Shared>);

impl RateControl {
    /// The limits at this moment.
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        self.0.limits()
    }

    /// Sets new limits. The worker sees them at once, or a second later if it begins to wait
    /// at this moment.
    pub fn set(&self, limits: RateLimits) {
        *self.0.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.0.wake_after(Duration::ZERO);
    }
}

/// The limits of a device, as its worker applies them.
#[derive(Debug)]
pub(crate) struct Limiter {
    shared: Arc<Shared>,
    limits: RateLimits,
    to_guest: Buckets,
    from_guest: Buckets,
    /// When the timer expires.
    wakes_at: Option<Instant>,
}

impl Limiter {
    pub(crate) fn new(limits: RateLimits) -> Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let (to_guest, from_guest) = (Buckets::new(limits.to_guest), Buckets::new(limits.from_guest));
        let shared = Arc::new(Shared { limits: Mutex::new(limits), timer });
        Ok(Self { shared, limits, to_guest, from_guest, wakes_at: None })
    }

    pub(crate) fn control(&self) -> RateControl {
        RateControl(Arc::clone(&self.shared))
    }

    /// The worker calls [`update`](Self::update) and goes on in both directions.
    pub(crate) fn source(&self, token: u32) -> Source {
        Source::readable(&self.shared.timer, token)
    }

    /// The timer has expired: there are tokens or new limits.
    pub(crate) fn update(&mut self) {
        self.wakes_at = None;
        let limits = self.shared.limits();
        if limits.to_guest != self.limits.to_guest {
            self.to_guest = Buckets::new(limits.to_guest);
        }
        if limits.from_guest != self.limits.from_guest {
            self.from_guest = Buckets::new(limits.from_guest);
        }
        self.limits = limits;
    }

    /// Whether something may pass now. If not, the source becomes ready when it is worth another
    /// try.
    pub(crate) fn admits(&mut self, direction: Direction) -> bool {
        let buckets = self.buckets(direction);
        if buckets.are_unlimited() {
            return true;
        }
        let now = Instant::now();
        let Some(delay) = buckets.delay(now) else { return true };
        let delay = delay.clamp(MIN_WAIT, MAX_WAIT);
        if self.wakes_at.is_none_or(|wakes_at| now + delay < wakes_at) {
            self.wakes_at = Some(now + delay);
            self.shared.wake_after(delay);
        }
        false
    }

    /// Charges what has passed.
    pub(crate) fn spend(&mut self, direction: Direction, bytes: u64, operations: u64) {
        let buckets = self.buckets(direction);
        if let Some(bucket) = &mut buckets.bytes {
            bucket.take(bytes);
        }
        if let Some(bucket) = &mut buckets.operations {
            bucket.take(operations);
        }
    }

    fn buckets(&mut self, direction: Direction) -> &mut Buckets {
        match direction {
            Direction::ToGuest => &mut self.to_guest,
            Direction::FromGuest => &mut self.from_guest,
        }
    }
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<TokenBucket>,
    operations: Option<TokenBucket>,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        let now = Instant::now();
        let bucket = |rate: Option<NonZeroU64>| rate.map(|rate| TokenBucket::new(rate, now));
        Self { bytes: bucket(rate.bytes), operations: bucket(rate.operations) }
    }

    fn are_unlimited(&self) -> bool {
        self.bytes.is_none() && self.operations.is_none()
    }

    /// `None` if both admit something.
    fn delay(&mut self, now: Instant) -> Option<Duration> {
        let delays = [&mut self.bytes, &mut self.operations].map(|bucket| bucket.as_mut()?.delay(now));
        delays.into_iter().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn limiter(bytes: u64, operations: u64) -> Limiter {
        let rate = Rate { bytes: NonZeroU64::new(bytes), operations: NonZeroU64::new(operations) };
        Limiter::new(RateLimits { to_guest: rate, from_guest: Rate::default() }).unwrap()
    }

    /// Whether the timer expires within this time.
    fn wakes(limiter: &Limiter, milliseconds: i64) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        poll(&mut [PollFd::new(&limiter.shared.timer, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }

    #[test]
    fn directions_and_units_are_limited_apart() {
        let mut limiter = limiter(1000, 10);
        limiter.spend(Direction::ToGuest, 2000, 0);
        assert!(!limiter.admits(Direction::ToGuest));
        assert!(limiter.admits(Direction::FromGuest));
        let mut limiter = super::tests::limiter(0, 10);
        limiter.spend(Direction::ToGuest, u64::MAX, 2);
        assert!(!limiter.admits(Direction::ToGuest), "of operations only");
    }

    #[test]
    fn waiting_arms_the_timer_once() {
        let mut limiter = limiter(1_000_000, 0);
        limiter.spend(Direction::ToGuest, 60_000, 1);
        assert!(!wakes(&limiter, 0));
        assert!(!limiter.admits(Direction::ToGuest));
        let wakes_at = limiter.wakes_at;
        assert!(!limiter.admits(Direction::ToGuest));
        assert_eq!(limiter.wakes_at, wakes_at);
        assert!(wakes(&limiter, 900));
        limiter.update();
        assert!(limiter.admits(Direction::ToGuest));
    }

    #[test]
    fn new_limits_wake_the_worker_and_hold() {
        let mut limiter = limiter(1, 0);
        limiter.spend(Direction::ToGuest, 1000, 1);
        assert!(!limiter.admits(Direction::ToGuest), "it would wait for minutes");
        let control = limiter.control();
        control.set(RateLimits::default());
        assert!(wakes(&limiter, 500));
        limiter.update();
        assert!(limiter.admits(Direction::ToGuest));
        assert_eq!(control.limits(), RateLimits::default());
    }
}
