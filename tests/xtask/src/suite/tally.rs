// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The results of the tests of one world, read from the output of their runners.

use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) world: String,
    pub(super) passed: usize,
    /// Names; and how the run ended, if it ended early.
    pub(super) failed: Vec<String>,
    pub(super) skipped: usize,
    /// Reasons for skipped tests, with their numbers.
    pub(super) reasons: BTreeMap<String, usize>,
    /// Names of tests that failed and then passed alone.
    pub(super) again: Vec<String>,
    /// Names of tests that passed or failed.
    pub(super) verdicts: Vec<String>,
    /// Whether the run ended early.
    pub(super) died: bool,
    /// Earlier runs that ended early, and were continued by this one.
    pub(super) deaths: usize,
    /// Time of all runs, builds included.
    pub(super) time: Duration,
    /// The tests that took longest, in seconds.
    slowest: Vec<(String, f32)>,
    /// Tests that passed since the last closing line.
    open: usize,
}

impl Tally {
    pub(super) fn of(world: &str) -> Tally {
        Tally { world: world.to_owned(), ..Tally::default() }
    }

    /// Prints a line and reads it.
    pub(super) fn show(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        println!("{line}");
        self.read(&line);
    }

    /// Records the end of a run. One that failed without a failed test did not compile, or ended early.
    pub(super) fn ended(&mut self, success: bool, how: &str) {
        if !success && self.failed.is_empty() {
            self.died(how);
        }
    }

    /// Records that a run ended early.
    pub(super) fn died(&mut self, how: &str) {
        self.died = true;
        self.failed.push(how.to_owned());
        println!("{how}");
    }

    /// After [`died`](Self::died): tests without a verdict will run elsewhere.
    pub(super) fn continue_elsewhere(&mut self) {
        self.failed.pop();
        self.died = false;
        self.deaths += 1;
        self.passed += std::mem::take(&mut self.open);
    }

    /// Whether there are failed tests, at most `count`, and nothing else went wrong.
    pub(super) fn may_run_again(&self, count: usize) -> bool {
        (1..=count).contains(&self.failed.len()) && !self.died
    }

    /// `second` is another run of the failed tests.
    pub(super) fn replace_failures_by(&mut self, second: Tally) {
        if second.died || second.passed + second.failed.len() != self.failed.len() {
            return;
        }
        let (failed, again) =
            std::mem::take(&mut self.failed).into_iter().partition(|name| second.failed.contains(name));
        (self.failed, self.again) = (failed, again);
        self.passed += self.again.len();
    }

    /// Names and seconds of the `count` tests that took longest, the longest first.
    pub(super) fn slowest(&self, count: usize) -> Vec<String> {
        let mut slowest = self.slowest.clone();
        slowest.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        slowest.into_iter().take(count).map(|(name, seconds)| format!("{seconds:6.1} s  {name}")).collect()
    }

    fn read(&mut self, line: &str) {
        if let Some(list) = line.strip_prefix("slowest: ") {
            let tests = list.split(", ").filter_map(|test| test.strip_suffix(" s")?.rsplit_once(' '));
            self.slowest.extend(tests.filter_map(|(name, seconds)| Some((name.to_owned(), seconds.parse().ok()?))));
        } else if let Some(world) = line.strip_prefix("end to end: ") {
            if self.deaths == 0 {
                self.world += &format!(", {world}");
            }
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |name| {
                let mut parts = counts.split(['.', ';']).map(str::trim);
                parts.find_map(|part| part.strip_suffix(name)?.trim().parse::<usize>().ok()).unwrap_or(0)
            };
            self.passed += count("passed");
            self.skipped += count("ignored");
            self.open = 0;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok")) {
            self.verdicts.push(name.trim().to_owned());
            self.open += 1;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.verdicts.push(name.trim().to_owned());
            self.failed.push(name.trim().to_owned());
        } else if let Some((_, reason)) = line.split_once(" ... ignored") {
            // Rust's own runner writes `ignored, REASON`, the end-to-end tests' `ignored (REASON)`.
            let reason = reason.trim_matches([',', ' ', '(', ')']);
            let reason = if reason.is_empty() { "marked as ignored" } else { reason };
            *self.reasons.entry(reason.to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn read(lines: &[&str]) -> Tally {
        let mut tally = Tally::of("end to end");
        lines.iter().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn run_without_a_closing_line_is_a_failure() {
        let mut tally = Tally::default();
        tally.ended(true, "");
        assert!(tally.failed.is_empty());
        tally.ended(false, "it died");
        assert_eq!(tally.failed, ["it died"]);
    }

    #[test]
    fn closing_lines_are_added_and_reasons_counted() {
        let tally = read(&[
            "end to end: emulating KVM, as root",
            "test a ... ok",
            "test b ... ignored, needs native KVM",
            "test c    ... ignored (needs native KVM)",
            "test d ... ignored",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test e    ... FAILED",
            "test f ... FAILED",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!((tally.passed, tally.skipped), (13, 3));
        assert_eq!(tally.failed, ["e", "f"]);
        assert_eq!(tally.world, "end to end, emulating KVM, as root");
        assert_eq!(tally.reasons["needs native KVM"], 2);
        assert_eq!(tally.reasons["marked as ignored"], 1);
    }

    #[test]
    fn continued_run_counts_with_the_first() {
        let mut tally = read(&["test a   ... ok", "test b ... FAILED", "test c ... ok"]);
        tally.died("the outer Linux is gone");
        assert_eq!(tally.failed, ["b", "the outer Linux is gone"]);
        tally.continue_elsewhere();
        assert_eq!(tally.verdicts, ["a", "b", "c"]);
        for line in ["test d ... ok", "test result: ok. 1 passed; 0 failed; 0 ignored"] {
            tally.read(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.died, tally.deaths), (3, vec!["b".to_owned()], false, 1));
    }

    #[test]
    fn slowest_tests_of_several_runs_are_sorted() {
        let tally = read(&["slowest: a::b 10.5 s, c 3.0 s", "slowest: d::e 7.2 s, f 1.0 s"]);
        assert_eq!(tally.slowest(3), ["  10.5 s  a::b", "   7.2 s  d::e", "   3.0 s  c"]);
    }

    const TWO_FAILED: [&str; 3] =
        ["test a ... FAILED", "test b ... FAILED", "test result: FAILED. 5 passed; 2 failed; 0 ignored"];

    #[test]
    fn test_that_passes_alone_is_named_not_failed() {
        let mut tally = read(&TWO_FAILED);
        tally.replace_failures_by(read(&[
            "test a ... ok",
            "test result: ok. 1 passed; 0 failed; 0 ignored",
            "test b ... FAILED",
            "test result: FAILED. 0 passed; 1 failed; 0 ignored",
        ]));
        assert_eq!((tally.passed, tally.failed, tally.again), (6, vec!["b".to_owned()], vec!["a".to_owned()]));
    }

    #[test]
    fn incomplete_second_run_changes_nothing() {
        let mut tally = read(&TWO_FAILED);
        tally.replace_failures_by(read(&["test a ... ok", "test result: ok. 1 passed; 0 failed; 0 ignored"]));
        assert_eq!((tally.passed, tally.failed.len()), (5, 2));
        let mut died = read(&["test a ... ok", "test result: ok. 2 passed; 0 failed; 0 ignored"]);
        died.died = true;
        tally.replace_failures_by(died);
        assert_eq!((tally.passed, tally.failed.len()), (5, 2));
    }
}
