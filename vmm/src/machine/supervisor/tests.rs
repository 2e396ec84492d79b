// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: the contract's table of signals, stops and kills, the order of a run,
//! protocol faults.

use super::exec::ExecCommand;
use super::report::{HEALTH_INTERVAL, NOTIFICATION_INTERVAL};
use super::stop::{MAX_KEPT_SIGNALS, SIGINT, SIGTERM};
use super::*;
use guest_protocol::exec::{ExecReport, ExecRequest};
use guest_protocol::protocol::FailureKind;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const USR1: i32 = 10;
const USR2: u8 = 12;
const TERM: i32 = 15;
const INT: i32 = 2;
const STOP: Event<'_> = Event::Stop { grace: None, signal: None };

pub(super) fn settings() -> Settings {
    let spec = RunSpec { arguments: vec!["true".into()], ..RunSpec::default() };
    Settings {
        spec,
        stop_signal: SIGTERM,
        stop_timeout: STOP_TIMEOUT,
        forwards_stops: false,
        timeout: None,
        terminal: false,
        memory: "128m".parse().unwrap(),
        restored: None,
        template: None,
    }
}

pub(super) fn receive(supervisor: &mut Supervisor, message: &ToHost) -> Vec<Action> {
    supervisor.on(Event::ControlBytes(&encode(message)))
}

fn booting() -> Supervisor {
    Supervisor::new(settings())
}

pub(super) fn started(settings: Settings) -> Supervisor {
    let mut supervisor = Supervisor::new(settings);
    let _ = receive(&mut supervisor, &ToHost::Hello { version: protocol::VERSION });
    supervisor
}

fn running_with(settings: Settings) -> Supervisor {
    let mut supervisor = started(settings);
    let _ = receive(&mut supervisor, &ToHost::Running);
    supervisor
}

pub(super) fn running() -> Supervisor {
    running_with(settings())
}

fn draining() -> Supervisor {
    let mut supervisor = running();
    let actions = receive(&mut supervisor, &ended(WorkloadEnd::Exited(7), 1, 0));
    assert_eq!(actions, [Action::AwaitOutput { stdout: 1, stderr: 0 }]);
    supervisor
}

fn ended(end: WorkloadEnd, stdout_bytes: u64, stderr_bytes: u64) -> ToHost {
    ToHost::Ended { end, stdout_bytes, stderr_bytes }
}

fn sent(message: ToGuest) -> Action {
    Action::Send(encode(&message))
}

/// The end among the actions, and whether power was cut before it.
pub(super) fn end_of(actions: &[Action]) -> (End, bool) {
    let Some(Action::End(end)) = actions.last() else { panic!("no end in {actions:?}") };
    (end.clone(), actions.contains(&Action::PowerOff))
}

#[test]
fn undisturbed_run_ends_with_the_workloads_status() {
    let mut supervisor = booting();
    assert_eq!(supervisor.start(SystemTime::UNIX_EPOCH), []);
    let hello = receive(&mut supervisor, &ToHost::Hello { version: protocol::VERSION });
    assert_eq!(hello, [Action::StageReached(Stage::InitStarted), sent(ToGuest::Spec(settings().spec))]);
    let running = receive(&mut supervisor, &ToHost::Running);
    assert_eq!(running, [Action::Ready, Action::StageReached(Stage::WorkloadExecuted)]);
    let draining = receive(&mut supervisor, &ended(WorkloadEnd::Exited(7), 3, 2));
    assert_eq!(draining, [Action::AwaitOutput { stdout: 3, stderr: 2 }]);
    assert_eq!(supervisor.on(Event::OutputWritten { stdout: 3, stderr: 1 }), []);
    let (end, power_cut) = end_of(&supervisor.on(Event::OutputWritten { stdout: 3, stderr: 2 }));
    assert_eq!((end.reason, end.status, power_cut), (EndReason::Exited, 7, true));
    assert_eq!(supervisor.on(Event::HostSignal(TERM)), [], "nothing follows the end");
}

