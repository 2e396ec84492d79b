// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes beside the workload, as the host sees them: which ones exist, how much each side may
//! send, how each ended. A state machine without descriptors or clocks, owned by the supervisor.
//!
//! ```text
//!  start --Started--> running --Ended--> gone
//!     \---Failed----> gone      the client leaves: running unattended, until Ended
//! ```

use crate::state::end::End;
use guest_protocol::exec::{
    ExecReport, ExecRequest, ExecSpec, INPUT_WINDOW, MAX_PROCESSES, OUTPUT_WINDOW, output_cost,
};
use guest_protocol::protocol::{FailureKind, ToGuest, WorkloadEnd};
use guest_protocol::run_spec::WindowSize;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One process beside the workload. Numbers are not reused.
pub(crate) type ExecId = u32;

/// A process cannot be started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("the workload is not running yet")]
    NotYet,
    #[error("the workload has ended")]
    Ended,
    #[error("{MAX_PROCESSES} processes are running beside the workload, which is the limit")]
    TooMany,
}

/// From the client that started a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecCommand {
    /// Bytes for standard input, at most [`Execs::room`].
    Input(Vec<u8>),
    InputEnd,
    Signal(u8),
    Resize(WindowSize),
    /// The client took frames of output of this [`output_cost`].
    Taken(u32),
    /// The client is gone.
    HangUp,
}

/// For the client that started a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecEvent {
    Started,
    Output {
        stderr: bool,
        /// At most one window in total until the client takes some.
        bytes: Vec<u8>,
    },
    /// [`Execs::room`] for input has grown.
    Room,
    /// No other event of this process follows.
    Ended(ExecEnd),
}

/// How a process beside the workload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecEnd {
    Exited(WorkloadEnd),
    /// It was never started.
    Failed {
        /// 125, 126 or 127, as for the workload.
        status: u8,
        message: String,
    },
    MachineEnded,
}

impl ExecEnd {
    /// Exit status of the verb.
    #[must_use]
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Exited(WorkloadEnd::Exited(status)) => *status,
            Self::Exited(WorkloadEnd::Signalled { signal, .. }) => 128_u8.saturating_add(*signal),
            Self::Exited(WorkloadEnd::Reboot | WorkloadEnd::Poweroff) => 0,
            Self::Failed { status, .. } => *status,
            // As for every process of a machine whose power is cut: KILL.
            Self::MachineEnded => 137,
        }
    }
}

/// A report of PID 1 that violates the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecFault {
    #[error("report about process {0}, which was not started")]
    Unknown(ExecId),
    #[error("report about process {0} exceeds its credit")]
    Credit(ExecId),
    #[error("report about process {0} out of order")]
    OutOfOrder(ExecId),
    /// Such frames cost no credit.
    #[error("report about process {0} without output")]
    Empty(ExecId),
}

#[derive(Debug, Default)]
pub(crate) struct Execs {
    execs: BTreeMap<ExecId, Exec>,
    last: ExecId,
}

#[derive(Debug)]
struct Exec {
    started: bool,
    /// Its client is there.
    attended: bool,
    /// Bytes of output that PID 1 may still send.
    output_credit: u32,
    /// Bytes taken by the client and not yet credited to PID 1: credit goes out in larger steps.
    taken: u32,
    /// Bytes of input that may still be sent to PID 1.
    input_credit: u32,
}

/// A process in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecState {
    id: ExecId,
    started: bool,
    attended: bool,
    output_credit: u32,
    input_credit: u32,
}

impl Execs {
    /// For a copy of the machine.
    pub(super) fn save(&self) -> Vec<ExecState> {
        let state = |(&id, exec): (&ExecId, &Exec)| ExecState {
            id,
            started: exec.started,
            attended: exec.attended,
            output_credit: exec.output_credit,
            input_credit: exec.input_credit,
        };
        self.execs.iter().map(state).collect()
    }

    /// The highest number that was given to a process.
    pub(super) fn last(&self) -> ExecId {
        self.last
    }

    /// Continues with the processes of the machine that was saved.
    pub(super) fn restore(&mut self, saved: &[ExecState], last: ExecId) {
        let exec = |saved: &ExecState| Exec {
            started: saved.started,
            attended: saved.attended,
            output_credit: saved.output_credit.min(OUTPUT_WINDOW),
            taken: 0,
            input_credit: saved.input_credit.min(INPUT_WINDOW),
        };
        self.execs = saved.iter().take(MAX_PROCESSES).map(|saved| (saved.id, exec(saved))).collect();
        self.last = saved.iter().map(|saved| saved.id).fold(last, ExecId::max);
    }

