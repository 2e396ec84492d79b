// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes beside the workload, as the host sees them: who runs, how much either side may send, how each ended. A state
//! machine without descriptors or clocks, owned by the supervisor. What travels to
//! a client is in `api/frame.rs`, the client in `api/attached.rs`.
//!
//! ```text
//!  start --Started--> running --Ended--> gone
//!     \---Failed----> gone      the client leaves: running unattended, until Ended
//! ```

use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec, INPUT_WINDOW, MOST, OUTPUT_WINDOW};
use guest_protocol::protocol::{FailureKind, ToGuest, WorkloadEnd};
use guest_protocol::run_spec::WindowSize;
use std::collections::BTreeMap;

/// One process beside the workload; numbers are not used again.
pub(crate) type ExecId = u32;

/// Why a process cannot be started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecRefusal {
    /// Too early.
    #[error("the workload does not run yet")]
    NotYet,
    /// Too late.
    #[error("the workload has ended")]
    Ended,
    /// Enough.
    #[error("{MOST} processes are running beside the workload, no more can")]
    TooMany,
}

/// From whoever started a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecCommand {
    /// Bytes for its standard input; no more than there is [`ExecSessions::room`] for.
    Input(Vec<u8>),
    /// Its standard input ends.
    InputEnd,
    /// Deliver this signal.
    Signal(u8),
    /// The terminal has a new size.
    Resize(WindowSize),
    /// So many bytes of output were taken.
    Taken(u32),
    /// The client is gone.
    HangUp,
}

/// For whoever started a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecNews {
    /// It was executed.
    Started,
    /// It wrote this.
    Output {
        /// Standard error rather than standard output.
        stderr: bool,
        /// Never more than a window until they were taken.
        bytes: Vec<u8>,
    },
    /// There is [`ExecSessions::room`] for input again.
    Room,
    /// The last there is to say.
    Over(ExecEnd),
}

/// How a process beside the workload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecEnd {
    /// By itself.
    Ended(WorkloadEnd),
    /// It was never started.
    Failed {
        /// 125, 126 or 127, as for the workload.
        status: u8,
        /// One line.
        message: String,
    },
    /// The machine went first.
    MachineEnded,
}

impl ExecEnd {
    /// Exit status of the verb.
    #[must_use]
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Ended(WorkloadEnd::Exited(status)) => *status,
            Self::Ended(WorkloadEnd::Signalled { signal, .. }) => 128_u8.saturating_add(*signal),
            Self::Ended(WorkloadEnd::Reboot | WorkloadEnd::Poweroff) => 0,
            Self::Failed { status, .. } => *status,
            // As of every process of a machine that is switched off.
            Self::MachineEnded => 137,
        }
    }
}

/// PID 1 broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecFault {
    /// Of a number that is not in use.
    #[error("of process {0}, which it was not asked for")]
    Unknown(ExecId),
    /// More output than it had credit for.
    #[error("more of process {0} than it may")]
    Credit(ExecId),
    /// Not in this order.
    #[error("of process {0} out of turn")]
    OutOfTurn(ExecId),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ExecSessions {
    sessions: BTreeMap<ExecId, Session>,
    last: ExecId,
}

#[derive(Debug)]
struct Session {
    started: bool,
    /// Somebody wants to hear of it.
    attended: bool,
    /// Bytes of output that PID 1 may still send.
    output_credit: u32,
    /// Bytes that were taken and not yet credited: credit goes out in larger steps.
    taken: u32,
    /// Bytes of input that may still be sent.
    input_credit: u32,
}

