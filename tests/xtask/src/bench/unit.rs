// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Units of samples, medians, and processor times.

use anyhow::{Context, Result};
use std::fs;
use std::time::Instant;

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Microseconds,
    Bytes,
    BytesPerSecond,
    PacketsPerSecond,
    /// A ratio or a share, as an integer.
    Thousandths,
}

impl Unit {
    pub(crate) fn show(self, value: u64) -> String {
        let value = value as f64;
        match self {
            Unit::Microseconds => format!("{:.1} ms", value / 1e3),
            Unit::Bytes => format!("{:.2} MiB", value / f64::from(1 << 20)),
            Unit::BytesPerSecond => format!("{:.1} MB/s", value / 1e6),
            Unit::PacketsPerSecond => format!("{:.1} k/s", value / 1e3),
            Unit::Thousandths => format!("{:.2}", value / 1e3),
        }
    }

    /// The name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Microseconds => "microseconds",
            Unit::Bytes => "bytes",
            Unit::BytesPerSecond => "bytes per second",
            Unit::PacketsPerSecond => "packets per second",
            Unit::Thousandths => "thousandths",
        }
    }
}

/// The middle sample, or the mean of the two middle ones; 0 without samples.
pub(crate) fn median(samples: &[u64]) -> u64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    let middle = samples.len() / 2;
    match samples.as_slice() {
        [] => 0,
        samples if samples.len().is_multiple_of(2) => samples[middle - 1].midpoint(samples[middle]),
        samples => samples[middle],
    }
}

pub(crate) fn elapsed_us(since: Instant) -> Result<u64> {
    Ok(u64::try_from(since.elapsed().as_micros())?)
}

/// User and system time of a process and its threads (proc_pid_stat(5), fields 14 and 15).
pub(crate) fn cpu_time_us(pid: u32) -> Result<u64> {
    times_us(&format!("/proc/{pid}/stat"), 14)
}

/// User and system time of all children of this process that were waited for, and of theirs (fields 16 and 17).
pub(crate) fn children_cpu_time_us() -> Result<u64> {
    times_us("/proc/self/stat", 16)
}

fn times_us(path: &str, field: usize) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let ticks = two_fields(&text, field).with_context(|| path.to_owned())?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// The sum of a field, counted from 1, and the next. The second field is a name in parentheses, which may hold anything.
fn two_fields(stat: &str, field: usize) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(field - 3);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Number and model of the processors.
pub(crate) fn processors() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{processors} × {}", model.trim_start_matches([' ', '\t', ':']))
}

#[cfg(test)]
mod tests {
    use super::{median, two_fields};

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 23 400 56 20";
        assert_eq!((two_fields(stat, 14), two_fields(stat, 16)), (Some(123), Some(456)));
    }

    #[test]
    fn median_is_the_middle_or_between_the_two_middle_ones() {
        assert_eq!(median(&[9, 1, 5]), 5);
        assert_eq!(median(&[9, 1, 5, 6]), 5);
        assert_eq!(median(&[]), 0);
    }
}
