// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a run ended: the reasons of the contract and the exit status that goes with each. Plain data.
//!
//! | ended by | reason | status |
//! |---|---|---|
//! | the workload itself | `exited`, `signalled`, `oom` | its own, 128 + signal |
//! | the workload, after it was asked to stop | `stopped` | its own, 128 + signal |
//! | a signal before the workload ran | `stopped` | 128 + that signal |
//! | cut power | `killed`, `timeout` | 137, as after `SIGKILL` |
//! | poweroff or reboot asked for inside | `guest-poweroff`, `guest-reset` | 0 |
//! | a command that is not there, or no program | `config-error` | 127, 126 |
//! | everything else | its reason | 125 |

use guest_protocol::protocol::{FailureKind, WorkloadEnd};
use kvm::ExitReason;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Status of everything that coracle could not do.
pub(crate) const STATUS_FAILED: u8 = 125;
/// Longest `detail`, in characters; part of it may come from the guest.
const DETAIL_CHARACTERS: usize = 1000;
/// Lines of the console behind the panic's own that its detail holds.
const PANIC_LINES: usize = 32;
const SIGKILL: u8 = 9;

/// Why a run ended: `end.reason` of the result document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EndReason {
    /// The workload exited.
    Exited,
    /// A signal ended the workload.
    Signalled,
    /// The guest's kernel killed the workload for want of memory.
    Oom,
    /// It was asked to stop, and did.
    Stopped,
    /// It was asked to stop, and did not in time.
    Killed,
    /// It ran longer than `--timeout`.
    Timeout,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The guest reset the machine without a word.
    GuestReset,
    /// The guest asked for the machine to be switched off.
    GuestPoweroff,
    /// A vCPU ended in a triple fault.
    TripleFault,
    /// The host's KVM could not go on.
    KvmError,
    /// The request cannot be met as it is.
    ConfigError,
    /// The image cannot be used.
    ImageError,
    /// The kernel cannot be used.
    KernelError,
    /// A snapshot cannot be used.
    SnapshotError,
    /// The network could not be set up.
    NetworkError,
    /// The host lacks something.
    HostError,
    /// A layer of confinement that was asked for is not to be had.
    SandboxError,
    /// A mistake of ours.
    InternalError,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// How a run ended: `end` of the result document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// Why.
    pub(crate) reason: EndReason,
    /// Exit status of the process.
    pub(crate) status: u8,
    /// The signal that ended the workload.
    pub(crate) signal: Option<u8>,
    /// For a person; empty where the reason says it all. One line, after a panic followed by the console's last ones.
    pub(crate) detail: String,
}

impl End {
    /// Coracle could not do it.
    #[must_use]
    pub(crate) fn failed(reason: EndReason, detail: &str) -> Self {
        Self { reason, status: STATUS_FAILED, signal: None, detail: one_line(detail) }
    }

    /// The workload ended; `stopped` if it had been asked to.
    #[must_use]
    pub(crate) fn of_workload(end: WorkloadEnd, stopped: bool) -> Self {
        let (reason, status, signal) = match end {
            WorkloadEnd::Exited(status) => (EndReason::Exited, status, None),
            WorkloadEnd::Signalled { signal, out_of_memory: true } => (EndReason::Oom, after(signal), Some(signal)),
            WorkloadEnd::Signalled { signal, .. } => (EndReason::Signalled, after(signal), Some(signal)),
            WorkloadEnd::Reboot => (EndReason::GuestReset, 0, None),
            WorkloadEnd::Poweroff => (EndReason::GuestPoweroff, 0, None),
        };
        // Asked to stop or not: want of memory is what the user must hear about.
        let reason = if stopped && reason != EndReason::Oom { EndReason::Stopped } else { reason };
        Self { reason, status, signal, detail: String::new() }
    }

    /// PID 1 could not start the workload.
    #[must_use]
    pub(crate) fn of_failure(kind: FailureKind, step: &str, detail: &str, errno: i32) -> Self {
        let (reason, status) = match kind {
            FailureKind::NotFound => (EndReason::ConfigError, 127),
            FailureKind::NotExecutable => (EndReason::ConfigError, 126),
            FailureKind::Configuration => (EndReason::ConfigError, STATUS_FAILED),
            FailureKind::Surroundings => (EndReason::HostError, STATUS_FAILED),
        };
        let cause = if errno > 0 { format!(": {}", std::io::Error::from_raw_os_error(errno)) } else { String::new() };
        Self { reason, status, signal: None, detail: one_line(&format!("cannot {step}: {detail}{cause}")) }
    }