#[test]
fn frames_arrive_in_any_pieces() {
    let mut supervisor = booting();
    let mut bytes = encode(&ToHost::Hello { version: protocol::VERSION });
    bytes.extend(encode(&ToHost::Running));
    let actions: Vec<Action> =
        bytes.iter().flat_map(|byte| supervisor.on(Event::ControlBytes(std::slice::from_ref(byte)))).collect();
    assert_eq!(actions.last(), Some(&Action::StageReached(Stage::WorkloadExecuted)));
    assert_eq!(actions.len(), 4);
}

#[test]
fn signal_before_the_workload_ends_with_its_status() {
    for (signal, status) in [(TERM, 143), (INT, 130), (1, 129), (3, 131)] {
        for mut supervisor in [booting(), started(settings())] {
            let (end, power_cut) = end_of(&supervisor.on(Event::HostSignal(signal)));
            assert_eq!((end.reason, end.status, power_cut), (EndReason::Stopped, status, true));
        }
    }
}

#[test]
fn term_sends_the_stop_signal_and_keeps_the_workloads_status() {
    let mut supervisor = running_with(Settings { stop_signal: USR2, ..settings() });
    let actions = supervisor.on(Event::HostSignal(TERM));
    assert_eq!(
        actions,
        [Action::Stopping, sent(ToGuest::Signal(USR2)), Action::SetTimer(TimerKind::Stop, STOP_TIMEOUT)]
    );
    let (end, power_cut) = end_of(&receive(&mut supervisor, &ended(WorkloadEnd::Exited(42), 0, 0)));
    assert_eq!((end.reason, end.status, power_cut), (EndReason::Stopped, 42, true));
}

#[test]
fn second_term_and_stop_timeout_cut_the_power() {
    for second in [Event::HostSignal(TERM), Event::Timer(TimerKind::Stop)] {
        let mut supervisor = running();
        let _ = supervisor.on(Event::HostSignal(TERM));
        let (end, power_cut) = end_of(&supervisor.on(second));
        assert_eq!((end.reason, end.status, power_cut), (EndReason::Killed, 137, true));
    }
}

#[test]
fn first_term_kills_with_a_stop_timeout_of_zero() {
    let mut supervisor = running_with(Settings { stop_timeout: Duration::ZERO, ..settings() });
    assert_eq!(end_of(&supervisor.on(Event::HostSignal(TERM))).0.reason, EndReason::Killed);
}

#[test]
fn second_int_acts_like_term() {
    let mut supervisor = running();
    assert_eq!(supervisor.on(Event::HostSignal(INT)), [sent(ToGuest::Signal(SIGINT))]);
    let actions = supervisor.on(Event::HostSignal(INT));
    assert_eq!(
        actions,
        [Action::Stopping, sent(ToGuest::Signal(SIGTERM)), Action::SetTimer(TimerKind::Stop, STOP_TIMEOUT)]
    );
    assert_eq!(end_of(&supervisor.on(Event::HostSignal(INT))).0.reason, EndReason::Killed);
}

#[test]
fn term_and_int_are_like_others_where_an_engine_decides_about_stops() {
    let mut supervisor = running_with(Settings { forwards_stops: true, ..settings() });
    for (signal, number) in [(TERM, SIGTERM), (INT, SIGINT), (TERM, SIGTERM), (INT, SIGINT)] {
        assert_eq!(supervisor.on(Event::HostSignal(signal)), [sent(ToGuest::Signal(number))]);
    }
}

#[test]
fn first_int_is_not_a_request_to_stop() {
    let mut supervisor = running();
    let _ = supervisor.on(Event::HostSignal(INT));
    assert_eq!(end_of(&receive(&mut supervisor, &ended(WorkloadEnd::Exited(3), 0, 0))).0.reason, EndReason::Exited);
}

#[test]
fn every_other_signal_but_kill_and_stop_is_forwarded() {
    let mut supervisor = running();
    for signal in (1..=64_u8).filter(|signal| ![2, 9, 15, 19].contains(signal)) {
        assert_eq!(supervisor.on(Event::HostSignal(signal.into())), [sent(ToGuest::Signal(signal))]);
    }
    for signal in [0, 9, 19, 65, 255, -1, 1000] {
        assert_eq!(supervisor.on(Event::HostSignal(signal)), []);
    }
}

