// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file system of the scratch disk is frozen while the disk is copied. Part of the supervisor. What PID 1 has frozen it is told to
//! thaw in every case; the end of the workload thaws it, too.

use super::{Action, State, Supervisor, TimerKind, clean};
use guest_protocol::protocol::ToGuest;
use std::time::Duration;

/// For PID 1 to write the file system: what the processes have written and the guest's kernel has not, on a slow disk.
pub(super) const FREEZE_SCRATCH_LIMIT: Duration = Duration::from_secs(120);

/// How far the freezing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ScratchFreeze {
    #[default]
    None,
    Asked,
    Frozen,
    /// No answer came in time, or none is wanted any more. When it comes, the file system is thawed at once.
    Abandoned,
}

impl Supervisor {
    /// Asks PID 1 to freeze the file system. [`Action::ScratchFrozen`] follows, with an error once it is not frozen any more. `None`
    /// if nothing can be frozen now.
    #[must_use]
    pub(crate) fn freeze_scratch(&mut self) -> Option<Vec<Action>> {
        if !matches!(self.state, State::Running) || self.scratch != ScratchFreeze::None {
            return None;
        }
        self.scratch = ScratchFreeze::Asked;
        self.send_now(&ToGuest::FreezeScratch);
        self.actions.push(Action::SetTimer(TimerKind::FreezeScratch, FREEZE_SCRATCH_LIMIT));
        Some(std::mem::take(&mut self.actions))
    }

    /// The disk is copied, or the copy given up. No further [`Action::ScratchFrozen`] follows.
    #[must_use]
    pub(crate) fn thaw_scratch(&mut self) -> Vec<Action> {
        match self.scratch {
            ScratchFreeze::Asked => self.scratch = ScratchFreeze::Abandoned,
            ScratchFreeze::Frozen => {
                self.scratch = ScratchFreeze::None;
                self.send_now(&ToGuest::ThawScratch);
            }
            ScratchFreeze::None | ScratchFreeze::Abandoned => {}
        }
        std::mem::take(&mut self.actions)
    }

    pub(super) fn on_scratch_frozen(&mut self, outcome: Result<(), String>) {
        let is_frozen = outcome.is_ok();
        match std::mem::take(&mut self.scratch) {
            ScratchFreeze::Asked => {
                if is_frozen {
                    self.scratch = ScratchFreeze::Frozen;
                }
                self.actions.push(Action::ScratchFrozen(outcome.map_err(|detail| clean(&detail))));
            }
            ScratchFreeze::Abandoned if is_frozen => self.send_now(&ToGuest::ThawScratch),
            ScratchFreeze::Abandoned => {}
            ScratchFreeze::None | ScratchFreeze::Frozen => self.on_fault("unexpected message ScratchFrozen"),
        }
    }

    pub(super) fn on_scratch_timeout(&mut self) {
        if self.scratch == ScratchFreeze::Asked {
            self.scratch = ScratchFreeze::Abandoned;
            let limit = FREEZE_SCRATCH_LIMIT.as_secs();
            let error = format!("the guest has not written its files to the disk within {limit} s");
            self.actions.push(Action::ScratchFrozen(Err(error)));
        }
    }

    /// The workload or the machine has ended. PID 1 sends no answer any more.
    pub(super) fn lose_scratch(&mut self) {
        if matches!(std::mem::take(&mut self.scratch), ScratchFreeze::Asked | ScratchFreeze::Frozen) {
            self.actions.push(Action::ScratchFrozen(Err("the workload has ended".to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::messages;
    use super::super::tests::{receive, running};
    use super::super::{Event, Supervisor};
    use super::*;
    use guest_protocol::protocol::{ToHost, WorkloadEnd};

    fn asked() -> Supervisor {
        let mut supervisor = running();
        assert_eq!(messages(&supervisor.freeze_scratch().unwrap()), [ToGuest::FreezeScratch]);
        assert_eq!(supervisor.freeze_scratch(), None);
        supervisor
    }

    fn frozen() -> Supervisor {
        let mut supervisor = asked();
        assert_eq!(receive(&mut supervisor, &ToHost::ScratchFrozen(Ok(()))), [Action::ScratchFrozen(Ok(()))]);
        supervisor
    }

    #[test]
    fn frozen_scratch_is_thawed_once() {
        let mut supervisor = frozen();
        assert_eq!(supervisor.freeze_scratch(), None);
        assert_eq!(messages(&supervisor.thaw_scratch()), [ToGuest::ThawScratch]);
        assert_eq!(supervisor.thaw_scratch(), []);
        assert!(supervisor.freeze_scratch().is_some());
    }

    #[test]
    fn scratch_that_is_not_frozen_needs_no_thaw() {
        let mut supervisor = asked();
        let refused = receive(&mut supervisor, &ToHost::ScratchFrozen(Err("a\u{1b}b".into())));
        assert_eq!(refused, [Action::ScratchFrozen(Err("a b".into()))]);
        assert_eq!(supervisor.thaw_scratch(), []);
        assert!(supervisor.freeze_scratch().is_some());
    }

    #[test]
    fn late_answer_thaws_at_once() {
        for is_late in [true, false] {
            let mut supervisor = asked();
            if is_late {
                let expired = supervisor.on(Event::Timer(TimerKind::FreezeScratch));
                assert!(matches!(&expired[..], [Action::ScratchFrozen(Err(_))]), "{expired:?}");
            } else {
                // The client is gone, or the machine is to end.
                assert_eq!(supervisor.thaw_scratch(), []);
            }
            assert_eq!(supervisor.freeze_scratch(), None);
            let answered = receive(&mut supervisor, &ToHost::ScratchFrozen(Ok(())));
            assert_eq!(messages(&answered), [ToGuest::ThawScratch]);
            assert_eq!(answered.len(), 1);
            assert!(supervisor.freeze_scratch().is_some());
        }
    }

    #[test]
    fn end_of_the_workload_ends_the_copy() {
        let ended = ToHost::Ended { end: WorkloadEnd::Exited(0), stdout_bytes: 0, stderr_bytes: 0 };
        for mut supervisor in [asked(), frozen()] {
            let actions = receive(&mut supervisor, &ended);
            let lost = |action: &&Action| matches!(action, Action::ScratchFrozen(Err(_)));
            assert_eq!(actions.iter().filter(lost).count(), 1, "{actions:?}");
            assert_eq!(supervisor.thaw_scratch(), []);
        }
    }

    #[test]
    fn unrequested_answer_is_a_fault() {
        for mut supervisor in [running(), frozen()] {
            let actions = receive(&mut supervisor, &ToHost::ScratchFrozen(Ok(())));
            assert!(matches!(actions.last(), Some(Action::End(_))), "{actions:?}");
        }
    }
}
