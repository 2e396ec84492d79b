// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tests of one world amounted to, read off what their runners print.

use std::collections::BTreeMap;
use std::time::Duration;

/// Counts and names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) world: String,
    pub(super) passed: usize,
    /// Names; of a run that did not come to its end, how it ended.
    pub(super) failed: Vec<String>,
    pub(super) skipped: usize,
    /// Why tests were skipped, and how many.
    pub(super) reasons: BTreeMap<String, usize>,
    /// Failed at first.
    pub(super) again: Vec<String>,
    /// Names of those that passed or failed.
    pub(super) verdicts: Vec<String>,
    /// It did not come to its end.
    pub(super) died: bool,
    /// Runs before this one that did not, and were gone on with.
    pub(super) deaths: usize,
    /// How long all of it took, builds included.
    pub(super) time: Duration,
    /// The tests that took longest, in seconds.
    slowest: Vec<(String, f32)>,
    /// Passed since the last closing line.
    open: usize,
}

impl Tally {
    /// Of a world, before anything was run.
    pub(super) fn of(world: &str) -> Tally {
        Tally { world: world.to_owned(), ..Tally::default() }
    }

    /// Passes a line on and counts what it says.
    pub(super) fn show(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        println!("{line}");
        self.read(&line);
    }

    /// A run that failed without a failed test did not compile, or died without its closing line.
    pub(super) fn ended(&mut self, success: bool, how: &str) {
        if !success && self.failed.is_empty() {
            self.died(how);
        }
    }

    /// It ended early, whatever was seen of it.
    pub(super) fn died(&mut self, how: &str) {
        self.died = true;
        self.failed.push(how.to_owned());
        println!("{how}");
    }

    /// After [`died`](Self::died): what has no verdict yet will be run.
    pub(super) fn go_on(&mut self) {
        self.failed.pop();
        self.died = false;
        self.deaths += 1;
        self.passed += std::mem::take(&mut self.open);
    }

    /// What failed here was run again, as `second`.
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
    fn a_run_that_dies_without_a_closing_line_is_a_failure() {
        let mut tally = Tally::default();
        tally.ended(true, "");
        assert!(tally.failed.is_empty());
        tally.ended(false, "it died");
        assert_eq!(tally.failed, ["it died"]);
    }

    #[test]
    fn closing_lines_add_up_and_reasons_are_counted() {
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
    fn what_ended_early_is_gone_on_with_and_all_of_it_counts() {
        let mut tally = read(&["test a   ... ok", "test b ... FAILED", "test c ... ok"]);
        tally.died("the outer Linux is gone");
        assert_eq!(tally.failed, ["b", "the outer Linux is gone"]);
        tally.go_on();
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
    fn what_passes_alone_is_no_failure_but_is_named() {
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
    fn a_second_run_that_is_not_whole_changes_nothing() {
        let mut tally = read(&TWO_FAILED);
        tally.replace_failures_by(read(&["test a ... ok", "test result: ok. 1 passed; 0 failed; 0 ignored"]));
        assert_eq!((tally.passed, tally.failed.len()), (5, 2));
        let mut died = read(&["test a ... ok", "test result: ok. 2 passed; 0 failed; 0 ignored"]);
        died.died = true;
        tally.replace_failures_by(died);
        assert_eq!((tally.passed, tally.failed.len()), (5, 2));
    }
}
