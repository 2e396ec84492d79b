// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A run is killed at a random moment of its start, its guest's life or its end.

use super::{Report, assert_nothing_is_left, random, resetting, undisturbed};
use crate::TestDir;
use rustix::process::Signal;
use std::time::Duration;

/// Kills `count` runs. The repetition with the number N has the seed `seed + N`, with which it can be made alone.
#[must_use]
pub fn kill(count: usize, seed: u64) -> Report {
    let mut report = Report::default();
    let longest = undisturbed(&TestDir::new()).mul_f64(1.2);
    for number in 0..count as u64 {
        let seed = seed.wrapping_add(number);
        report.add(&format!("kill 1 --seed {seed}"), || killed(seed, longest));
    }
    report
}

fn killed(seed: u64, longest: Duration) -> String {
    let dir = TestDir::new().keeping_machines();
    let moment = longest.mul_f64(random(&mut seed.clone()) as f64 / u64::MAX as f64);
    let run = resetting(&dir).start();
    // The moment is the input of the campaign. It does not wait for an event.
    std::thread::sleep(moment);
    let had_ended = run.has_ended();
    run.signal(Signal::KILL);
    let _ = run.wait();
    assert_nothing_is_left(&dir, &format!("a kill after {moment:?}"));
    if had_ended { "ended before the kill" } else { "killed" }.to_owned()
}
