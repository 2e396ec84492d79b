// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A token bucket. Pure: the caller has the clock.
//!
//! Something of any size is admitted while there are tokens, and what it takes beyond them is a
//! debt that later time pays. So the rate holds exactly in the long run, and nothing is too large
//! for a bucket.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Part of a second whose tokens a bucket holds: how much passes at once after a rest.
const BURST_PER_SECOND: u64 = 20;
/// Parts of a token, so that refills in short intervals lose nothing.
const PARTS: i128 = 1_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    /// Tokens for each second, which is parts of a token for each nanosecond.
    rate: i128,
    /// Parts of tokens. Negative after more was taken than there was.
    level: i128,
    updated: Instant,
}

impl TokenBucket {
    /// A bucket that is full at `now`.
    pub(crate) fn new(rate: NonZeroU64, now: Instant) -> Self {
        let mut new = Self { rate: i128::from(rate.get()), level: 0, updated: now };
        new.level = new.capacity();
        new
    }

    fn capacity(&self) -> i128 {
        (self.rate * PARTS / i128::from(BURST_PER_SECOND)).max(PARTS)
    }

    /// `None` if something may pass at `now`, otherwise how long it has to wait.
    pub(crate) fn delay(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        // At most 2^64 for each second, and durations are shorter than 2^64 seconds.
        let refill = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX).saturating_mul(self.rate);
        self.level = self.level.saturating_add(refill).min(self.capacity());
        if self.level > 0 {
            return None;
        }
        // Until there is a part of a token.
        let nanoseconds = (1 - self.level + self.rate - 1) / self.rate;
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }

    pub(crate) fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(rate: u64) -> (TokenBucket, Instant) {
        let now = Instant::now();
        (TokenBucket::new(NonZeroU64::new(rate).unwrap(), now), now)
    }

    #[test]
    fn burst_passes_at_once_and_the_rest_at_the_rate() {
        let (mut bucket, start) = bucket(1000);
        for _ in 0..50 {
            assert_eq!(bucket.delay(start), None);
            bucket.take(1);
        }
        let delay = bucket.delay(start).unwrap();
        assert_eq!(delay, Duration::from_nanos(1));
        bucket.take(10);
        assert_eq!(bucket.delay(start), Some(Duration::from_nanos(10_000_001)));
        let later = start + Duration::from_millis(10);
        assert_eq!(bucket.delay(later), Some(Duration::from_nanos(1)));
        assert_eq!(bucket.delay(later + Duration::from_nanos(1)), None);
    }

    #[test]
    fn large_transfer_is_a_debt() {
        let (mut bucket, start) = bucket(1000);
        bucket.take(5050);
        assert_eq!(bucket.delay(start), Some(Duration::from_nanos(5_000_000_001)));
        assert_eq!(bucket.delay(start + Duration::from_millis(4999)), Some(Duration::from_nanos(1_000_001)));
        assert_eq!(bucket.delay(start + Duration::from_millis(5001)), None);
    }

    #[test]
    fn rest_fills_no_more_than_the_burst() {
        let (mut bucket, start) = bucket(1000);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.delay(later), None);
        bucket.take(50);
        assert!(bucket.delay(later).is_some());
        // A clock that goes back adds nothing.
        assert!(bucket.delay(start).is_some());
        assert!(bucket.delay(later).is_some());
    }

    #[test]
    fn slowest_and_fastest_rates_do_not_overflow() {
        let (mut slow, start) = bucket(1);
        assert_eq!(slow.delay(start), None);
        slow.take(u64::MAX);
        assert_eq!(slow.delay(start), Some(Duration::from_nanos(u64::MAX)));
        let (mut fast, start) = bucket(u64::MAX);
        fast.take(u64::MAX);
        assert!(fast.delay(start).unwrap() < Duration::from_secs(1));
        assert_eq!(fast.delay(start + Duration::from_secs(u64::from(u32::MAX))), None);
    }

    proptest! {
        /// Whatever the sizes, no more passes than rate, burst and the last transfer allow.
        #[test]
        fn rate_holds(rate in 1..100_000_000_u64, sizes in prop::collection::vec(1..100_000_u64, 1..200)) {
            let (mut bucket, start) = bucket(rate);
            let (mut now, mut passed, mut last) = (start, 0, 0);
            for size in sizes {
                if let Some(delay) = bucket.delay(now) {
                    now += delay;
                    prop_assert_eq!(bucket.delay(now), None, "the delay is long enough");
                }
                bucket.take(size);
                passed += size;
                last = size;
            }
            let seconds = now.duration_since(start).as_secs_f64();
            let allowed = seconds * rate as f64 + (rate as f64 / 20.0).max(1.0) + last as f64 + 1.0;
            prop_assert!(passed as f64 <= allowed * 1.000_001, "{} of {}", passed, allowed);
        }
    }
}
