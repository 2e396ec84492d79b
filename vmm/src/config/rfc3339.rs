// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Points in time as RFC 3339: written in UTC with microseconds, read with any offset and fraction. Also a module for
//! `#[serde(with)]`.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// `time` as `2026-11-21T12:34:56.000789Z`. A clock before 1970 is written as 1970, one after 9999 as its end.
#[must_use]
pub(crate) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX);
    format!("{:.6}Z", EPOCH.saturating_add(since))
}

/// The moment of `text`: `2026-11-21T12:34:56.789+01:00`, or with `Z` for UTC. The seconds may be missing, and the offset, which
/// then is UTC.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let pieces = Pieces::parse(text).ok().filter(|pieces| pieces.time_zone_annotation().is_none())?;
    let local = pieces.date().to_datetime(pieces.time()?).duration_since(EPOCH);
    let offset = pieces.to_numeric_offset().map_or(0, jiff::tz::Offset::seconds);
    let since = local.checked_sub(SignedDuration::from_secs(offset.into()))?;
    UNIX_EPOCH.checked_add(Duration::try_from(since).ok()?)
}

/// For `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*time))
}

/// For `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format_args!("`{text}` is not an RFC 3339 time")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_the_calendar() {
        let moments = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (68_169_600, "1972-02-29T00:00:00.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (1_795_264_496, "2026-11-21T12:34:56.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ];
        for (seconds, text) in moments {
            assert_eq!(format(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn format_has_microseconds() {
        assert_eq!(format(UNIX_EPOCH + Duration::from_micros(789)), "1970-01-01T00:00:00.000789Z");
    }

    #[test]
    fn parse_reads_what_format_writes() {
        for seconds in [0, 68_169_600, 951_868_799, 1_795_264_496, 4_107_542_400, 253_402_300_799] {
            let time = UNIX_EPOCH + Duration::new(seconds, 789_000);
            assert_eq!(parse(&format(time)), Some(time));
        }
    }

    #[test]
    fn parse_reads_offsets_and_fractions() {
        let moment = UNIX_EPOCH + Duration::from_secs(1_795_264_496);
        for text in ["2026-11-21T12:34:56Z", "2026-11-21T13:34:56+01:00", "2026-11-21 07:04:56-05:30"] {
            assert_eq!(parse(text), Some(moment), "{text}");
        }
        assert_eq!(parse("2026-11-21T12:34"), Some(moment - Duration::from_secs(56)));
        assert_eq!(parse("2026-11-21T12:34:56.5Z"), Some(moment + Duration::from_millis(500)));
    }

    #[test]
    fn parse_rejects_what_is_not_a_time() {
        for text in [
            "",
            "now",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T12:34:56+1",
            "1969-12-31T23:59:59Z",
            "2026-11-21T1a:00:00Z",
            "99999-01-01T00:00:00Z",
            "2026-11-21T12:34:56.x",
            "1970-01-01T00:00:00+01:00",
            "2026-11-21T12:34:56+99:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
