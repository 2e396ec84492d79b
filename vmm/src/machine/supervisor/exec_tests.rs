// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: credit in both directions, order of reports, protocol faults of PID 1.

use super::*;
use guest_protocol::exec::OUTPUT_OVERHEAD;

fn running() -> (Execs, ExecId) {
    let mut execs = Execs::default();
    let (id, _) = execs.start(ExecSpec::default()).unwrap();
    assert_eq!(execs.on_report(id, ExecReport::Started), Ok(Some(ExecEvent::Started)));
    (execs, id)
}

/// Output that costs `cost`.
fn output(cost: u32) -> ExecReport {
    ExecReport::Output { stderr: false, bytes: vec![b'x'; (cost - OUTPUT_OVERHEAD) as usize] }
}

#[test]
fn exec_ends_with_the_status_of_the_process() {
    let (mut execs, id) = running();
    let bytes = b"x".to_vec();
    let event = execs.on_report(id, ExecReport::Output { stderr: true, bytes: bytes.clone() });
    assert_eq!(event, Ok(Some(ExecEvent::Output { stderr: true, bytes })));
    let end = ExecEnd::Exited(WorkloadEnd::Exited(7));
    assert_eq!(end.status(), 7);
    assert_eq!(execs.on_report(id, ExecReport::Ended(WorkloadEnd::Exited(7))), Ok(Some(ExecEvent::Ended(end))));
    assert_eq!(execs.command(id, ExecCommand::Signal(15)), None, "it is gone");
    assert!(execs.abandon().is_empty());
}

#[test]
fn exec_status_is_that_of_a_shell() {
    let signalled = WorkloadEnd::Signalled { signal: 9, out_of_memory: true };
    assert_eq!(ExecEnd::Exited(signalled).status(), 137);
    assert_eq!(ExecEnd::MachineEnded.status(), 137);
    for (kind, status) in [
        (FailureKind::NotFound, 127),
        (FailureKind::NotExecutable, 126),
        (FailureKind::Configuration, 125),
        (FailureKind::Setup, 125),
    ] {
        let mut execs = Execs::default();
        let (id, _) = execs.start(ExecSpec::default()).unwrap();
        let report = ExecReport::Failed { kind, step: "execute".into(), detail: "nosuch".into(), errno: 2 };
        let Ok(Some(ExecEvent::Ended(end))) = execs.on_report(id, report) else { panic!("no end") };
        assert_eq!(end.status(), status);
        assert!(matches!(&end, ExecEnd::Failed { message, .. } if message.contains("nosuch")), "{end:?}");
    }
}

#[test]
fn output_is_credited_only_as_it_is_taken() {
    let (mut execs, id) = running();
    assert!(execs.on_report(id, output(OUTPUT_WINDOW)).is_ok());
    assert_eq!(execs.on_report(id, output(9)), Err(ExecFault::Credit(id)));
    let (mut execs, id) = running();
    let _ = execs.on_report(id, output(OUTPUT_WINDOW)).unwrap();
    let credit = |bytes| Some(ToGuest::Exec { id, request: ExecRequest::Credit(bytes) });
    assert_eq!(execs.command(id, ExecCommand::Taken(1000)), credit(1000));
    assert!(execs.on_report(id, output(1000)).is_ok());
    assert_eq!(execs.on_report(id, output(9)), Err(ExecFault::Credit(id)));
}

#[test]
fn credit_is_sent_in_larger_steps_and_none_is_lost() {
    let (mut execs, id) = running();
    let mut credited = 0;
    for _ in 0..1000 {
        let _ = execs.on_report(id, output(100)).unwrap();
        if let Some(ToGuest::Exec { request: ExecRequest::Credit(bytes), .. }) =
            execs.command(id, ExecCommand::Taken(100))
        {
            credited += bytes;
            assert!(bytes > OUTPUT_WINDOW / 4, "a message for {bytes} bytes");
        }
    }
    assert!(credited >= 100_000 - OUTPUT_WINDOW, "{credited}");
}

#[test]
fn input_is_bounded_by_credit() {
    let (mut execs, id) = running();
    assert_eq!(execs.room(id), INPUT_WINDOW as usize);
    let _ = execs.command(id, ExecCommand::Input(vec![0; INPUT_WINDOW as usize])).unwrap();
    assert_eq!(execs.room(id), 0);
    assert_eq!(execs.on_report(id, ExecReport::Credit(10)), Ok(Some(ExecEvent::Room)));
    assert_eq!(execs.room(id), 10);
    assert_eq!(execs.on_report(id, ExecReport::Credit(INPUT_WINDOW)), Err(ExecFault::Credit(id)));
}

#[test]
fn exec_takes_no_input_before_it_runs() {
    let mut execs = Execs::default();
    let (id, _) = execs.start(ExecSpec::default()).unwrap();
    assert_eq!(execs.room(id), 0);
}

#[test]
fn unattended_exec_is_silent_and_counts_until_it_ends() {
    let (mut execs, id) = running();
    let hang_up = execs.command(id, ExecCommand::HangUp);
    assert_eq!(hang_up, Some(ToGuest::Exec { id, request: ExecRequest::HangUp }));
    assert_eq!(execs.on_report(id, output(13)), Ok(None));
    assert_eq!(execs.command(id, ExecCommand::Taken(13)), None);
    assert_eq!(execs.on_report(id, ExecReport::Ended(WorkloadEnd::Exited(0))), Ok(None));
    assert_eq!(execs.on_report(id, output(13)), Err(ExecFault::Unknown(id)));
}

#[test]
fn exec_limit_counts_only_processes_that_run() {
    let mut execs = Execs::default();
    let ids: Vec<_> = (0..MAX_PROCESSES).map(|_| execs.start(ExecSpec::default()).unwrap().0).collect();
    assert_eq!(execs.start(ExecSpec::default()).unwrap_err(), ExecError::TooMany);
    let _ = execs.on_report(ids[3], ExecReport::Started).unwrap();
    let _ = execs.on_report(ids[3], ExecReport::Ended(WorkloadEnd::Exited(0))).unwrap();
    let (id, _) = execs.start(ExecSpec::default()).unwrap();
    assert!(!ids.contains(&id), "numbers are not reused");
    assert_eq!(execs.abandon().len(), MAX_PROCESSES);
}

#[test]
fn reports_out_of_order_are_faults() {
    let (mut execs, id) = running();
    assert_eq!(execs.on_report(id, ExecReport::Started), Err(ExecFault::OutOfOrder(id)));
    let mut execs = Execs::default();
    let (id, _) = execs.start(ExecSpec::default()).unwrap();
    for report in [output(9), ExecReport::Credit(1), ExecReport::Ended(WorkloadEnd::Exited(0))] {
        assert_eq!(execs.on_report(id, report), Err(ExecFault::OutOfOrder(id)));
    }
    assert_eq!(execs.on_report(99, ExecReport::Started), Err(ExecFault::Unknown(99)));
}

#[test]
fn output_without_bytes_is_a_fault() {
    let (mut execs, id) = running();
    assert_eq!(execs.on_report(id, output(OUTPUT_OVERHEAD)), Err(ExecFault::Empty(id)));
}

#[test]
fn short_output_is_bounded_by_the_cost_of_its_frames() {
    let (mut execs, id) = running();
    let frames = (0..).take_while(|_| execs.on_report(id, output(9)).is_ok()).count();
    assert_eq!(frames, (OUTPUT_WINDOW / 9) as usize);
}
