// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Short forms of the campaigns. `cargo xtask campaign` has the long ones.

use coracle_tests::campaign::{Report, blocks, faults, kill, machines};
use coracle_tests::{Case, case};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], killed_runs_leave_nothing),
        case!(Quick[Kvm], failing_system_calls_end_runs_with_a_reason),
        case!(Quick[Kvm], errors_of_a_disk_are_seen_by_the_guest),
        case!(Quick[Kvm], memory_of_monitors_does_not_grow),
    ]
}

fn assert_no_failure(report: &Report) {
    let failures: Vec<_> =
        report.failures.iter().map(|failure| format!("{}: {}", failure.repeat, failure.what)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn killed_runs_leave_nothing() {
    assert_no_failure(&kill(10, RandomState::new().hash_one(0)));
}

fn failing_system_calls_end_runs_with_a_reason() {
    assert_no_failure(&faults(10, RandomState::new().hash_one(0), None));
}

fn errors_of_a_disk_are_seen_by_the_guest() {
    assert_no_failure(&blocks(200));
}

fn memory_of_monitors_does_not_grow() {
    assert_no_failure(&machines(2, Duration::from_secs(12)));
}
