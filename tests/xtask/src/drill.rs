// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask drill`: what threads that were taken over can do, on this machine's KVM, as a table.

use anyhow::{Result, ensure};
use coracle_tests::drill::{Drill, THREADS, User, attempts};
use std::process::ExitCode;

/// That a host without the sandbox allows to root.
const MIN_ATTEMPTS: usize = 60;

pub(crate) fn run() -> Result<ExitCode> {
    ensure!(rustix::process::geteuid().is_root(), "the drill needs root, to trace threads and to change users");
    let mut failures = Vec::new();
    for user in User::ALL {
        let drill = Drill::new(user);
        let possible = drill.possible(attempts());
        println!("as {}: {} of {} attempts succeed without the sandbox", user.name(), possible.len(), attempts().len());
        let missing: Vec<_> = attempts().iter().map(|attempt| attempt.name).collect();
        let missing = missing.into_iter().filter(|name| possible.iter().all(|attempt| attempt.name != *name));
        println!("  not on this host: {}", missing.collect::<Vec<_>>().join(", "));
        println!("  {:<12}{:>10}{:>12}{:>14}{:>10}", "thread", "by filter", "otherwise", "not promised", "others");
        for thread in THREADS {
            let report = drill.attack(thread, &possible);
            let (by_filter, by_error) = (report.by_filter, report.by_error);
            let (not_promised, others) = (report.not_promised.len(), report.failures.len());
            println!("  {thread:<12}{by_filter:>10}{by_error:>12}{not_promised:>14}{others:>10}");
            failures.extend(report.failures.iter().map(|failure| format!("as {}: {failure}", user.name())));
            for name in report.not_promised {
                println!("    not promised: {name}");
            }
        }
        if user == User::Root && possible.len() < MIN_ATTEMPTS {
            failures.push(format!("only {} attempts succeed without the sandbox", possible.len()));
        }
    }
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
