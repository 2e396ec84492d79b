// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: credit in both directions, order, and what a PID 1 that cannot be trusted may not do.

use super::*;

fn running() -> (ExecSessions, ExecId) {
    let mut sessions = ExecSessions::default();
    let (id, _) = sessions.start(ExecSpec::default()).unwrap();
    assert_eq!(sessions.hear(id, ExecReport::Started), Ok(Some(ExecNews::Started)));
    (sessions, id)
}

fn output(length: u32) -> ExecReport {
    ExecReport::Output { stderr: false, bytes: vec![b'x'; length as usize] }
}

#[test]
fn a_life_ends_with_the_status_of_the_process() {
    let (mut sessions, id) = running();
    let bytes = b"x".to_vec();
    let news = sessions.hear(id, ExecReport::Output { stderr: true, bytes: bytes.clone() });
    assert_eq!(news, Ok(Some(ExecNews::Output { stderr: true, bytes })));
    let end = ExecEnd::Ended(WorkloadEnd::Exited(7));
    assert_eq!(end.status(), 7);
    assert_eq!(sessions.hear(id, ExecReport::Ended(WorkloadEnd::Exited(7))), Ok(Some(ExecNews::Over(end))));
    assert_eq!(sessions.command(id, ExecCommand::Signal(15)), None, "it is gone");
    assert!(sessions.abandon().is_empty());
}

#[test]
fn statuses_are_those_of_a_shell() {
    let signalled = WorkloadEnd::Signalled { signal: 9, out_of_memory: true };
    assert_eq!(ExecEnd::Ended(signalled).status(), 137);
    assert_eq!(ExecEnd::MachineEnded.status(), 137);
    for (kind, status) in [
        (FailureKind::NotFound, 127),
        (FailureKind::NotExecutable, 126),
        (FailureKind::Configuration, 125),
        (FailureKind::Surroundings, 125),
    ] {
        let mut sessions = ExecSessions::default();
        let (id, _) = sessions.start(ExecSpec::default()).unwrap();
        let report = ExecReport::Failed { kind, step: "execute".into(), detail: "nosuch".into(), errno: 2 };
        let Ok(Some(ExecNews::Over(end))) = sessions.hear(id, report) else { panic!("no end") };
        assert_eq!(end.status(), status);
        assert!(matches!(&end, ExecEnd::Failed { message, .. } if message.contains("nosuch")), "{end:?}");
    }
}

#[test]
fn output_is_credited_only_as_it_is_taken() {
    let (mut sessions, id) = running();
    assert!(sessions.hear(id, output(OUTPUT_WINDOW)).is_ok());
    assert_eq!(sessions.hear(id, output(1)), Err(ExecFault::Credit(id)));
    let (mut sessions, id) = running();
    let _ = sessions.hear(id, output(OUTPUT_WINDOW)).unwrap();
    let credit = |bytes| Some(ToGuest::Exec { id, request: ExecRequest::Credit(bytes) });
    assert_eq!(sessions.command(id, ExecCommand::Taken(1000)), credit(1000));
    assert!(sessions.hear(id, output(1000)).is_ok());
    assert_eq!(sessions.hear(id, output(1)), Err(ExecFault::Credit(id)));
}

#[test]
fn credit_goes_out_in_larger_steps_and_none_is_lost() {
    let (mut sessions, id) = running();
    let mut credited = 0;
    for _ in 0..1000 {
        let _ = sessions.hear(id, output(100)).unwrap();
        if let Some(ToGuest::Exec { request: ExecRequest::Credit(bytes), .. }) =
            sessions.command(id, ExecCommand::Taken(100))
        {
            credited += bytes;
            assert!(bytes > OUTPUT_WINDOW / 4, "{bytes} bytes are not worth a message");
        }
    }
    assert!(credited >= 100_000 - OUTPUT_WINDOW, "{credited}");
}

#[test]
fn input_is_sent_only_as_far_as_it_is_read() {
    let (mut sessions, id) = running();
    assert_eq!(sessions.room(id), INPUT_WINDOW as usize);
    let _ = sessions.command(id, ExecCommand::Input(vec![0; INPUT_WINDOW as usize])).unwrap();
    assert_eq!(sessions.room(id), 0);
    assert_eq!(sessions.hear(id, ExecReport::Credit(10)), Ok(Some(ExecNews::Room)));
    assert_eq!(sessions.room(id), 10);
    assert_eq!(sessions.hear(id, ExecReport::Credit(INPUT_WINDOW)), Err(ExecFault::Credit(id)));
}

#[test]
fn there_is_no_room_for_input_before_the_process_runs() {
    let mut sessions = ExecSessions::default();
    let (id, _) = sessions.start(ExecSpec::default()).unwrap();
    assert_eq!(sessions.room(id), 0);
}

#[test]
fn a_process_that_nobody_attends_is_heard_of_no_more_and_keeps_its_place_until_it_ends() {
    let (mut sessions, id) = running();
    let hang_up = sessions.command(id, ExecCommand::HangUp);
    assert_eq!(hang_up, Some(ToGuest::Exec { id, request: ExecRequest::HangUp }));
    assert_eq!(sessions.hear(id, output(5)), Ok(None));
    assert_eq!(sessions.command(id, ExecCommand::Taken(5)), None);
    assert_eq!(sessions.hear(id, ExecReport::Ended(WorkloadEnd::Exited(0))), Ok(None));
    assert_eq!(sessions.hear(id, output(5)), Err(ExecFault::Unknown(id)));
}

#[test]
fn there_is_a_limit_and_a_place_that_becomes_free_is_given_again() {
    let mut sessions = ExecSessions::default();
    let ids: Vec<_> = (0..MOST).map(|_| sessions.start(ExecSpec::default()).unwrap().0).collect();
    assert_eq!(sessions.start(ExecSpec::default()).unwrap_err(), ExecRefusal::TooMany);
    let _ = sessions.hear(ids[3], ExecReport::Started).unwrap();
    let _ = sessions.hear(ids[3], ExecReport::Ended(WorkloadEnd::Exited(0))).unwrap();
    let (id, _) = sessions.start(ExecSpec::default()).unwrap();
    assert!(!ids.contains(&id), "numbers are not used again");
    assert_eq!(sessions.abandon().len(), MOST);
}

#[test]
fn reports_out_of_turn_are_faults() {
    let (mut sessions, id) = running();
    assert_eq!(sessions.hear(id, ExecReport::Started), Err(ExecFault::OutOfTurn(id)));
    let mut sessions = ExecSessions::default();
    let (id, _) = sessions.start(ExecSpec::default()).unwrap();
    for report in [output(1), ExecReport::Credit(1), ExecReport::Ended(WorkloadEnd::Exited(0))] {
        assert_eq!(sessions.hear(id, report), Err(ExecFault::OutOfTurn(id)));
    }
    assert_eq!(sessions.hear(99, ExecReport::Started), Err(ExecFault::Unknown(99)));
}
