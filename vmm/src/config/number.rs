// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plain numbers among the options. The standard library's words for one that is none ("invalid digit found in string") do
//! not say what is expected.

use std::num::NonZeroU16;
use std::str::FromStr;

/// Seconds.
///
/// # Errors
/// It is no whole number, or above 2³² - 1.
pub(crate) fn seconds(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a whole number of seconds is expected, 4294967295 at most")
}

/// How often.
///
/// # Errors
/// It is no whole number, or above 2³² - 1.
pub(crate) fn times(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a whole number is expected, 4294967295 at most")
}

/// The last lines of a log: so many, or, as docker writes it, `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail(Option<usize>);

impl Tail {
    /// How many; none if it is all.
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
        text.parse().map(|lines| Self(Some(lines))).map_err(|_| "a whole number of lines is expected, or `all`")
    }
}

/// A TCP port.
///
/// # Errors
/// It is no number, 0, or above 65535.
pub(crate) fn port(text: &str) -> Result<NonZeroU16, &'static str> {
    text.parse().map_err(|_| "a port is a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::{Tail, port, seconds, times};

    #[test]
    fn what_is_no_number_is_told_what_is_expected() {
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
