// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: every test there is, then one table and one closing line.

use crate::repository::cargo;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};

/// What the tests of one world amounted to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    world: String,
    passed: usize,
    failed: usize,
    skipped: usize,
    reasons: BTreeMap<String, usize>,
}

/// Runs everything, even after a failure. The last line is `N passed, N failed, N skipped`.
pub(crate) fn run() -> Result<ExitCode> {
    let unit = ["test", "--workspace", "--exclude", "coracle-tests", "--no-fail-fast"];
    let end_to_end = ["test", "--package", "coracle-tests", "--no-fail-fast"];
    let tallies = [tally("unit and documentation", &unit)?, tally("end to end", &end_to_end)?];

    println!("\n{:40} {:>7} {:>7} {:>7}", "world", "passed", "failed", "skipped");
    for Tally { world, passed, failed, skipped, .. } in &tallies {
        println!("{world:40} {passed:>7} {failed:>7} {skipped:>7}");
    }
    for (reason, count) in tallies.iter().flat_map(|tally| &tally.reasons) {
        println!("skipped {count}: {reason}");
    }
    let sum = |part: fn(&Tally) -> usize| tallies.iter().map(part).sum::<usize>();
    let failed = sum(|tally| tally.failed);
    println!("\n{} passed, {failed} failed, {} skipped", sum(|tally| tally.passed), sum(|tally| tally.skipped));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one cargo command, shows its output as it comes, and counts.
fn tally(world: &str, arguments: &[&str]) -> Result<Tally> {
    println!("== {world}");
    let mut child = cargo().args(arguments).stdout(Stdio::piped()).spawn().context("cargo")?;
    let output = child.stdout.take().context("cargo's output")?;
    let mut tally = Tally { world: world.into(), ..Tally::default() };
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait().context("cargo")?;
    if !status.success() && tally.failed == 0 {
        // It did not compile, or a test binary died without its closing line.
        tally.failed = 1;
        println!("cargo {}: {status}", arguments.join(" "));
    }
    Ok(tally)
}

impl Tally {
    fn read(&mut self, line: &str) {
        if let Some(world) = line.strip_prefix("end to end: ") {
            self.world = format!("end to end, {world}");
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |name| {
                let mut parts = counts.split(['.', ';']).map(str::trim);
                parts.find_map(|part| part.strip_suffix(name)?.trim().parse::<usize>().ok()).unwrap_or(0)
            };
            self.passed += count("passed");
            self.failed += count("failed");
            self.skipped += count("ignored");
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

    #[test]
    fn closing_lines_add_up_and_reasons_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "end to end: emulating KVM, as root",
            "test a ... ok",
            "test b ... ignored, needs native KVM",
            "test c    ... ignored (needs native KVM)",
            "test d ... ignored",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tally.read(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.skipped), (13, 2, 3));
        assert_eq!(tally.world, "end to end, emulating KVM, as root");
        assert_eq!(tally.reasons["needs native KVM"], 2);
        assert_eq!(tally.reasons["marked as ignored"], 1);
    }
}