    /// The processes whose client is there.
    pub(super) fn attended(&self) -> Vec<ExecId> {
        self.execs.iter().filter(|(_, exec)| exec.attended).map(|(id, _)| *id).collect()
    }

    /// A new process: its number, and the message to PID 1.
    ///
    /// # Errors
    /// There are [`MAX_PROCESSES`].
    pub(crate) fn start(&mut self, spec: ExecSpec) -> Result<(ExecId, ToGuest), ExecError> {
        if self.execs.len() >= MAX_PROCESSES {
            return Err(ExecError::TooMany);
        }
        self.last += 1;
        let exec =
            Exec { started: false, attended: true, output_credit: OUTPUT_WINDOW, taken: 0, input_credit: INPUT_WINDOW };
        self.execs.insert(self.last, exec);
        Ok((self.last, ToGuest::Exec { id: self.last, request: ExecRequest::Start(spec) }))
    }

    /// Bytes of input that can be sent to the process now.
    #[must_use]
    pub(crate) fn room(&self, id: ExecId) -> usize {
        self.execs.get(&id).filter(|exec| exec.started).map_or(0, |exec| exec.input_credit as usize)
    }

    /// The message to PID 1; `None` if none is needed, for one because the process is gone.
    pub(crate) fn command(&mut self, id: ExecId, command: ExecCommand) -> Option<ToGuest> {
        let exec = self.execs.get_mut(&id).filter(|exec| exec.attended)?;
        let request = match command {
            ExecCommand::Input(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                exec.input_credit = exec.input_credit.saturating_sub(length);
                ExecRequest::Input(bytes)
            }
            ExecCommand::InputEnd => ExecRequest::InputEnd,
            ExecCommand::Signal(signal) => ExecRequest::Signal(signal),
            ExecCommand::Resize(size) => ExecRequest::Resize(size),
            ExecCommand::Taken(bytes) => {
                exec.taken += bytes;
                // With half a window in hand PID 1 does not wait, and messages are saved.
                if exec.output_credit >= OUTPUT_WINDOW / 2 {
                    return None;
                }
                let credit = std::mem::take(&mut exec.taken);
                exec.output_credit += credit;
                ExecRequest::Credit(credit)
            }
            ExecCommand::HangUp => {
                exec.attended = false;
                ExecRequest::HangUp
            }
        };
        Some(ToGuest::Exec { id, request })
    }

    /// The event for the client, unless it is gone.
    ///
    /// # Errors
    /// PID 1 violates the protocol.
    pub(crate) fn on_report(&mut self, id: ExecId, report: ExecReport) -> Result<Option<ExecEvent>, ExecFault> {
        let exec = self.execs.get_mut(&id).ok_or(ExecFault::Unknown(id))?;
        let is_first = matches!(report, ExecReport::Started | ExecReport::Failed { .. });
        if is_first == exec.started {
            return Err(ExecFault::OutOfOrder(id));
        }
        let attended = exec.attended;
        let event = match report {
            ExecReport::Started => {
                exec.started = true;
                ExecEvent::Started
            }
            ExecReport::Failed { kind, step, detail, errno } => {
                self.execs.remove(&id);
                ExecEvent::Ended(failed(kind, &step, &detail, errno))
            }
            ExecReport::Output { bytes, .. } if bytes.is_empty() => return Err(ExecFault::Empty(id)),
            ExecReport::Output { stderr, bytes } => {
                let cost = output_cost(bytes.len());
                exec.output_credit = exec.output_credit.checked_sub(cost).ok_or(ExecFault::Credit(id))?;
                ExecEvent::Output { stderr, bytes }
            }
            ExecReport::Credit(bytes) => {
                let credit = exec.input_credit.checked_add(bytes).filter(|credit| *credit <= INPUT_WINDOW);
                exec.input_credit = credit.ok_or(ExecFault::Credit(id))?;
                ExecEvent::Room
            }
            ExecReport::Ended(end) => {
                self.execs.remove(&id);
                ExecEvent::Ended(ExecEnd::Exited(end))
            }
        };
        Ok(attended.then_some(event))
    }

    /// The machine is gone. Returns the processes whose client is there.
    pub(crate) fn abandon(&mut self) -> Vec<ExecId> {
        let all = std::mem::take(&mut self.execs).into_iter();
        all.filter(|(_, exec)| exec.attended).map(|(id, _)| id).collect()
    }
}

fn failed(kind: FailureKind, step: &str, detail: &str, errno: i32) -> ExecEnd {
    let end = End::of_failure(kind, step, detail, errno);
    ExecEnd::Failed { status: end.status, message: end.detail }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