#[test]
fn early_signals_are_kept_as_pending_ones_are() {
    let mut supervisor = started(settings());
    for signal in [17, 64, 17, 64, 18].into_iter().chain([40; 1000]) {
        assert_eq!(supervisor.on(Event::HostSignal(signal)), []);
    }
    let running = receive(&mut supervisor, &ToHost::Running);
    let first: Vec<_> = [17, 64, 64, 18, 40].map(|signal| sent(ToGuest::Signal(signal))).into();
    assert_eq!(running[2..7], first);
    assert_eq!(running.len(), 2 + MAX_KEPT_SIGNALS);
}

#[test]
fn early_events_reach_the_guest_when_it_takes_them() {
    let mut supervisor = booting();
    for event in [
        Event::HostSignal(USR1),
        Event::HostSignal(USR1),
        Event::StdinEnded { bytes: 5 },
        Event::OutputClosed { stderr: true },
    ] {
        assert_eq!(supervisor.on(event), []);
    }
    let hello = receive(&mut supervisor, &ToHost::Hello { version: protocol::VERSION });
    let streams = [sent(ToGuest::StdinEnd { bytes: 5 }), sent(ToGuest::OutputClosed { stderr: true })];
    assert_eq!(hello[2..], streams);
    let running = receive(&mut supervisor, &ToHost::Running);
    assert_eq!(running[2..], [sent(ToGuest::Signal(USR1 as u8))], "one of each");
}

#[test]
fn spec_has_the_terminals_last_size() {
    let size = WindowSize { rows: 50, columns: 132 };
    let mut supervisor = Supervisor::new(Settings { terminal: true, ..settings() });
    assert_eq!(supervisor.on(Event::WindowSize(size)), []);
    let hello = receive(&mut supervisor, &ToHost::Hello { version: protocol::VERSION });
    assert_eq!(hello[1], sent(ToGuest::Spec(RunSpec { terminal: Some(size), ..settings().spec })));
    assert_eq!(supervisor.on(Event::WindowSize(size)), [sent(ToGuest::Resize(size))]);
    assert_eq!(running().on(Event::WindowSize(size)), [], "without -t");
}

#[test]
fn run_timer_ends_the_run_with_reason_timeout() {
    let limit = Duration::from_secs(3);
    let mut supervisor = Supervisor::new(Settings { timeout: Some(limit), ..settings() });
    assert_eq!(supervisor.start(SystemTime::UNIX_EPOCH), [Action::SetTimer(TimerKind::Run, limit)]);
    let (end, power_cut) = end_of(&supervisor.on(Event::Timer(TimerKind::Run)));
    assert_eq!((end.reason, end.status, power_cut), (EndReason::Timeout, 137, true));
}

#[test]
fn closed_output_is_not_awaited() {
    let mut supervisor = running();
    assert_eq!(supervisor.on(Event::OutputClosed { stderr: false }).len(), 1);
    let (end, power_cut) = end_of(&receive(&mut supervisor, &ended(WorkloadEnd::Exited(0), 1 << 40, 0)));
    assert_eq!((end.reason, end.status, power_cut), (EndReason::Exited, 0, true));
}

#[test]
fn output_closed_while_it_drains_is_not_awaited() {
    let mut supervisor = draining();
    let (end, power_cut) = end_of(&supervisor.on(Event::OutputClosed { stderr: false }));
    assert_eq!((end.reason, end.status, power_cut), (EndReason::Exited, 7, true));
}

#[test]
fn power_cut_while_output_drains_is_killed() {
    let mut supervisor = running();
    let _ = supervisor.on(Event::HostSignal(TERM));
    assert_eq!(receive(&mut supervisor, &ended(WorkloadEnd::Exited(0), 9, 0)).len(), 1);
    assert_eq!(end_of(&supervisor.on(Event::HostSignal(TERM))).0.reason, EndReason::Killed);
}

