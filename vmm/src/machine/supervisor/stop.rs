// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests to end the run, and other signals: those to this process, and the stops and kills of
//! clients. Part of the supervisor.
//!
//! A signal that requests the end (TERM, and INT, HUP and QUIT, which end a process without
//! handlers) ends `Booting`, `Starting` and `Restoring` at once. From `Running` on, the contract's table of
//! signals applies.

use super::{Action, State, Supervisor, TimerKind};
use crate::state::end::End;
use guest_protocol::protocol::ToGuest;
use std::time::Duration;

const SIGHUP: u8 = 1;
pub(super) const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGKILL: u8 = 9;
pub(super) const SIGTERM: u8 = 15;
const SIGSTOP: u8 = 19;
const FIRST_REAL_TIME: u8 = 32;
const MAX_SIGNAL: u8 = 64;
/// Signals that wait for the workload: more than there are standard ones.
pub(super) const MAX_KEPT_SIGNALS: usize = 128;

#[derive(Debug, Default)]
pub(super) struct StopRequest {
    /// INT was forwarded once.
    pub(super) interrupted: bool,
    pub(super) requested: bool,
    /// From the request to the power cut.
    pub(super) grace: Duration,
}

impl Supervisor {
    pub(super) fn on_signal(&mut self, signal: i32) {
        let Ok(signal) = u8::try_from(signal) else { return };
        let before_the_workload = self.is_before_the_workload();
        match signal {
            SIGTERM | SIGINT | SIGHUP | SIGQUIT if before_the_workload => {
                self.cut_power(End::signalled_before_workload(signal));
            }
            SIGTERM | SIGINT if self.settings.forwards_stops => self.send(ToGuest::Signal(signal)),
            SIGTERM => self.on_term(),
            SIGINT if self.stop.interrupted => self.on_term(),
            SIGINT => {
                self.stop.interrupted = true;
                self.send(ToGuest::Signal(signal));
            }
            // No process receives these.
            0 | SIGKILL | SIGSTOP => {}
            _ if signal > MAX_SIGNAL => {}
            _ if before_the_workload => self.keep_signal(signal),
            _ => self.send(ToGuest::Signal(signal)),
        }
    }

    fn is_before_the_workload(&self) -> bool {
        matches!(self.state, State::Booting | State::Starting | State::Restoring { .. })
    }

    /// Keeps a signal until the workload runs, as the kernel keeps one that is pending: standard
    /// signals once each.
    fn keep_signal(&mut self, signal: u8) {
        let message = ToGuest::Signal(signal);
        let is_kept = signal < FIRST_REAL_TIME && self.pending.contains(&message);
        let kept = self.pending.iter().filter(|message| matches!(message, ToGuest::Signal(_))).count();
        if !is_kept && kept < MAX_KEPT_SIGNALS {
            self.pending.push(message);
        }
    }

    /// TERM, or a second INT.
    fn on_term(&mut self) {
        if self.stop.requested || self.settings.stop_timeout.is_zero() {
            return self.cut_power(End::killed("power was cut at the second request to stop"));
        }
        self.request_stop(self.settings.stop_signal, self.settings.stop_timeout);
    }

    /// A stop over the control socket. Unlike a second TERM, a second one does not cut the power:
    /// independent scripts may each send one.
    pub(super) fn on_stop(&mut self, grace: Option<Duration>, signal: Option<u8>) {
        let limit = grace.unwrap_or(self.settings.stop_timeout);
        match &self.state {
            State::Booting | State::Starting | State::Restoring { .. } => {
                self.cut_power(End::signalled_before_workload(SIGTERM))
            }
            State::Done => {}
            State::Running | State::Draining { .. } if limit.is_zero() => {
                self.cut_power(End::killed("power was cut: a stop without time was asked for"));
            }
            // The last time limit given applies.
            State::Running | State::Draining { .. } if self.stop.requested => {
                if grace.is_some() {
                    self.set_grace(limit);
                }
            }
            State::Running | State::Draining { .. } => {
                self.request_stop(signal.unwrap_or(self.settings.stop_signal), limit);
            }
        }
    }

    pub(super) fn on_kill(&mut self, signal: u8) {
        match &self.state {
            State::Done => {}
            _ if signal == SIGKILL => self.cut_power(End::killed("power was cut: a kill was asked for")),
            State::Running => self.send(ToGuest::Signal(signal)),
            // No process takes it.
            State::Booting | State::Starting | State::Restoring { .. } | State::Draining { .. } => {}
        }
    }

    fn request_stop(&mut self, signal: u8, grace: Duration) {
        self.stop.requested = true;
        self.actions.push(Action::Stopping);
        self.send(ToGuest::Signal(signal));
        self.set_grace(grace);
    }

    fn set_grace(&mut self, grace: Duration) {
        self.stop.grace = grace;
        self.actions.push(Action::SetTimer(TimerKind::Stop, grace));
    }
}
