// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Durations as docker writes them: `30s`, `1m30s`, `500ms`.

use super::text_form::text_form;
use jiff::fmt::friendly::SpanParser;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A hundred days: sums of a few cannot overflow.
const MAX_MS: u64 = 100 * 24 * 3600 * 1000;
/// More digits than any number of a permitted duration has.
const MAX_DIGITS: usize = 15;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntervalError {
    #[error("expected a duration like `30s`, `1m30s` or `500ms`")]
    Form,
    #[error("the maximum is 100 days")]
    TooLong,
}

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(u64);

impl Interval {
    #[must_use]
    pub(crate) fn milliseconds(self) -> u64 {
        self.0
    }

    /// From the unit of an image's configuration; fractions of a millisecond are rounded up.
    pub(crate) fn from_nanoseconds(nanoseconds: u64) -> Result<Self, IntervalError> {
        Duration::from_nanos(nanoseconds).try_into()
    }
}

impl TryFrom<Duration> for Interval {
    type Error = IntervalError;

    fn try_from(duration: Duration) -> Result<Self, IntervalError> {
        let milliseconds = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).ok();
        milliseconds.filter(|&milliseconds| milliseconds <= MAX_MS).map(Self).ok_or(IntervalError::TooLong)
    }
}

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        if text == "0" {
            return Ok(Self(0));
        }
        // jiff accepts more: blanks, signs, fractions, days, units spelled out.
        if !text.bytes().all(|byte| byte.is_ascii_digit() || b"hms".contains(&byte)) {
            return Err(IntervalError::Form);
        }
        // jiff does not tell an overflow from a syntax error.
        if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > MAX_DIGITS) {
            return Err(IntervalError::TooLong);
        }
        let duration = SpanParser::new().parse_duration(text).map_err(|_| IntervalError::Form)?;
        Duration::try_from(duration).map_err(|_| IntervalError::Form)?.try_into()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            milliseconds if milliseconds % 1000 == 0 => write!(f, "{}s", milliseconds / 1000),
            milliseconds => write!(f, "{milliseconds}ms"),
        }
    }
}

text_form!(Interval);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_adds_units() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("0", 0),
            ("0s", 0),
            ("1s5ms", 1005),
        ] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!(interval.milliseconds(), milliseconds, "{text}");
            assert_eq!(interval.to_string().parse(), Ok(interval));
        }
    }

    #[test]
    fn from_str_rejects_what_is_not_a_duration() {
        for text in ["", "5", "s", "1 s", "-1s", "1.5s", "1d", "1s2"] {
            assert_eq!(text.parse::<Interval>(), Err(IntervalError::Form), "{text}");
        }
        for text in ["99999999999999999999s", "2401h", "9999999999999999h"] {
            assert_eq!(text.parse::<Interval>(), Err(IntervalError::TooLong), "{text}");
        }
        assert_eq!(Interval::from_nanoseconds(1_500_000_000).unwrap().milliseconds(), 1500);
        assert!(Interval::from_nanoseconds(u64::MAX).is_err());
    }
}
