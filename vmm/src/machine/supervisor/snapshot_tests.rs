// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::super::tests::{receive, running, settings, started};
use super::super::{Event, Settings};
use super::*;
use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec};
use guest_protocol::identity::TemplateStart;
use guest_protocol::protocol::ToHost;
use guest_protocol::run_spec::RunSpec;

/// What the actions send to PID 1.
pub(in crate::machine::supervisor) fn messages(actions: &[Action]) -> Vec<ToGuest> {
    let mut reader = guest_protocol::protocol::FrameReader::new(guest_protocol::protocol::MAX_TO_GUEST);
    actions.iter().for_each(|action| {
        if let Action::Send(frame) = action {
            reader.push(frame);
        }
    });
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

fn restoring(state: SupervisorState) -> (Supervisor, Vec<Action>) {
    let restored = Restored { identity: Identity { hostname: "copy".into(), ..Identity::default() }, state };
    let mut supervisor = Supervisor::new(Settings { restored: Some(restored), ..settings() });
    let actions = supervisor.start(SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    (supervisor, actions)
}

#[test]
fn frozen_is_reported_once_and_only_when_asked() {
    let mut supervisor = running();
    assert_eq!(messages(&supervisor.freeze().unwrap()), [ToGuest::Freeze]);
    assert_eq!(supervisor.freeze(), None);
    assert_eq!(receive(&mut supervisor, &ToHost::Frozen), [Action::Frozen(Ok(()))]);
    let unasked = receive(&mut supervisor, &ToHost::Frozen);
    assert!(matches!(unasked.last(), Some(Action::End(_))), "{unasked:?}");
}

#[test]
fn late_answer_lets_the_processes_run_on() {
    let mut supervisor = running();
    assert!(supervisor.freeze().is_some());
    let expired = supervisor.on(Event::Timer(TimerKind::Freeze));
    assert!(matches!(&expired[..], [Action::Frozen(Err(_))]), "{expired:?}");
    assert_eq!(supervisor.freeze(), None);
    assert_eq!(messages(&receive(&mut supervisor, &ToHost::Frozen)), [ToGuest::Thaw]);
    assert!(supervisor.freeze().is_some());
}

#[test]
fn copy_gets_its_identity_and_the_time_before_anything_else() {
    let (mut supervisor, actions) = restoring(SupervisorState { ready: true, ..SupervisorState::default() });
    let identity = Identity { hostname: "copy".into(), realtime_ns: 5_000_000_000, ..Identity::default() };
    assert_eq!(messages(&actions), [ToGuest::Restored(identity)]);
    assert_eq!(supervisor.on(Event::StdinEnded { bytes: 7 }), []);
    let resumed = receive(&mut supervisor, &ToHost::Resumed);
    assert!(resumed.contains(&Action::Ready) && resumed.contains(&Action::StageReached(Stage::WorkloadExecuted)));
    assert_eq!(messages(&resumed), [ToGuest::StdinEnd { bytes: 7 }]);
}

#[test]
fn copy_hangs_up_processes_whose_clients_are_elsewhere() {
    let mut original = running();
    let (id, _) = original.exec(ExecSpec::default()).unwrap();
    receive(&mut original, &ToHost::Exec { id, report: ExecReport::Started });
    let (mut copy, _) = restoring(original.save());
    let resumed = receive(&mut copy, &ToHost::Resumed);
    assert_eq!(messages(&resumed), [ToGuest::Exec { id, request: ExecRequest::HangUp }]);
    let (next, _) = copy.exec(ExecSpec::default()).unwrap();
    assert!(next > id);
}

#[test]
fn copy_becomes_ready_by_what_its_original_waits_for() {
    let readiness = Readiness::Listening { ports: vec![80], or_idle: false };
    let mut original = started(Settings { spec: RunSpec { readiness, ..settings().spec }, ..settings() });
    receive(&mut original, &ToHost::Running);
    let (mut copy, _) = restoring(original.save());
    assert!(!receive(&mut copy, &ToHost::Resumed).contains(&Action::Ready));
    assert_eq!(receive(&mut copy, &ToHost::Ready), [Action::Ready]);
}

#[test]
fn copy_without_an_answer_ends() {
    let (mut supervisor, _) = restoring(SupervisorState::default());
    let expired = supervisor.on(Event::Timer(TimerKind::Freeze));
    assert!(matches!(expired.last(), Some(Action::End(_))), "{expired:?}");
}

#[test]
fn machine_from_a_template_gets_its_own_before_its_specification() {
    let own = TemplateStart { disk_sectors: vec![8, 16], macs: vec![[2; 6]], ..TemplateStart::default() };
    let settings = Settings { template: Some(own.clone()), ..settings() };
    let spec = settings.spec.clone();
    let mut supervisor = Supervisor::new(settings);
    let actions = supervisor.start(SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    let own = TemplateStart { realtime_ns: 5_000_000_000, ..own };
    assert_eq!(messages(&actions), [ToGuest::TemplateStart(own), ToGuest::Spec(spec)]);
    assert!(actions.contains(&Action::StageReached(Stage::InitStarted)));
    // The template's machine has sent it.
    let again = receive(&mut supervisor, &ToHost::Hello { version: guest_protocol::protocol::VERSION });
    assert!(matches!(again.last(), Some(Action::End(_))), "{again:?}");
}
