// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::super::counters::Counters;
use super::super::end::End;
use super::super::lifecycle::Lifecycle;
use super::super::run_dir::RunDirectory;
use super::*;
use crate::host::process::ProcessId;
use std::time::Instant;

fn begin(base: &Path, id: &str) -> (RunDirectory, Lifecycle) {
    let run = RunDirectory::claim(base, id, true).unwrap();
    let ProcessId { pid, started } = ProcessId::own();
    let status = Status { id: id.into(), pid, pid_started: started, ..Status::sample() };
    let lifecycle = Lifecycle::begin(run.path(), status, None);
    (run, lifecycle)
}

#[test]
fn an_entry_lives_with_its_process_and_keeps_its_end() {
    let base = tempfile::tempdir().unwrap();
    let (run, mut lifecycle) = begin(base.path(), "a");
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Reported(State::Starting));
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    drop(run);
    let entry = MachineInfo::read(base.path(), "a").unwrap();
    assert_eq!(entry.state(), MachineState::Reported(State::Exited));
    assert!(entry.has_ended());
}

#[test]
fn a_process_that_was_killed_leaves_a_dead_entry_even_if_its_number_is_used_again() {
    let base = tempfile::tempdir().unwrap();
    let (run, mut lifecycle) = begin(base.path(), "a");
    lifecycle.change(|status| (status.state, status.pid_started) = (State::Running, status.pid_started + 1));
    assert!(MachineInfo::read(base.path(), "a").unwrap().is_alive, "the lock is held");
    drop(run);
    let entry = MachineInfo::read(base.path(), "a").unwrap();
    assert_eq!((entry.state(), entry.has_ended()), (MachineState::Dead, true));
}

#[test]
fn an_entry_without_a_status_is_judged_by_its_lock() {
    let base = tempfile::tempdir().unwrap();
    let run = RunDirectory::claim(base.path(), "a", true).unwrap();
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Reported(State::Starting));
    drop(run);
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Dead);
    fs::create_dir(base.path().join("no entry")).unwrap();
    assert!(MachineInfo::read(base.path(), "no entry").is_none());
}

#[test]
fn a_name_may_be_shortened_as_long_as_it_is_clear() {
    let base = tempfile::tempdir().unwrap();
    let _runs = ["web", "web-2", "data"].map(|id| RunDirectory::claim(base.path(), id, true).unwrap());
    let find = |wanted: &str| find(base.path(), wanted).map(|machine| machine.name);
    assert_eq!(find("web").unwrap(), "web");
    assert_eq!(find("d").unwrap(), "data");
    assert!(matches!(find("we"), Err(FindError::Ambiguous { found, .. }) if found == ["web", "web-2"]));
    for unknown in ["x", "", "webs", "../web"] {
        assert!(matches!(find(unknown), Err(FindError::Unknown(_))), "{unknown}");
    }
}

#[test]
fn five_hundred_entries_are_listed_at_once() {
    let base = tempfile::tempdir().unwrap();
    for index in 0..500 {
        drop(begin(base.path(), &format!("machine-{index}")));
    }
    let begin = Instant::now();
    assert_eq!(list(base.path()).unwrap().len(), 500);
    // A generous bound for a loaded machine without optimisation; the goal of the verb is 50 ms.
    assert!(begin.elapsed().as_millis() < 500, "{:?}", begin.elapsed());
}
