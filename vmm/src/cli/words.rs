// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Durations and sizes as docker prints them. Pure.

use std::time::Duration;

pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// In units of 1024, for memory.
pub(super) fn binary_size(bytes: u64) -> String {
    size(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

/// In units of 1000, for I/O.
pub(super) fn decimal_size(bytes: u64) -> String {
    size(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// With `digits` significant digits.
#[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn size(bytes: u64, base: f64, units: [&str; 7], digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    let whole = if value >= 1000.0 { 4 } else { 1 + usize::from(value >= 10.0) + usize::from(value >= 100.0) };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (3599, "59 minutes"),
            (7199, "About an hour"),
            (47 * 3600, "47 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (90 * 86_400, "3 months"),
            (3 * 366 * 86_400, "3 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn sizes_have_a_few_digits_and_a_unit() {
        for (bytes, binary, decimal) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1536, "1.5KiB", "1.54kB"),
            (128 << 20, "128MiB", "134MB"),
            (1023 << 20, "1023MiB", "1.07GB"),
            (u64::MAX, "16EiB", "18.4EB"),
        ] {
            assert_eq!((binary_size(bytes).as_str(), decimal_size(bytes).as_str()), (binary, decimal));
        }
    }
}
