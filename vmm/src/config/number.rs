// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options that are plain numbers. The standard library's errors ("invalid digit found in string") do not say what is
//! expected.

use std::num::NonZeroU16;
use std::str::FromStr;

pub(crate) fn seconds(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "expected a whole number of seconds, at most 4294967295")
}

pub(crate) fn times(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "expected a whole number, at most 4294967295")
}

/// Of `oom_score_adj`.
pub(crate) fn adjustment(text: &str) -> Result<i16, &'static str> {
    let adjustment = text.parse().ok().filter(|adjustment| (-1000..=1000).contains(adjustment));
    adjustment.ok_or("expected a whole number from -1000 to 1000")
}

/// How many of the last lines of a log are shown: a number, or `all`, as in docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail(Option<usize>);

impl Tail {
    /// `None` if it is all.
    #[must_use]
    pub(crate) fn lines(self) -> Option<usize> {
        self.0
    }
}

impl FromStr for Tail {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self(None));
        }
        text.parse().map(|lines| Self(Some(lines))).map_err(|_| "expected a whole number of lines, or `all`")
    }
}

/// A TCP port.
pub(crate) fn port(text: &str) -> Result<NonZeroU16, &'static str> {
    text.parse().map_err(|_| "expected a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::{Tail, port, seconds, times};

    #[test]
    fn invalid_number_is_answered_with_what_is_expected() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(times("0"), Ok(0));
        assert_eq!(("20".parse().map(Tail::lines), "all".parse().map(Tail::lines)), (Ok(Some(20)), Ok(None)));
        assert_eq!(port("6379").map(u16::from), Ok(6379));
        for text in ["", "ten", "1.5", "99999999999999999999"] {
            assert!(text.parse::<Tail>().is_err_and(|error| error.contains("lines")), "{text}");
            assert!(seconds(text).is_err_and(|error| error.contains("seconds")), "{text}");
            assert!(times(text).is_err_and(|error| error.contains("whole number")), "{text}");
        }
        for text in ["", "http", "0", "65536"] {
            assert!(port(text).is_err_and(|error| error.contains("65535")), "{text}");
        }
    }
}
