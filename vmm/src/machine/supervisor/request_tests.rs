// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`].

use super::super::{Action, Event, Settings, TimerKind};
use super::*;
use crate::state::end::EndReason;
use guest_protocol::protocol::{self, ToHost, WorkloadEnd, encode};
use guest_protocol::run_spec::RunSpec;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const STOP: Event<'_> = Event::Stop { grace: None, signal: None };

fn supervisor(messages: &[ToHost]) -> Supervisor {
    let mut supervisor = Supervisor::new(Settings {
        spec: RunSpec::default(),
        stop_signal: 12,
        stop_timeout: STOP_TIMEOUT,
        timeout: None,
        terminal: false,
    });
    for message in messages {
        let _ = supervisor.on(Event::ControlBytes(&encode(message)));
    }
    supervisor
}

fn running() -> Supervisor {
    supervisor(&[ToHost::Hello { version: protocol::VERSION }, ToHost::Running])
}

fn sent(signal: u8) -> Action {
    Action::Send(encode(&ToGuest::Signal(signal)))
}

fn end_of(actions: &[Action]) -> (EndReason, u8) {
    let Some(Action::End(end)) = actions.last() else { panic!("no end in {actions:?}") };
    (end.reason, end.status)
}

#[test]
fn a_stop_is_the_stop_signal_and_its_time() {
    let expected = |signal, grace| [Action::Stopping, sent(signal), Action::SetTimer(TimerKind::Stop, grace)];
    assert_eq!(running().on(STOP), expected(12, STOP_TIMEOUT));
    let grace = Duration::from_secs(3);
    assert_eq!(running().on(Event::Stop { grace: Some(grace), signal: Some(1) }), expected(1, grace));
}

#[test]
fn a_second_stop_cuts_no_power_and_may_change_the_time() {
    let mut supervisor = running();
    let _ = supervisor.on(STOP);
    assert_eq!(supervisor.on(STOP), []);
    let grace = Duration::from_secs(1);
    let changed = supervisor.on(Event::Stop { grace: Some(grace), signal: None });
    assert_eq!(changed, [Action::SetTimer(TimerKind::Stop, grace)]);
    let actions = supervisor.on(Event::Timer(TimerKind::Stop));
    assert!(matches!(actions.last(), Some(Action::End(end)) if end.detail.contains("within 1 s")), "{actions:?}");
    let mut supervisor = running();
    let _ = supervisor.on(STOP);
    assert_eq!(end_of(&supervisor.on(Event::Stop { grace: Some(Duration::ZERO), signal: None })).0, EndReason::Killed);
}

#[test]
fn before_the_workload_runs_a_stop_ends_the_run_at_once() {
    for messages in [&[][..], &[ToHost::Hello { version: protocol::VERSION }]] {
        assert_eq!(end_of(&supervisor(messages).on(STOP)), (EndReason::Stopped, 143));
        assert_eq!(supervisor(messages).on(Event::Kill(1)), [], "nobody can take it");
        assert_eq!(end_of(&supervisor(messages).on(Event::Kill(9))), (EndReason::Killed, 137));
    }
}

#[test]
fn kill_is_a_power_cut_and_other_signals_are_the_workloads() {
    assert_eq!(end_of(&running().on(Event::Kill(9))), (EndReason::Killed, 137));
    assert_eq!(running().on(Event::Kill(19)), [sent(19)]);
}

#[test]
fn a_workload_that_has_ended_keeps_its_end() {
    let mut supervisor = running();
    let ended = ToHost::Ended { end: WorkloadEnd::Exited(7), stdout_bytes: 0, stderr_bytes: 0 };
    let _ = supervisor.on(Event::ControlBytes(&encode(&ended)));
    for event in [STOP, Event::Kill(9), Event::Kill(15)] {
        assert_eq!(supervisor.on(event), []);
    }
}