impl ExecSessions {
    /// A new process: its number, and what PID 1 is to be told.
    ///
    /// # Errors
    /// There are enough.
    pub(crate) fn start(&mut self, spec: ExecSpec) -> Result<(ExecId, ToGuest), ExecRefusal> {
        if self.sessions.len() >= MOST {
            return Err(ExecRefusal::TooMany);
        }
        self.last += 1;
        let session = Session {
            started: false,
            attended: true,
            output_credit: OUTPUT_WINDOW,
            taken: 0,
            input_credit: INPUT_WINDOW,
        };
        self.sessions.insert(self.last, session);
        Ok((self.last, ToGuest::Exec { id: self.last, request: ExecRequest::Start(spec) }))
    }

    /// Bytes of input that can be sent to the process now.
    #[must_use]
    pub(crate) fn room(&self, id: ExecId) -> usize {
        self.sessions.get(&id).filter(|session| session.started).map_or(0, |session| session.input_credit as usize)
    }

    /// What PID 1 is to be told. A process that is gone needs no more.
    pub(crate) fn command(&mut self, id: ExecId, command: ExecCommand) -> Option<ToGuest> {
        let session = self.sessions.get_mut(&id).filter(|session| session.attended)?;
        let request = match command {
            ExecCommand::Input(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                session.input_credit = session.input_credit.saturating_sub(length);
                ExecRequest::Input(bytes)
            }
            ExecCommand::InputEnd => ExecRequest::InputEnd,
            ExecCommand::Signal(signal) => ExecRequest::Signal(signal),
            ExecCommand::Resize(size) => ExecRequest::Resize(size),
            ExecCommand::Taken(bytes) => {
                session.taken += bytes;
                // Half a window in hand keeps PID 1 from waiting, and spares messages.
                if session.output_credit >= OUTPUT_WINDOW / 2 {
                    return None;
                }
                let credit = std::mem::take(&mut session.taken);
                session.output_credit += credit;
                ExecRequest::Credit(credit)
            }
            ExecCommand::HangUp => {
                session.attended = false;
                ExecRequest::HangUp
            }
        };
        Some(ToGuest::Exec { id, request })
    }

    /// What PID 1 reports; `None` if nobody wants to know.
    ///
    /// # Errors
    /// It broke the rules, and cannot be believed any more.
    pub(crate) fn hear(&mut self, id: ExecId, report: ExecReport) -> Result<Option<ExecNews>, ExecFault> {
        let session = self.sessions.get_mut(&id).ok_or(ExecFault::Unknown(id))?;
        let is_first = matches!(report, ExecReport::Started | ExecReport::Failed { .. });
        if is_first == session.started {
            return Err(ExecFault::OutOfTurn(id));
        }
        let attended = session.attended;
        let news = match report {
            ExecReport::Started => {
                session.started = true;
                ExecNews::Started
            }
            ExecReport::Failed { kind, step, detail, errno } => {
                self.sessions.remove(&id);
                ExecNews::Over(failed(kind, &step, &detail, errno))
            }
            ExecReport::Output { stderr, bytes } => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                session.output_credit = session.output_credit.checked_sub(length).ok_or(ExecFault::Credit(id))?;
                ExecNews::Output { stderr, bytes }
            }
            ExecReport::Credit(bytes) => {
                let credit = session.input_credit.checked_add(bytes).filter(|credit| *credit <= INPUT_WINDOW);
                session.input_credit = credit.ok_or(ExecFault::Credit(id))?;
                ExecNews::Room
            }
            ExecReport::Ended(end) => {
                self.sessions.remove(&id);
                ExecNews::Over(ExecEnd::Ended(end))
            }
        };
        Ok(attended.then_some(news))
    }

    /// The machine is gone: all those that somebody still waits for.
    pub(crate) fn abandon(&mut self) -> Vec<ExecId> {
        let all = std::mem::take(&mut self.sessions).into_iter();
        all.filter(|(_, session)| session.attended).map(|(id, _)| id).collect()
    }
}

fn failed(kind: FailureKind, step: &str, detail: &str, errno: i32) -> ExecEnd {
    let end = crate::state::end::End::of_failure(kind, step, detail, errno);
    ExecEnd::Failed { status: end.status, message: end.detail }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
