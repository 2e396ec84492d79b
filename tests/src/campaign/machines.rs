// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines whose guests drive their devices wrongly for as long as they run, while clients ask for their status: the memory of the
//! monitors does not grow.

use super::Report;
use crate::{Invocation, Running, TestDir, hostile, image};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

/// From this time on the slope counts, below it the growth itself: a page more is a steep slope of a few seconds.
const MIN_SLOPE_TIME: Duration = Duration::from_secs(600);
/// In KiB: of an hour, and of a shorter time.
const MAX_SLOPE: f64 = 64.0;
const MAX_GROWTH: f64 = 32.0;
/// Samples in the time that counts; before it a third of them is left out.
const SAMPLES: usize = 60;
/// Of the table, so that each round touches every device and every kind of case.
const EVERY: usize = 23;

/// Runs `count` machines for `time`.
#[must_use]
pub fn machines(count: usize, time: Duration) -> Report {
    let mut report = Report::default();
    let minutes = time.as_secs_f64() / 60.0;
    report.add(&format!("machines {count} {minutes:.0}"), || growth(count, time));
    report
}

fn growth(count: usize, time: Duration) -> String {
    let dir = TestDir::new().keeping_machines();
    let names: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
    let mut runs: Vec<Running> = Vec::new();
    for name in &names {
        let run = machine(&dir, name).start();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !dir.run_directory().join(name).join("control.sock").exists() {
            assert!(!run.has_ended() && Instant::now() < deadline, "{name} does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        runs.push(run);
    }
    let step = time.div_f64((SAMPLES + SAMPLES / 3) as f64);
    let mut samples = Vec::new();
    let started = Instant::now();
    for number in 0..SAMPLES + SAMPLES / 3 {
        // Samples are equally far apart. They wait for no event.
        std::thread::sleep((started + step * number as u32).saturating_duration_since(Instant::now()));
        let name = &names[number % count];
        dir.verb("status", &[name]).finish().assert_status(0);
        if number >= SAMPLES / 3 {
            let sum: f64 = runs.iter().map(|run| own_memory(run.pid())).sum();
            samples.push((started.elapsed().as_secs_f64() / 3600.0, sum / count as f64));
        }
    }
    for run in runs {
        // The first asks the guest, which does not answer.
        run.signal(Signal::TERM);
        run.signal(Signal::TERM);
        let _ = run.finish();
    }
    let slope = slope(&samples);
    let hours = samples[samples.len() - 1].0 - samples[0].0;
    let shown = format!("{slope:.0} KiB an hour, {:.0} KiB at the end", samples[samples.len() - 1].1);
    let is_long = hours * 3600.0 >= MIN_SLOPE_TIME.as_secs_f64() * 0.7;
    let is_flat = if is_long { slope <= MAX_SLOPE } else { slope * hours <= MAX_GROWTH };
    assert!(is_flat, "the monitors' memory grows: {shown}; {samples:?}");
    format!("{count} machines: {shown}")
}

fn machine(dir: &TestDir, name: &str) -> Invocation {
    let kernel = hostile::kernel().display().to_string();
    let words = format!("hostile.every={EVERY} hostile.rounds={}", usize::MAX);
    let options = ["--name", name, "--rm", "--kernel", &kernel, "--append", &words, &image("busybox"), "true"];
    dir.invocation(&options)
}

/// KiB of memory that is not a file's. The guest's part does not grow once a round is over.
fn own_memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("there is such a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Of the line through the samples with the least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| samples.iter().map(part).sum::<f64>() / count;
    let (mean_time, mean_memory) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let covariance: f64 = samples.iter().map(|(time, memory)| (time - mean_time) * (memory - mean_memory)).sum();
    let variance: f64 = samples.iter().map(|(time, _)| (time - mean_time).powi(2)).sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn slope_is_that_of_the_line() {
        assert!((slope(&[(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) - 2.0).abs() < 1e-9);
        assert!(slope(&[(0.0, 5.0), (1.0, 9.0), (2.0, 5.0)]).abs() < 1e-9);
    }
}
