// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::super::end::EndReason;
use super::*;
use std::fs;

fn read(directory: &Path) -> Status {
    serde_json::from_slice(&fs::read(directory.join(STATUS_FILE)).unwrap()).unwrap()
}

#[test]
fn each_change_updates_the_document_and_is_an_event() {
    let directory = tempfile::tempdir().unwrap();
    let mut lifecycle = Lifecycle::begin(directory.path(), Status::sample(), None);
    assert_eq!(read(directory.path()).state, State::Starting);
    lifecycle.enter(State::Running, Counters { cpu_vcpu_ns: 9, ..Counters::default() });
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    let last = read(directory.path());
    assert_eq!((last.state, last.sequence, last.counters.cpu_vcpu_ns), (State::Exited, 3, 9), "counters only grow");
    assert_eq!(last.end.unwrap().reason, EndReason::Killed);
    let events = fs::read_to_string(directory.path().join(EVENTS_FILE)).unwrap();
    let events: Vec<Status> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        events.iter().map(|event| event.state).collect::<Vec<_>>(),
        [State::Starting, State::Running, State::Exited]
    );
}

#[test]
fn readers_never_see_a_partial_document() {
    let directory = tempfile::tempdir().unwrap();
    let mut lifecycle = Lifecycle::begin(directory.path(), Status::sample(), None);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let now = read(directory.path()).sequence;
                assert!(now >= last);
                last = now;
            }
        });
        for index in 0..500 {
            lifecycle.change(|status| status.command = vec!["x".repeat(index)]);
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        reader.join().unwrap();
    });
}

#[test]
fn a_failure_is_a_state_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut lifecycle = Lifecycle::begin(directory.path(), Status::sample(), None);
    lifecycle.end(&End::failed(EndReason::KernelError, "no kernel"), Counters::default());
    assert_eq!(read(directory.path()).state, State::Failed);
}

#[test]
fn a_directory_that_cannot_be_written_does_not_end_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    let mut lifecycle = Lifecycle::begin(&gone, Status::sample(), None);
    lifecycle.enter(State::Running, Counters::default());
    assert_eq!(lifecycle.status().state, State::Running);
}

#[test]
fn ports_are_ordered_by_number_and_bounded() {
    let exposed = ["8080/tcp", "53/udp", "443", "53/tcp", "9000-9010/tcp"].map(str::to_owned);
    assert_eq!(ports(&exposed), ["53/tcp", "53/udp", "443/tcp", "8080/tcp", "9000-9010/tcp"]);
    let many: Vec<String> = (1..=1000).map(|port| format!("{port}/tcp")).collect();
    assert_eq!(ports(&many).len(), MAX_PORTS);
}
