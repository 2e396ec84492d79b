// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Around a snapshot: PID 1 stops the processes and sends nothing until it is answered; a copy is given its identity. Part of the
//! supervisor.

use super::exec::{ExecCommand, ExecState};
use super::{Action, State, Supervisor, TimerKind};
use crate::state::stages::Stage;
use guest_protocol::identity::Identity;
use guest_protocol::protocol::{ToGuest, encode};
use guest_protocol::run_spec::Readiness;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// For PID 1 to stop the processes: longer than it takes at most to report that it cannot.
pub(super) const FREEZE_LIMIT: Duration = Duration::from_secs(40);
/// For PID 1 to take on the identity: longer than its own limits.
pub(super) const RESUME_LIMIT: Duration = Duration::from_secs(90);

/// What the supervisor of a copy continues with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SupervisorState {
    ready: bool,
    /// What PID 1 watches for.
    readiness: Readiness,
    /// The processes beside the workload.
    execs: Vec<ExecState>,
    /// The highest number of one.
    last_exec: u32,
}

/// How a restored machine begins.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) identity: Identity,
    pub(crate) state: SupervisorState,
}

/// Whether PID 1 was asked to stop the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Freeze {
    #[default]
    None,
    Asked,
    /// It did not answer in time. When it does, the processes run on at once.
    Abandoned,
}

impl Supervisor {
    /// Asks PID 1 to stop the processes. [`Action::Frozen`] follows. `None` if there is nothing to save now.
    #[must_use]
    pub(crate) fn freeze(&mut self) -> Option<Vec<Action>> {
        if !matches!(self.state, State::Running) || self.freeze != Freeze::None {
            return None;
        }
        self.freeze = Freeze::Asked;
        self.send_now(&ToGuest::Freeze);
        self.actions.push(Action::SetTimer(TimerKind::Freeze, FREEZE_LIMIT));
        Some(std::mem::take(&mut self.actions))
    }

    /// The message after which the processes run on.
    #[must_use]
    pub(crate) fn thaw() -> Vec<u8> {
        encode(&ToGuest::Thaw)
    }

    /// For a copy of this machine.
    #[must_use]
    pub(crate) fn save(&self) -> SupervisorState {
        SupervisorState {
            ready: self.ready,
            readiness: self.settings.spec.readiness.clone(),
            execs: self.execs.save(),
            last_exec: self.execs.last(),
        }
    }

    /// The answer to [`freeze`](Self::freeze), or that there is none: `Err` is why.
    pub(super) fn on_frozen(&mut self, outcome: Result<(), String>) {
        match std::mem::take(&mut self.freeze) {
            Freeze::Asked => self.actions.push(Action::Frozen(outcome)),
            Freeze::Abandoned if outcome.is_ok() => self.send_now(&ToGuest::Thaw),
            Freeze::Abandoned => {}
            Freeze::None => self.on_fault("unexpected message Frozen"),
        }
    }

    pub(super) fn on_freeze_timeout(&mut self) {
        if self.freeze == Freeze::Asked {
            self.on_frozen(Err("the guest's init does not answer".to_owned()));
            self.freeze = Freeze::Abandoned;
        }
    }

    /// PID 1 waits for its run specification.
    pub(super) fn answer_hello(&mut self) {
        self.actions.push(Action::StageReached(Stage::InitStarted));
        self.send_now(&ToGuest::Spec(self.settings.spec.clone()));
        self.state = State::Starting;
        // Signals wait for the workload. PID 1 takes the rest, which concerns the streams,
        // at any time.
        let pending = std::mem::take(&mut self.pending);
        let (signals, others): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|message| matches!(message, ToGuest::Signal(_)));
        self.pending = signals;
        others.iter().for_each(|message| self.send_now(message));
    }

    /// The first message to PID 1 of a copy; `now` is the wall clock.
    pub(super) fn restore(&mut self, restored: &Restored, now: SystemTime) {
        self.settings.spec.readiness = restored.state.readiness.clone();
        self.execs.restore(&restored.state.execs, restored.state.last_exec);
        let identity = Identity { realtime_ns: nanoseconds(now), ..restored.identity.clone() };
        self.send_now(&ToGuest::Restored(identity));
        self.actions.push(Action::SetTimer(TimerKind::Freeze, RESUME_LIMIT));
        self.state = State::Restoring { ready: restored.state.ready };
    }

    /// The processes of a copy run. Those beside the workload have lost their clients.
    pub(super) fn on_resumed(&mut self, ready: bool) {
        if ready {
            self.set_ready();
        }
        self.actions.push(Action::StageReached(Stage::WorkloadExecuted));
        self.state = State::Running;
        for id in self.execs.attended() {
            if let Some(message) = self.execs.command(id, ExecCommand::HangUp) {
                self.send_now(&message);
            }
        }
        std::mem::take(&mut self.pending).iter().for_each(|message| self.send_now(message));
    }
}

/// Since 1970.
pub(in crate::machine) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
pub(super) mod tests;
