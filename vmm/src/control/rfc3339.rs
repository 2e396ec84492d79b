// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Points in time as RFC 3339 writes them, in UTC with microseconds.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// `time` as `2026-11-21T12:34:56.000789Z`. A clock before 1970 is written as its start.
#[must_use]
pub(super) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY_SECONDS, since.as_secs() % DAY_SECONDS);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    // 400 years have a whole number of days, so that the loop is short for any clock.
    const ERA_DAYS: u64 = 146_097;
    let mut year = 1970 + day / ERA_DAYS * 400;
    day %= ERA_DAYS;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn known_moments_are_written_as_the_calendar_has_them() {
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
    fn fractions_are_microseconds() {
        assert_eq!(format(UNIX_EPOCH + Duration::from_micros(789)), "1970-01-01T00:00:00.000789Z");
    }
}
