// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: every test there is, in every world, then one table and one closing line.

use crate::nested;
use crate::repository::cargo;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};

/// Where tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// Unit and documentation tests, on this machine, without KVM for the most part.
    Unit,
    /// The end-to-end tests with this machine's `/dev/kvm`.
    Here,
    /// The end-to-end tests with the ordinary KVM of the nested runner.
    Nested,
}

impl World {
    /// The worlds with these names; without names those that together run every test.
    pub(crate) fn choose(names: &[String]) -> Result<Vec<World>> {
        let world = |name: &String| match name.as_str() {
            "unit" => Ok(World::Unit),
            "here" => Ok(World::Here),
            "nested" => Ok(World::Nested),
            _ => bail!("no world is called `{name}`: unit, here, nested"),
        };
        if !names.is_empty() {
            return names.iter().map(world).collect();
        }
        let nested = if has_native_kvm() { &[][..] } else { &[World::Nested] };
        Ok([&[World::Unit, World::Here], nested].concat())
    }

    fn run(self) -> Result<Tally> {
        match self {
            World::Unit => tally(
                "unit and documentation",
                &["test", "--workspace", "--exclude", "coracle-tests", "--no-fail-fast"],
            ),
            World::Here => tally("end to end", &["test", "--package", "coracle-tests", "--no-fail-fast"]),
            World::Nested => tally_nested(),
        }
    }
}

/// As the tests themselves see it.
fn has_native_kvm() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    hardware && Path::new("/dev/kvm").exists() && !Path::new("/sys/module/kvm_pvm").exists()
}

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
pub(crate) fn run(worlds: &[World]) -> Result<ExitCode> {
    let tallies = worlds.iter().map(|world| world.run()).collect::<Result<Vec<_>>>()?;

    println!("\n{:56} {:>7} {:>7} {:>7}", "world", "passed", "failed", "skipped");
    for Tally { world, passed, failed, skipped, reasons } in &tallies {
        println!("{world:56} {passed:>7} {failed:>7} {skipped:>7}");
        for (reason, count) in reasons {
            println!("    skipped {count}: {reason}");
        }
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
        tally.show(&line.context("cargo's output")?);
    }
    let status = child.wait().context("cargo")?;
    tally.ended(status.success(), &format!("cargo {}: {status}", arguments.join(" ")));
    Ok(tally)
}

/// The same in the nested runner.
fn tally_nested() -> Result<Tally> {
    println!("== end to end, nested");
    let mut tally = Tally { world: "end to end, nested".into(), ..Tally::default() };
    let mut line = Vec::new();
    let outcome = nested::start(&nested::Options::tests(None), &mut |bytes| {
        for byte in bytes {
            match byte {
                b'\n' => tally.show(&std::mem::take(&mut line)),
                byte => line.push(*byte),
            }
        }
        Ok(())
    });
    match outcome {
        Ok(status) => tally.ended(status == 0, &format!("the tests ended with status {status}")),
        Err(error) => tally.ended(false, &format!("the nested runner: {error:#}")),
    }
    Ok(tally)
}

impl Tally {
    /// Passes a line on and counts what it says.
    fn show(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        println!("{line}");
        self.read(&line);
    }

    /// A run that failed without a failed test did not compile, or died without its closing line.
    fn ended(&mut self, success: bool, how: &str) {
        if !success && self.failed == 0 {
            self.failed = 1;
            println!("{how}");
        }
    }

    fn read(&mut self, line: &str) {
        if let Some(world) = line.strip_prefix("end to end: ") {
            self.world += &format!(", {world}");
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
    use super::{Tally, World};

    #[test]
    fn worlds_are_chosen_by_name() {
        assert_eq!(World::choose(&["nested".into(), "unit".into()]).unwrap(), [World::Nested, World::Unit]);
        assert!(World::choose(&["elsewhere".into()]).is_err());
        assert!(World::choose(&[]).unwrap().starts_with(&[World::Unit, World::Here]));
    }

    #[test]
    fn a_run_that_dies_without_a_closing_line_is_a_failure() {
        let mut tally = Tally::default();
        tally.ended(false, "it died");
        assert_eq!(tally.failed, 1);
        tally.ended(true, "");
        assert_eq!(tally.failed, 1);
    }

    #[test]
    fn closing_lines_add_up_and_reasons_are_counted() {
        let mut tally = Tally { world: "end to end".into(), ..Tally::default() };
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
