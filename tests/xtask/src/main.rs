// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands for people who work on coracle: `cargo xtask check|test|nested|bench`.

mod bench;
mod check;
mod nested;
mod repository;
mod suite;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask check [STEP...]  examine the sources; without STEP every step, in this order:
                             format lints sizes readmes spdx versions licences tests
cargo xtask test [WORLD...]  every test, and a table: unit (and documentation) tests, end-to-end tests here, and in the
                             nested runner; without WORLD all three, but nested only where KVM here is not native
cargo xtask nested [--filter NAME] [--memory MIB] [--timeout SECONDS] [-- COMMAND...]
                             the end-to-end tests, or COMMAND, in a Linux in QEMU with emulated SVM;
                             what it leaves in /out comes back as target/nested/out
cargo xtask bench [ROUNDS]   side by side with other monitors in the nested runner: medians of ROUNDS (10) and ratios
                             and what is done to a running machine, next to the goals; BENCH_FIRECRACKER and
                             BENCH_CLOUD_HYPERVISOR (and BENCH_CLOUD_HYPERVISOR_KERNEL) name more monitors
cargo xtask bench side-by-side|verbs [ROUNDS]
                             one of the two on this machine's KVM
cargo xtask bench here [RUNS]
                             time and memory of the release build alone, next to the goals";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        Some(("check", steps)) => check::run(steps),
        Some(("test", worlds)) => suite::run(&suite::World::choose(worlds)?),
        Some(("nested", words)) => nested::run(words),
        Some(("bench", words)) => bench::run(words),
        Some(("help" | "--help" | "-h", _)) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("what shall I do?\n{USAGE}"),
    }
}
