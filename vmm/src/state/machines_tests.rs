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
    begin_with_container_id(base, id, &Status::sample().container_id)
}

fn begin_with_container_id(base: &Path, id: &str, container_id: &str) -> (RunDirectory, Lifecycle) {
    let directory = RunDirectory::claim(base, id, true).unwrap();
    let ProcessId { pid, started } = ProcessId::own();
    let container_id = container_id.into();
    let status = Status { id: id.into(), container_id, pid, pid_started: started, ..Status::sample() };
    let lifecycle = Lifecycle::begin(directory.path(), status, None);
    (directory, lifecycle)
}

#[test]
fn a_machine_is_alive_with_its_process_and_keeps_its_end() {
    let base = tempfile::tempdir().unwrap();
    let (directory, mut lifecycle) = begin(base.path(), "a");
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Reported(State::Starting));
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    drop(directory);
    let machine = MachineInfo::read(base.path(), "a").unwrap();
    assert_eq!(machine.state(), MachineState::Reported(State::Exited));
    assert!(machine.has_ended());
}

#[test]
fn a_killed_machine_is_dead_even_if_its_pid_is_used_again() {
    let base = tempfile::tempdir().unwrap();
    let (directory, mut lifecycle) = begin(base.path(), "a");
    lifecycle.change(|status| (status.state, status.pid_started) = (State::Running, status.pid_started + 1));
    assert!(MachineInfo::read(base.path(), "a").unwrap().is_alive, "the lock is held");
    drop(directory);
    let machine = MachineInfo::read(base.path(), "a").unwrap();
    assert_eq!((machine.state(), machine.has_ended()), (MachineState::Dead, true));
}

#[test]
fn a_machine_without_a_status_is_judged_by_its_lock() {
    let base = tempfile::tempdir().unwrap();
    let directory = RunDirectory::claim(base.path(), "a", true).unwrap();
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Reported(State::Starting));
    drop(directory);
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Dead);
    fs::create_dir(base.path().join("no machine")).unwrap();
    assert!(MachineInfo::read(base.path(), "no machine").is_none());
}

#[test]
fn a_kept_machine_is_found_beside_what_a_killed_process_left() {
    let base = tempfile::tempdir().unwrap();
    let kept = KeptMachines::of(base.path(), &Directories::from_environment()).unwrap().path("a");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("machine.json"), "{}").unwrap();
    drop(RunDirectory::claim(base.path(), "a", true).unwrap());
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Created);
    let (directory, mut lifecycle) = begin(base.path(), "a");
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    drop(directory);
    assert_eq!(MachineInfo::read(base.path(), "a").unwrap().state(), MachineState::Reported(State::Exited));
}

#[test]
fn find_takes_an_unambiguous_beginning_of_a_name() {
    let base = tempfile::tempdir().unwrap();
    let _directories = ["web", "web-2", "data"].map(|id| RunDirectory::claim(base.path(), id, true).unwrap());
    let find = |wanted: &str| find(base.path(), wanted).map(|machine| machine.name);
    assert_eq!(find("web").unwrap(), "web");
    assert_eq!(find("d").unwrap(), "data");
    assert!(matches!(find("we"), Err(FindError::Ambiguous { found, .. }) if found == ["web", "web-2"]));
    for unknown in ["x", "", "webs", "../web"] {
        assert!(matches!(find(unknown), Err(FindError::Unknown(_))), "{unknown}");
    }
}

#[test]
fn find_takes_an_unambiguous_beginning_of_a_container_id() {
    let base = tempfile::tempdir().unwrap();
    let ids = [("web", "a1"), ("data", "a2"), ("a2", "c3")].map(|(name, digits)| (name, digits.repeat(32)));
    let _machines = ids.each_ref().map(|(name, id)| begin_with_container_id(base.path(), name, id));
    let find = |wanted: &str| find(base.path(), wanted).map(|machine| machine.name);
    assert_eq!(find("a1a1").unwrap(), "web");
    assert_eq!(find(&"a2".repeat(32)).unwrap(), "data");
    assert_eq!(find("a2").unwrap(), "a2", "a name comes first");
    assert!(matches!(find("a"), Err(FindError::Ambiguous { found, .. }) if found == ["a2", "data", "web"]));
    let web = MachineInfo::read(base.path(), "web").unwrap();
    assert_eq!(web.short_id(), "a1".repeat(6));
}

#[test]
fn list_reads_five_hundred_machines_in_half_a_second() {
    let base = tempfile::tempdir().unwrap();
    for index in 0..500 {
        drop(begin(base.path(), &format!("machine-{index}")));
    }
    let begin = Instant::now();
    assert_eq!(list(base.path()).unwrap().len(), 500);
    // A generous bound for a loaded machine without optimisation; the goal of the verb is 50 ms.
    assert!(begin.elapsed().as_millis() < 500, "{:?}", begin.elapsed());
}
