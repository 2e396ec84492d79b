// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the control socket asks for: ends and signals. Unlike a second TERM, a second request to stop is no threat: `stop` is
//! for scripts, which may say it twice.

use super::{SIGTERM, State, Supervisor};
use crate::state::end::End;
use guest_protocol::protocol::ToGuest;
use std::time::Duration;

const SIGKILL: u8 = 9;

impl Supervisor {
    pub(super) fn on_stop_request(&mut self, grace: Option<Duration>, signal: Option<u8>) {
        let limit = grace.unwrap_or(self.settings.stop_timeout);
        match &self.state {
            State::Booting | State::Starting => self.cut_power(End::signalled_before_workload(SIGTERM)),
            // It ends as it is.
            State::Done => {}
            State::Running | State::Draining { .. } if limit.is_zero() => {
                self.cut_power(End::killed("power was cut: a stop without time was asked for"));
            }
            // The last word on the time counts.
            State::Running | State::Draining { .. } if self.stop.asked => {
                if grace.is_some() {
                    self.set_grace(limit);
                }
            }
            State::Running | State::Draining { .. } => {
                self.ask_to_stop(signal.unwrap_or(self.settings.stop_signal), limit);
            }
        }
    }

    pub(super) fn on_kill_request(&mut self, signal: u8) {
        match &self.state {
            State::Done => {}
            _ if signal == SIGKILL => self.cut_power(End::killed("power was cut: a kill was asked for")),
            State::Running => self.tell(ToGuest::Signal(signal)),
            // There is no process to take it.
            State::Booting | State::Starting | State::Draining { .. } => {}
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