#[test]
fn exit_reason_decides_the_end_reason() {
    let stops = [
        (ExitReason::Reset, EndReason::GuestReset, 125),
        (ExitReason::Poweroff, EndReason::GuestPoweroff, 0),
        (ExitReason::ExitStatus(3), EndReason::Exited, 3),
        (ExitReason::TripleFault("rip 0".into()), EndReason::TripleFault, 125),
        (ExitReason::KvmError("x".into()), EndReason::KvmError, 125),
        (ExitReason::HostError("x".into()), EndReason::HostError, 125),
        (ExitReason::InternalError("x".into()), EndReason::InternalError, 125),
    ];
    for (stop, reason, status) in stops {
        let (end, _) = end_of(&running().on(Event::MachineStopped(stop)));
        assert_eq!((end.reason, end.status), (reason, status));
    }
}

#[test]
fn poweroff_before_the_workload_is_a_failure() {
    for mut supervisor in [booting(), started(settings())] {
        let (end, _) = end_of(&supervisor.on(Event::MachineStopped(ExitReason::Poweroff)));
        assert_eq!((end.reason, end.status, end.is_printed()), (EndReason::GuestPoweroff, 125, true));
    }
}

#[test]
fn failure_of_the_guests_init_is_reported() {
    for mut supervisor in [booting(), started(settings()), running()] {
        let failed =
            ToHost::Failed { kind: FailureKind::NotFound, step: "execute".into(), detail: "nosuch".into(), errno: 2 };
        let (end, power_cut) = end_of(&receive(&mut supervisor, &failed));
        assert_eq!((end.reason, end.status, power_cut), (EndReason::ConfigError, 127, true));
        assert!(end.detail.contains("nosuch"));
    }
}

#[test]
fn unexpected_messages_are_guest_faults() {
    let hello = ToHost::Hello { version: protocol::VERSION };
    let unexpected = [
        (booting(), ToHost::Running),
        (booting(), ended(WorkloadEnd::Exited(0), 0, 0)),
        (started(settings()), hello.clone()),
        (started(settings()), ended(WorkloadEnd::Exited(0), 0, 0)),
        (running(), hello),
        (running(), ToHost::Running),
        (running(), ToHost::Ready),
        (running(), ToHost::Health(HealthReport::default())),
        (running(), ToHost::Notification(Notification::default())),
        (draining(), ended(WorkloadEnd::Exited(0), 1, 0)),
    ];
    for (mut supervisor, message) in unexpected {
        let (end, power_cut) = end_of(&receive(&mut supervisor, &message));
        assert_eq!((end.reason, end.status, power_cut), (EndReason::GuestFault, 125, true), "{message:?}");
        assert!(end.detail.contains(name(&message)), "{}", end.detail);
    }
}

#[test]
fn invalid_frame_is_a_guest_fault() {
    let mut supervisor = running();
    let (end, power_cut) = end_of(&supervisor.on(Event::ControlBytes(&[0xff; 8])));
    assert_eq!((end.reason, power_cut), (EndReason::GuestFault, true));
}

#[test]
fn frame_above_the_limit_is_a_guest_fault_before_it_arrives() {
    let header = (protocol::MAX_TO_HOST + 1).to_le_bytes();
    assert_eq!(end_of(&running().on(Event::ControlBytes(&header))).0.reason, EndReason::GuestFault);
}

#[test]
fn protocol_version_mismatch_names_the_version() {
    let (end, _) = end_of(&receive(&mut booting(), &ToHost::Hello { version: 999 }));
    assert_eq!(end.reason, EndReason::HostError);
    assert!(end.detail.contains("999"));
}

#[test]
fn closed_control_port_waits_for_the_machines_own_end() {
    let mut supervisor = running();
    assert_eq!(supervisor.on(Event::ControlClosed), [Action::SetTimer(TimerKind::Grace, GRACE)]);
    let mut other = running();
    let _ = other.on(Event::ControlClosed);
    let (end, _) = end_of(&supervisor.on(Event::MachineStopped(ExitReason::Reset)));
    assert_eq!(end.reason, EndReason::GuestReset);
    assert_eq!(end_of(&other.on(Event::Timer(TimerKind::Grace))).0.reason, EndReason::GuestFault);
}

#[test]
fn stalled_control_port_is_a_guest_fault() {
    assert_eq!(end_of(&running().on(Event::ControlStalled)).0.reason, EndReason::GuestFault);
}

