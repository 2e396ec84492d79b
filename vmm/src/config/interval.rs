// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Spans of time as docker writes them: `30s`, `1m30s`, `500ms`. To the millisecond.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

/// Longest span: a hundred days, so that sums of a few cannot overflow.
const LONGEST_MS: u64 = 100 * 24 * 3600 * 1000;

/// What is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntervalError {
    /// Not numbers with units.
    #[error("a span of time is written like `30s`, `1m30s` or `500ms`")]
    Form,
    /// Nobody waits that long.
    #[error("the span of time is longer than 100 days")]
    TooLong,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(u64);

impl Interval {
    /// In milliseconds.
    #[must_use]
    pub(crate) fn milliseconds(self) -> u64 {
        self.0
    }

    /// Of the nanoseconds that an image's configuration counts in.
    ///
    /// # Errors
    /// Too long.
    pub(crate) fn from_nanoseconds(nanoseconds: u64) -> Result<Self, IntervalError> {
        Self::check(nanoseconds.div_ceil(1_000_000))
    }

    fn check(milliseconds: u64) -> Result<Self, IntervalError> {
        if milliseconds > LONGEST_MS { Err(IntervalError::TooLong) } else { Ok(Self(milliseconds)) }
    }
}

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        if text == "0" {
            return Ok(Self(0));
        }
        let (mut rest, mut milliseconds) = (text, 0_u64);
        if rest.is_empty() {
            return Err(IntervalError::Form);
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = rest.split_at(digits);
            let letters = unit.bytes().take_while(u8::is_ascii_alphabetic).count();
            let factor = match &unit[..letters] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(IntervalError::Form),
            };
            if number.is_empty() {
                return Err(IntervalError::Form);
            }
            let number: u64 = number.parse().map_err(|_| IntervalError::TooLong)?;
            let part = number.checked_mul(factor).ok_or(IntervalError::TooLong)?;
            milliseconds = milliseconds.checked_add(part).ok_or(IntervalError::TooLong)?;
            rest = &unit[letters..];
        }
        Self::check(milliseconds)
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
    fn units_add_up() {
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
    fn what_is_no_span_of_time_is_refused() {
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
