// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: all tests on all kinds of KVM, then a table and a closing line.

mod tally;

use crate::nested::{self, Selection as Nested};
use crate::repository::cargo;
use anyhow::{Context, Result, bail};
use coracle_tests::{Host, Kvm};
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};
use tally::Tally;

/// Failed tests of machines that are run again, alone; more failures than these are not by chance.
const MAX_RETRIES: usize = 4;
/// Further boots of the outer Linux when it dies among the tests.
const MAX_CONTINUATIONS: usize = 4;
/// Tests of each world that are named at the end, with their times.
const SLOWEST: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// Unit and documentation tests; most need no KVM.
    Unit,
    /// The end-to-end tests with this machine's `/dev/kvm`.
    Here,
    /// The end-to-end tests with the native KVM of the nested runner.
    Nested,
}

impl World {
    /// The worlds with these names; by default those that run every test between them.
    pub(crate) fn choose(names: &[String]) -> Result<Vec<World>> {
        let world = |name: &String| match name.as_str() {
            "unit" => Ok(World::Unit),
            "here" => Ok(World::Here),
            "nested" => Ok(World::Nested),
            _ => bail!("unknown world `{name}`; the worlds are: unit, here, nested"),
        };
        if !names.is_empty() {
            return names.iter().map(world).collect();
        }
        let nested = if Host::detect().kvm == Kvm::Native { &[][..] } else { &[World::Nested] };
        Ok([&[World::Unit, World::Here], nested].concat())
    }

    fn run(self, selection: Nested) -> Result<Tally> {
        let started = Instant::now();
        let mut tally = self.run_tests(selection)?;
        tally.time = started.elapsed();
        Ok(tally)
    }

    fn run_tests(self, selection: Nested) -> Result<Tally> {
        match self {
            World::Unit => tally(
                "unit and documentation",
                &["test", "--workspace", "--exclude", "coracle-tests", "--no-fail-fast"],
            ),
            World::Here => tally_here(),
            World::Nested => tally_nested(selection),
        }
    }
}

/// Runs all of `worlds`, even after a failure. The last line is `N passed, N failed, N skipped`.
pub(crate) fn run(worlds: &[World]) -> Result<ExitCode> {
    let ran_here = worlds.contains(&World::Here) && Host::detect().kvm != Kvm::None;
    let selection = if ran_here { Nested::Machines } else { Nested::All };
    let tallies = std::thread::scope(|scope| {
        // Mostly downloads, while the worlds before the nested one run.
        if worlds.contains(&World::Nested) {
            scope.spawn(nested::prepare);
        }
        worlds.iter().map(|world| world.run(selection)).collect::<Result<Vec<_>>>()
    })?;

    println!("\n{:56} {:>7} {:>7} {:>7} {:>7}", "world", "passed", "failed", "skipped", "time");
    for Tally { world, passed, failed, skipped, reasons, again, deaths, time, .. } in &tallies {
        println!("{world:56} {passed:>7} {:>7} {skipped:>7} {:>7}", failed.len(), minutes(*time));
        for (reason, count) in reasons {
            println!("    skipped {count}: {reason}");
        }
        if *deaths > 0 {
            println!("    the outer Linux died {deaths} times; the remaining tests ran in another");
        }
        for name in again {
            println!("    failed, then passed alone: {name}");
        }
        // Near the end of the output, where a reader of its last lines finds them.
        for name in failed {
            println!("    failed: {}", name.replace('\n', "\n        "));
        }
    }
    for tally in &tallies {
        let slowest = tally.slowest(SLOWEST);
        if !slowest.is_empty() {
            println!("\nslowest of: {}\n{}", tally.world, slowest.join("\n"));
        }
    }
    let sum = |part: fn(&Tally) -> usize| tallies.iter().map(part).sum::<usize>();
    let failed = sum(|tally| tally.failed.len());
    println!("\n{} passed, {failed} failed, {} skipped", sum(|tally| tally.passed), sum(|tally| tally.skipped));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// Runs a cargo command, prints its output as it comes, and counts.
fn tally(world: &str, arguments: &[&str]) -> Result<Tally> {
    println!("== {world}");
    let mut tally = Tally::of(world);
    add(&mut tally, arguments)?;
    Ok(tally)
}

fn add(tally: &mut Tally, arguments: &[&str]) -> Result<()> {
    let mut child = cargo().args(arguments).stdout(Stdio::piped()).spawn().context("cargo")?;
    let output = child.stdout.take().context("cargo's output")?;
    for line in BufReader::new(output).split(b'\n') {
        tally.show(&line.context("cargo's output")?);
    }
    let status = child.wait().context("cargo")?;
    tally.ended(status.success(), &format!("cargo {}: {status}", arguments.join(" ")));
    Ok(())
}

/// The end-to-end tests with this machine's `/dev/kvm`. A few failed tests run again, alone; the table names those that pass then.
fn tally_here() -> Result<Tally> {
    const TESTS: [&str; 3] = ["test", "--package", "coracle-tests"];
    let mut tally = tally("end to end", &[&TESTS[..], &["--no-fail-fast"]].concat())?;
    if tally.may_run_again(MAX_RETRIES) {
        println!("== end to end: the failed tests alone");
        let mut second = Tally::default();
        for name in &tally.failed {
            add(&mut second, &[&TESTS[..], &["--", "--exact", name]].concat())?;
        }
        tally.replace_failures_by(second);
    }
    Ok(tally)
}

/// The same in the nested runner. A fault of QEMU may kill the outer Linux or a guest (`tests/README.md`). Tests without a verdict
/// then run in another outer Linux.
fn tally_nested(selection: Nested) -> Result<Tally> {
    println!("== end to end, nested");
    let mut tally = Tally::of("end to end, nested");
    run_nested(&nested::Options::tests(selection, None), &mut tally);
    let mut before = 0;
    // The first death gets another attempt even without a verdict: an outer Linux that did not start may do so now.
    while tally.died && tally.deaths < MAX_CONTINUATIONS && (tally.verdicts.len() > before || tally.deaths == 0) {
        tally.continue_elsewhere();
        before = tally.verdicts.len();
        println!("== end to end, nested: the remaining tests in another outer Linux");
        run_nested(&nested::Options::tests_without(selection, &tally.verdicts), &mut tally);
    }
    if !tally.may_run_again(MAX_RETRIES) {
        return Ok(tally);
    }
    println!("== end to end, nested: the failed tests alone");
    let alone = || {
        let mut second = Tally::default();
        run_nested(&nested::Options::tests_one_by_one(&tally.failed), &mut second);
        second
    };
    let mut second = alone();
    if second.died {
        second = alone();
    }
    tally.replace_failures_by(second);
    Ok(tally)
}

fn run_nested(options: &nested::Options, tally: &mut Tally) {
    let mut line = Vec::new();
    let outcome = nested::start(options, &mut |bytes| {
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
        Err(error) => tally.died(&format!("the nested runner: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::World;

    #[test]
    fn worlds_are_selected_by_name() {
        assert_eq!(World::choose(&["nested".into(), "unit".into()]).unwrap(), [World::Nested, World::Unit]);
        assert!(World::choose(&["elsewhere".into()]).is_err());
        assert!(World::choose(&[]).unwrap().starts_with(&[World::Unit, World::Here]));
    }
}