#[test]
fn exec_works_while_the_workload_runs() {
    let spec = ExecSpec::default;
    assert_eq!(booting().exec(spec()), Err(ExecError::NotYet));
    assert_eq!(started(settings()).exec(spec()), Err(ExecError::NotYet));
    assert_eq!(draining().exec(spec()), Err(ExecError::Ended));
    let mut supervisor = running();
    let (id, actions) = supervisor.exec(spec()).unwrap();
    assert_eq!(actions, [sent(ToGuest::Exec { id, request: ExecRequest::Start(spec()) })]);
    let report = ToHost::Exec { id, report: ExecReport::Started };
    assert_eq!(receive(&mut supervisor, &report), [Action::Exec(id, ExecEvent::Started)]);
    let signal = supervisor.on(Event::Exec(id, ExecCommand::Signal(15)));
    assert_eq!(signal, [sent(ToGuest::Exec { id, request: ExecRequest::Signal(15) })]);
    let end = supervisor.on(Event::MachineStopped(ExitReason::Reset));
    assert_eq!(end[0], Action::Exec(id, ExecEvent::Ended(ExecEnd::MachineEnded)));
    assert_eq!(end_of(&end).0.reason, EndReason::GuestReset);
}

#[test]
fn invalid_exec_report_is_a_guest_fault() {
    let mut supervisor = running();
    let report = ToHost::Exec { id: 5, report: ExecReport::Started };
    let (end, power_cut) = end_of(&receive(&mut supervisor, &report));
    assert_eq!((end.reason, power_cut), (EndReason::GuestFault, true));
    assert!(end.detail.contains("process 5"), "{}", end.detail);
}

fn with_readiness(readiness: Readiness) -> Supervisor {
    started(Settings { spec: RunSpec { readiness, ..settings().spec }, ..settings() })
}

#[test]
fn probed_workload_is_ready_at_its_only_report() {
    let mut supervisor = with_readiness(Readiness::Listening { ports: vec![80], or_idle: false });
    assert_eq!(receive(&mut supervisor, &ToHost::Running), [Action::StageReached(Stage::WorkloadExecuted)]);
    assert_eq!(receive(&mut supervisor, &ToHost::Ready), [Action::Ready]);
    assert_eq!(end_of(&receive(&mut supervisor, &ToHost::Ready)).0.reason, EndReason::GuestFault);
}

#[test]
fn notifying_workload_may_be_ready_again() {
    let mut supervisor = with_readiness(Readiness::Notified);
    let _ = receive(&mut supervisor, &ToHost::Running);
    assert_eq!(receive(&mut supervisor, &ToHost::Ready), [Action::Ready]);
    assert_eq!(receive(&mut supervisor, &ToHost::Ready), []);
}

#[test]
fn health_flood_changes_the_status_once_per_interval() {
    let spec = RunSpec { health: Some(guest_protocol::health::HealthCheck::default()), ..settings().spec };
    let mut supervisor = running_with(Settings { spec, ..settings() });
    let report = |failing_streak| HealthReport { failing_streak, ..HealthReport::default() };
    let mut send = |failing_streak| receive(&mut supervisor, &ToHost::Health(report(failing_streak)));
    let passed =
        |failing_streak| [Action::Health(report(failing_streak)), Action::SetTimer(TimerKind::Health, HEALTH_INTERVAL)];
    assert_eq!(send(1), passed(1));
    (2..1000).for_each(|failing_streak| assert_eq!(send(failing_streak), []));
    assert_eq!(supervisor.on(Event::Timer(TimerKind::Health)), passed(999));
    assert_eq!(supervisor.on(Event::Timer(TimerKind::Health)), []);
}

#[test]
fn health_report_that_waits_precedes_the_end() {
    let spec = RunSpec { health: Some(guest_protocol::health::HealthCheck::default()), ..settings().spec };
    let mut supervisor = running_with(Settings { spec, ..settings() });
    let last = HealthReport { exit: 7, output: "x".repeat(50_000), ..HealthReport::default() };
    let _ = receive(&mut supervisor, &ToHost::Health(HealthReport::default()));
    let _ = receive(&mut supervisor, &ToHost::Health(last));
    let actions = receive(&mut supervisor, &ended(WorkloadEnd::Exited(0), 0, 0));
    let [Action::PowerOff, Action::Health(report), Action::End(_)] = &*actions else { panic!("{actions:?}") };
    assert_eq!((report.exit, report.output.len()), (7, guest_protocol::health::MAX_OUTPUT_BYTES));
}

