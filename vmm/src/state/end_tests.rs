// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::*;

#[test]
fn reasons_are_spelled_as_in_the_contract() {
    let spelled = [
        (EndReason::Oom, "oom"),
        (EndReason::GuestPoweroff, "guest-poweroff"),
        (EndReason::TripleFault, "triple-fault"),
        (EndReason::KvmError, "kvm-error"),
        (EndReason::SandboxError, "sandbox-error"),
    ];
    for (reason, text) in spelled {
        assert_eq!(serde_json::to_value(reason).unwrap(), text);
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn openapi_json_lists_every_reason() {
    let description: serde_json::Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let listed = &description["components"]["schemas"]["End"]["properties"]["reason"]["enum"];
    assert_eq!(*listed, serde_json::to_value(EndReason::ALL).unwrap());
}

#[test]
fn descriptions_are_sentences() {
    for reason in EndReason::ALL {
        let text = reason.description();
        assert!(text.ends_with('.') && !text.starts_with(' '), "{text}");
    }
}

#[test]
fn a_workload_keeps_its_status_after_a_request_to_stop() {
    let end = End::of_workload(WorkloadEnd::Exited(42), true);
    assert_eq!((end.reason, end.status, end.signal), (EndReason::Stopped, 42, None));
    let end = End::of_workload(WorkloadEnd::Signalled { signal: 15, out_of_memory: false }, true);
    assert_eq!((end.reason, end.status, end.signal), (EndReason::Stopped, 143, Some(15)));
}

#[test]
fn exhausted_memory_is_reported_even_when_stopping() {
    for stopped in [false, true] {
        let end = End::of_workload(WorkloadEnd::Signalled { signal: 9, out_of_memory: true }, stopped);
        assert_eq!((end.reason, end.status), (EndReason::Oom, 137));
    }
}

#[test]
fn exhausted_memory_is_reported_with_its_size_and_option() {
    let memory = "192m".parse().unwrap();
    let oom = End::of_workload(WorkloadEnd::Signalled { signal: 9, out_of_memory: true }, false).with_memory(memory);
    assert_eq!(oom.summary(), "out of memory: the machine has 192m; --memory gives more");
    assert!(oom.is_printed());
    let killed = End::of_workload(WorkloadEnd::Signalled { signal: 9, out_of_memory: false }, false);
    assert_eq!(killed.clone().with_memory(memory), killed);
}

#[test]
fn commands_that_cannot_run_have_the_statuses_of_a_shell() {
    let status = |kind| End::of_failure(kind, "execute", "/x", 2).status;
    assert_eq!(status(FailureKind::NotFound), 127);
    assert_eq!(status(FailureKind::NotExecutable), 126);
    assert_eq!(status(FailureKind::Configuration), 125);
    assert_eq!(status(FailureKind::Setup), 125);
    assert_eq!(status(FailureKind::Network), 125);
    assert_eq!(End::of_failure(FailureKind::Network, "", "", 0).reason, EndReason::NetworkError);
}

#[test]
fn failures_are_told_from_ends_of_the_workload() {
    let failed = |reason| End::failed(reason, "why").is_failure();
    assert!(failed(EndReason::GuestReset) && failed(EndReason::GuestPanic) && failed(EndReason::ConfigError));
    for end in [
        End::of_workload(WorkloadEnd::Reboot, false),
        End::of_workload(WorkloadEnd::Exited(125), false),
        End::killed("power was cut"),
        End::timeout(Duration::from_secs(1)),
        End::signalled_before_workload(15),
    ] {
        assert!(!end.is_failure(), "{end:?}");
    }
}

#[test]
fn detail_has_no_control_characters_and_is_bounded() {
    let end = End::of_failure(FailureKind::Setup, "mount", &format!("\x1b[2Jroot\n{}", "x".repeat(5000)), 0);
    assert!(!end.detail.contains(char::is_control));
    assert_eq!(end.detail.chars().count(), MAX_DETAIL_CHARACTERS);
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
fn an_unexpected_reset_after_an_error_of_pid_1_is_that_error() {
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
fn detail_of_a_panic_is_bounded_and_printable() {
    let tail = format!("Kernel panic - \x1b[2J{}\n\n{}", "x".repeat(5000), "[ 1.0] \x07line\n".repeat(1000));
    let end = End::of_machine(&ExitReason::Reset).with_console(&tail);
    assert_eq!(end.detail.lines().count(), 1 + MAX_PANIC_LINES);
    assert!(!end.detail.contains(|c: char| c.is_control() && c != '\n'));
    assert!(end.detail.len() < (1 + MAX_PANIC_LINES) * (MAX_DETAIL_CHARACTERS + 1));
}
