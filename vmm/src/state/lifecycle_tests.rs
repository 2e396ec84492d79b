// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::super::end::EndReason;
use super::*;
use std::fs;

fn read(entry: &Path) -> Status {
    serde_json::from_slice(&fs::read(entry.join(STATUS_FILE)).unwrap()).unwrap()
}

#[test]
fn each_change_is_the_document_and_an_event() {
    let entry = tempfile::tempdir().unwrap();
    let mut lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
    assert_eq!(read(entry.path()).state, State::Starting);
    lifecycle.enter(State::Running, Counters { cpu_vcpu_ns: 9, ..Counters::default() });
    lifecycle.end(&End::killed("power was cut"), Counters::default());
    let last = read(entry.path());
    assert_eq!((last.state, last.sequence, last.counters.cpu_vcpu_ns), (State::Exited, 3, 9), "counters only grow");
    assert_eq!(last.end.unwrap().reason, EndReason::Killed);
    let events = fs::read_to_string(entry.path().join(EVENTS_FILE)).unwrap();
    let events: Vec<Status> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        events.iter().map(|event| event.state).collect::<Vec<_>>(),
        [State::Starting, State::Running, State::Exited]
    );
}

#[test]
fn a_reader_never_sees_half_a_document() {
    let entry = tempfile::tempdir().unwrap();
    let mut lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let now = read(entry.path()).sequence;
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
fn a_failure_of_ours_is_told_from_an_end() {
    let entry = tempfile::tempdir().unwrap();
    let mut lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
    lifecycle.end(&End::failed(EndReason::KernelError, "no kernel"), Counters::default());
    assert_eq!(read(entry.path()).state, State::Failed);
}

#[test]
fn a_folder_that_takes_no_documents_does_not_end_the_run() {
    let entry = tempfile::tempdir().unwrap();
    let gone = entry.path().join("gone");
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
