// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;

#[test]
fn reasons_are_written_as_the_contract_spells_them() {
    let spelled = [
        (EndReason::Oom, "oom"),
        (EndReason::GuestPoweroff, "guest-poweroff"),
        (EndReason::TripleFault, "triple-fault"),
        (EndReason::KvmError, "kvm-error"),
        (EndReason::SnapshotError, "snapshot-error"),
    ];
    for (reason, text) in spelled {
        assert_eq!(serde_json::to_value(reason).unwrap(), text);
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn a_workload_keeps_its_status_when_it_was_asked_to_stop() {
    let end = End::of_workload(WorkloadEnd::Exited(42), true);
    assert_eq!((end.reason, end.status, end.signal), (EndReason::Stopped, 42, None));
    let end = End::of_workload(WorkloadEnd::Signalled { signal: 15, out_of_memory: false }, true);
    assert_eq!((end.reason, end.status, end.signal), (EndReason::Stopped, 143, Some(15)));
}

#[test]
fn want_of_memory_is_told_even_when_stopping() {
    for stopped in [false, true] {
        let end = End::of_workload(WorkloadEnd::Signalled { signal: 9, out_of_memory: true }, stopped);
        assert_eq!((end.reason, end.status), (EndReason::Oom, 137));
    }
}

#[test]
fn commands_that_cannot_run_have_the_statuses_of_a_shell() {
    let status = |kind| End::of_failure(kind, "execute", "/x", 2).status;
    assert_eq!(status(FailureKind::NotFound), 127);
    assert_eq!(status(FailureKind::NotExecutable), 126);
    assert_eq!(status(FailureKind::Configuration), 125);
    assert_eq!(status(FailureKind::Surroundings), 125);
}

#[test]
fn what_the_guest_says_cannot_steer_the_terminal() {
    let end = End::of_failure(FailureKind::Surroundings, "mount", &format!("\x1b[2Jroot\n{}", "x".repeat(5000)), 0);
    assert!(!end.detail.contains(char::is_control));
    assert_eq!(end.detail.chars().count(), DETAIL_CHARACTERS);
}

#[test]
fn an_unexpected_reset_after_a_panic_is_a_panic() {
    let tail = "[ 1.0] a\n[    1.234567] Kernel panic - not syncing: No working init found.\n[ 1.3] Rebooting";
    let reset = End::of_machine(&ExitReason::Reset);
    let end = reset.clone().with_console(tail);
    assert_eq!(end.reason, EndReason::GuestPanic);
    assert_eq!(end.summary(), "Kernel panic - not syncing: No working init found.");
    assert!(end.detail.ends_with("\n[ 1.3] Rebooting"), "{}", end.detail);
    assert_eq!(reset.clone().with_console("[ 1.0] all is well"), reset);
}

#[test]
fn an_unexpected_reset_after_a_last_word_of_pid_1_is_what_it_says() {
    let tail = "[ 1.0] a\n[    1.234567] coracle-init: load module: virtio_mmio (errno 8)\n";
    let end = End::of_machine(&ExitReason::Reset).with_console(tail);
    let detail = "coracle-init: load module: virtio_mmio (errno 8)";
    assert_eq!((end.reason, end.status, &*end.detail), (EndReason::HostError, 125, detail));
}

#[test]
fn a_workload_that_prints_of_panics_and_exits_has_exited() {
    let end = End::of_workload(WorkloadEnd::Exited(3), false);
    assert_eq!(end.clone().with_console("Kernel panic - just joking"), end);
}

#[test]
fn the_detail_of_a_panic_holds_no_more_than_some_lines_and_nothing_that_steers_a_terminal() {
    let tail = format!("Kernel panic - \x1b[2J{}\n\n{}", "x".repeat(5000), "[ 1.0] \x07line\n".repeat(1000));
    let end = End::of_machine(&ExitReason::Reset).with_console(&tail);
    assert_eq!(end.detail.lines().count(), 1 + PANIC_LINES);
    assert!(!end.detail.contains(|c: char| c.is_control() && c != '\n'));
    assert!(end.detail.len() < (1 + PANIC_LINES) * (DETAIL_CHARACTERS + 1));
}
