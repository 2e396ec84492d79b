// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Points in time as RFC 3339 writes them: in UTC with microseconds by us, with any offset and fraction by others. As a
//! module for `#[serde(with)]`, too.

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// `time` as `2026-11-21T12:34:56.000789Z`. A clock before 1970 is written as its start.
#[must_use]
pub(crate) fn format(time: SystemTime) -> String {
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
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while day >= days_of(year, month) {
        day -= days_of(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

/// The moment that `text` names: `2026-11-21T12:34:56.789+01:00`, or with `Z` for UTC. Seconds and what follows may be
/// missing, and the offset then is UTC.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (time, offset_seconds) = split_offset(time)?;
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = time.split(':');
    let (hour, minute, second) = (number(clock.next()?)?, number(clock.next()?)?, clock.next().unwrap_or("0"));
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    let second = number(second)?;
    let sound = date.next().is_none() && clock.next().is_none() && (1..=12).contains(&month) && day >= 1;
    if !sound || day > days_of(year, month) || hour > 23 || minute > 59 || second > 60 || year > 9999 {
        return None;
    }
    let seconds = days_before(year, month)?.checked_add(day - 1)? * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    let seconds = seconds.checked_add_signed(-offset_seconds)?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds(fraction)?))
}

/// The time without its offset, and the offset in seconds.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(utc) = time.strip_suffix(['Z', 'z']) {
        return Some((utc, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok().filter(|_| hours < 24 && minutes < 60)?;
    Some((&time[..at], if time[at..].starts_with('-') { -seconds } else { seconds }))
}

/// Digits and nothing else; few enough to be multiplied.
fn number(digits: &str) -> Option<u64> {
    let sound = (1..=6).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| sound)
}

/// The digits behind the point of a number of seconds.
pub(crate) fn nanoseconds(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    digits.parse().ok()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of a month; `None` before.
fn days_before(year: u64, month: u64) -> Option<u64> {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = year.checked_sub(1970)? * 365 + leap_days(year - 1) - leap_days(1969);
    Some(years + (1..month).map(|month| days_of(year, month)).sum::<u64>())
}

/// For `#[serde(with)]`.
///
/// # Errors
/// As the serializer.
pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*time))
}

/// For `#[serde(with)]`.
///
/// # Errors
/// It is no such text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format_args!("`{text}` is no RFC 3339 time")))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for seconds in [0, 68_169_600, 951_868_799, 1_795_264_496, 4_107_542_400, 253_402_300_799] {
            let time = UNIX_EPOCH + Duration::new(seconds, 789_000);
            assert_eq!(parse(&format(time)), Some(time));
        }
    }

    #[test]
    fn others_write_offsets_and_fractions_in_their_own_way() {
        let moment = UNIX_EPOCH + Duration::from_secs(1_795_264_496);
        for text in ["2026-11-21T12:34:56Z", "2026-11-21T13:34:56+01:00", "2026-11-21 07:04:56-05:30"] {
            assert_eq!(parse(text), Some(moment), "{text}");
        }
        assert_eq!(parse("2026-11-21T12:34"), Some(moment - Duration::from_secs(56)));
        assert_eq!(parse("2026-11-21T12:34:56.5Z"), Some(moment + Duration::from_millis(500)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
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
