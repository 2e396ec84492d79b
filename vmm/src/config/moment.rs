// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--since TIME` and `--until TIME`: a moment, or how long ago it was.

use super::rfc3339;
use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 2026-11-22T10:00:00Z, seconds since 1970, or how long ago: 90s, 10m, 1h30m, 1d")]
pub(crate) struct MomentError;

/// A moment in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(SystemTime);

impl Moment {
    #[must_use]
    pub(crate) fn time(self) -> SystemTime {
        self.0
    }

    fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
        if let Some(time) = rfc3339::parse(text) {
            return Some(time);
        }
        let only = |allowed: &str| text.chars().all(|c| c.is_ascii_digit() || allowed.contains(c));
        if only(".") && !text.starts_with('.') && !text.ends_with('.') {
            let since = SpanParser::new().parse_duration(format!("{text}s")).ok()?;
            return UNIX_EPOCH.checked_add(Duration::try_from(since).ok()?);
        }
        let ago = SpanParser::new().parse_span(text).ok().filter(|_| only("smhd"))?;
        let ago = ago.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        // There are no logs from before 1970.
        Some(now.checked_sub(Duration::try_from(ago).ok()?).unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH))
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
    fn parse_reads_times_and_how_long_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_264_496);
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        assert_eq!(Moment::parse("2026-11-21T12:34:56Z", now), ago(0));
        assert_eq!(Moment::parse("1795264496", now), ago(0));
        assert_eq!(Moment::parse("1795264495.999999999", now), ago(0).map(|time| time - Duration::from_nanos(1)));
        assert_eq!(Moment::parse("90s", now), ago(90));
        assert_eq!(Moment::parse("10m", now), ago(600));
        assert_eq!(Moment::parse("2h", now), ago(7200));
        assert_eq!(Moment::parse("1h30m", now), ago(5400));
        assert_eq!(Moment::parse("999999d", now), Some(UNIX_EPOCH));
        for text in
            ["", "m", "1.5h", "1.", ".5", "1.5.5", "-1s", "yesterday", "99999999999999999999s", "18446744073709551615"]
        {
            assert_eq!(Moment::parse(text, now), None, "{text}");
        }
    }
}
