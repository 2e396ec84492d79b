// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--since TIME`: a moment, or how long ago it was.

use crate::config::rfc3339;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is 2026-11-22T10:00:00Z, seconds since 1970, or how long ago: 90s, 10m, 2h, 1d")]
pub(crate) struct MomentError;

/// A moment in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(SystemTime);

impl Moment {
    /// The moment.
    #[must_use]
    pub(crate) fn time(self) -> SystemTime {
        self.0
    }

    fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
        if let Some(time) = rfc3339::parse(text) {
            return Some(time);
        }
        let seconds = |number: &str, unit| number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs);
        for (suffix, unit) in [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)] {
            if let Some(number) = text.strip_suffix(suffix) {
                // Before 1970 there are no logs either.
                return Some(now.checked_sub(seconds(number, unit)?).unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH));
            }
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let fraction = rfc3339::nanoseconds(fraction).filter(|_| !fraction.is_empty())?;
        UNIX_EPOCH.checked_add(seconds(whole, 1)?)?.checked_add(Duration::from_nanos(fraction.into()))
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        Self::parse(text, SystemTime::now()).map(Self).ok_or(MomentError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_so_long_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_264_496);
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        assert_eq!(Moment::parse("2026-11-21T12:34:56Z", now), ago(0));
        assert_eq!(Moment::parse("1795264496", now), ago(0));
        assert_eq!(Moment::parse("1795264495.999999999", now), ago(0).map(|time| time - Duration::from_nanos(1)));
        assert_eq!(Moment::parse("90s", now), ago(90));
        assert_eq!(Moment::parse("10m", now), ago(600));
        assert_eq!(Moment::parse("2h", now), ago(7200));
        assert_eq!(Moment::parse("999999d", now), Some(UNIX_EPOCH));
        for text in
            ["", "m", "1.5h", "1.", ".5", "1.5.5", "-1s", "yesterday", "99999999999999999999s", "18446744073709551615"]
        {
            assert_eq!(Moment::parse(text, now), None, "{text}");
        }
    }
}