    /// The machine stopped by itself before PID 1 had said how the workload ended.
    #[must_use]
    pub(crate) fn of_machine(reason: &ExitReason) -> Self {
        match reason {
            ExitReason::Reset => Self::failed(EndReason::GuestReset, "the guest reset the machine unexpectedly"),
            ExitReason::Poweroff => {
                Self::failed(EndReason::GuestPoweroff, "the guest switched the machine off before the workload ran")
            }
            ExitReason::ExitStatus(status) => Self::of_workload(WorkloadEnd::Exited(*status), false),
            ExitReason::TripleFault(registers) => {
                Self::failed(EndReason::TripleFault, &format!("the guest ended in a triple fault at {registers}"))
            }
            ExitReason::KvmError(line) => Self::failed(EndReason::KvmError, line),
            ExitReason::InternalError(line) => Self::failed(EndReason::InternalError, line),
        }
    }

    /// This signal came before the workload ran.
    #[must_use]
    pub(crate) fn before_the_workload(signal: u8) -> Self {
        let detail = "asked to stop before the workload ran".to_owned();
        Self { reason: EndReason::Stopped, status: after(signal), signal: None, detail }
    }

    /// Power was cut: `detail` says why.
    #[must_use]
    pub(crate) fn killed(detail: &str) -> Self {
        Self { reason: EndReason::Killed, status: after(SIGKILL), signal: None, detail: one_line(detail) }
    }

    /// Power was cut after `--timeout`.
    #[must_use]
    pub(crate) fn timeout(limit: Duration) -> Self {
        let detail = format!("the run took longer than {} s", limit.as_secs_f64());
        Self { reason: EndReason::Timeout, ..Self::killed(&detail) }
    }

    /// The same end, in the light of the last lines of the kernel's console: an unexpected reset after a panic is a
    /// panic, and one after a last word of PID 1 is what it says.
    #[must_use]
    pub(crate) fn with_console(self, tail: &str) -> Self {
        let unexpected = self.reason == EndReason::GuestReset && self.status == STATUS_FAILED;
        if !unexpected {
            return self;
        }
        let Some(at) = tail.rfind("Kernel panic") else {
            // PID 1 had nobody to talk to: it could not reach the ports.
            let last = tail.rfind("coracle-init: ").and_then(|at| tail[at..].lines().next());
            return last.map_or(self, |line| Self::failed(EndReason::HostError, line));
        };
        let mut lines = tail[at..].lines().filter(|line| !line.trim().is_empty());
        let mut end = Self::failed(EndReason::GuestPanic, lines.next().unwrap_or_default());
        for line in lines.take(PANIC_LINES) {
            end.detail.push('\n');
            end.detail.push_str(&one_line(line));
        }
        end
    }

    /// The first line of the detail: what a person reads on stderr.
    #[must_use]
    pub(crate) fn summary(&self) -> &str {
        self.detail.lines().next().unwrap_or_default()
    }

    /// Whether it was coracle that could not go on, rather than the workload or a request that ended the run.
    #[must_use]
    pub(crate) fn is_failure(&self) -> bool {
        use EndReason::{Exited, GuestPoweroff, Killed, Oom, Signalled, Stopped, Timeout};
        let asked_for_reset = self.reason == EndReason::GuestReset && self.status == 0;
        !asked_for_reset
            && !matches!(self.reason, Exited | Signalled | Oom | Stopped | Killed | Timeout | GuestPoweroff)
    }

    /// Whether the user has to be told on stderr, because coracle itself failed or its user must know why.
    #[must_use]
    pub(crate) fn needs_telling(&self) -> bool {
        use EndReason::{Exited, Signalled, Stopped};
        !self.detail.is_empty() && !matches!(self.reason, Exited | Signalled | Stopped)
    }
}

/// What a shell makes of a process that ended by `signal`.
fn after(signal: u8) -> u8 {
    128_u8.saturating_add(signal)
}

/// `text` without control characters, and not too long: it may come from the guest and goes to a terminal.
fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(DETAIL_CHARACTERS).map(printable).collect()
}

#[cfg(test)]
#[path = "end_tests.rs"]
mod tests;