#[test]
fn notification_flood_is_merged_per_interval() {
    let mut supervisor = with_readiness(Readiness::Notified);
    let _ = receive(&mut supervisor, &ToHost::Running);
    let status = |text: &str| Notification { status: Some(text.to_owned()), ..Notification::default() };
    let timer = Action::SetTimer(TimerKind::Notification, NOTIFICATION_INTERVAL);
    let actions = receive(&mut supervisor, &ToHost::Notification(status("one")));
    assert_eq!(actions, [Action::Notify(status("one")), timer.clone()]);
    for text in ["two", "three"] {
        assert_eq!(receive(&mut supervisor, &ToHost::Notification(status(text))), []);
    }
    let actions = supervisor.on(Event::Timer(TimerKind::Notification));
    assert_eq!(actions, [Action::Notify(status("three")), timer]);
}

#[test]
fn impossible_output_count_is_a_guest_fault() {
    for (stdout, stderr) in [(u64::MAX, 0), (0, 1 << 40)] {
        let mut supervisor = running();
        let actions = receive(&mut supervisor, &ended(WorkloadEnd::Exited(0), stdout, stderr));
        assert_eq!(actions, [Action::AwaitOutput { stdout, stderr }]);
        let (end, _) = end_of(&supervisor.on(Event::OutputWritten { stdout: 5, stderr: 5 }));
        assert_eq!(end.reason, EndReason::GuestFault);
    }
}

#[test]
fn stop_sends_the_stop_signal_and_starts_its_timer() {
    let expected =
        |signal, grace| [Action::Stopping, sent(ToGuest::Signal(signal)), Action::SetTimer(TimerKind::Stop, grace)];
    assert_eq!(running().on(STOP), expected(SIGTERM, STOP_TIMEOUT));
    let grace = Duration::from_secs(3);
    assert_eq!(running().on(Event::Stop { grace: Some(grace), signal: Some(1) }), expected(1, grace));
}

#[test]
fn second_stop_may_change_the_time_but_cuts_no_power() {
    let mut supervisor = running();
    let _ = supervisor.on(STOP);
    assert_eq!(supervisor.on(STOP), []);
    let grace = Duration::from_secs(1);
    let changed = supervisor.on(Event::Stop { grace: Some(grace), signal: None });
    assert_eq!(changed, [Action::SetTimer(TimerKind::Stop, grace)]);
    let (end, _) = end_of(&supervisor.on(Event::Timer(TimerKind::Stop)));
    assert!(end.detail.contains("within 1 s"), "{}", end.detail);
    let mut supervisor = running();
    let _ = supervisor.on(STOP);
    let (end, _) = end_of(&supervisor.on(Event::Stop { grace: Some(Duration::ZERO), signal: None }));
    assert_eq!(end.reason, EndReason::Killed);
}

#[test]
fn stop_before_the_workload_ends_the_run_at_once() {
    for supervisor in [booting, || started(settings())] {
        let (end, _) = end_of(&supervisor().on(STOP));
        assert_eq!((end.reason, end.status), (EndReason::Stopped, 143));
        assert_eq!(supervisor().on(Event::Kill(1)), [], "no process takes it");
        let (end, _) = end_of(&supervisor().on(Event::Kill(9)));
        assert_eq!((end.reason, end.status), (EndReason::Killed, 137));
    }
}

#[test]
fn kill_cuts_the_power_and_other_signals_go_to_the_workload() {
    let (end, _) = end_of(&running().on(Event::Kill(9)));
    assert_eq!((end.reason, end.status), (EndReason::Killed, 137));
    assert_eq!(running().on(Event::Kill(19)), [sent(ToGuest::Signal(19))]);
}

#[test]
fn stops_and_kills_after_the_end_change_nothing() {
    let mut supervisor = running();
    let _ = receive(&mut supervisor, &ended(WorkloadEnd::Exited(7), 0, 0));
    for event in [STOP, Event::Kill(9), Event::Kill(15)] {
        assert_eq!(supervisor.on(event), []);
    }
}
