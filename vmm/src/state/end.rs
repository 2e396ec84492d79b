// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a machine ended: the reasons, and the exit status of `coracle run` that goes with each. Plain data.
//!
//! To add a reason: one row of [`EndReason`], the code that returns it, `vmm/openapi.json` (a test compares the two), and the guide.

use crate::config::size::MemorySize;
use guest_protocol::protocol::{FailureKind, WorkloadEnd};
use kvm::ExitReason;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Exit status where coracle failed, not the workload.
pub(crate) const STATUS_FAILED: u8 = 125;
/// Part of `detail` may come from the guest.
const MAX_DETAIL_CHARACTERS: usize = 1000;
/// Lines of the console after the panic's own that `detail` holds.
const MAX_PANIC_LINES: usize = 32;
const SIGKILL: u8 = 9;

/// Exit status that goes with a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRule {
    /// The workload's own, or 128 + the signal that ended it.
    Workload,
    /// 137: power was cut, as by SIGKILL.
    Killed,
    /// 0 if it was requested inside the guest, 125 if it was unexpected.
    Requested,
    /// 125; 126 or 127 if the command cannot be executed or is not found.
    Rejected,
    /// 125.
    Failed,
}

/// Whether `coracle run` prints the detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Quiet,
    Printed,
}

/// Defines [`EndReason`] from a table: description, name, status rule, whether the detail is printed.
macro_rules! end_reasons {
    ($(#[doc = $description:literal] $name:ident: $rule:ident, $output:ident;)+) => {
        /// Why a machine ended: `end.reason` of the result document.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum EndReason {
            $(#[doc = $description] $name,)+
        }

        impl EndReason {
            /// In the order of the documentation.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// For the manual page.
            #[must_use]
            pub(crate) fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $description.trim_ascii(),)+
                }
            }

            #[must_use]
            pub(crate) fn status_rule(self) -> StatusRule {
                match self {
                    $(Self::$name => StatusRule::$rule,)+
                }
            }

            fn output(self) -> Output {
                match self {
                    $(Self::$name => Output::$output,)+
                }
            }
        }
    };
}

end_reasons! {
    /// The workload exited with a status of its own.
    Exited: Workload, Quiet;
    /// A signal ended the workload.
    Signalled: Workload, Quiet;
    /// The guest's kernel killed the workload because memory was exhausted.
    Oom: Workload, Printed;
    /// The workload ended in time after a request to stop.
    Stopped: Workload, Quiet;
    /// Power was cut: on request, or because the workload did not stop in time.
    Killed: Killed, Printed;
    /// Power was cut because `--timeout` was over.
    Timeout: Killed, Printed;
    /// The guest switched the machine off.
    GuestPoweroff: Requested, Printed;
    /// The guest reset the machine.
    GuestReset: Requested, Printed;
    /// The guest's kernel panicked.
    GuestPanic: Failed, Printed;
    /// The guest's init violated the protocol with the host.
    GuestFault: Failed, Printed;
    /// A vCPU ended in a triple fault.
    TripleFault: Failed, Printed;
    /// KVM cannot run the guest any further.
    KvmError: Failed, Printed;
    /// The request is invalid, or the command cannot be executed.
    ConfigError: Rejected, Printed;
    /// The image is missing or invalid.
    ImageError: Failed, Printed;
    /// The guest kernel is missing or invalid.
    KernelError: Failed, Printed;
    /// A snapshot is missing or invalid, or cannot be restored on this host.
    SnapshotError: Failed, Printed;
    /// The network cannot be set up.
    NetworkError: Failed, Printed;
    /// The host lacks something, or a system call failed.
    HostError: Failed, Printed;
    /// A requested layer of confinement is not available.
    SandboxError: Failed, Printed;
    /// A bug of coracle's.
    InternalError: Failed, Printed;
}

impl EndReason {
    /// Of an image that cannot be read, converted or moved: by the fault of this host, or of the image.
    #[must_use]
    pub(crate) fn of_image(is_host: bool) -> Self {
        if is_host { Self::HostError } else { Self::ImageError }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// How a machine ended: `end` of the result document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    /// Exit status of the process.
    pub(crate) status: u8,
    /// The signal that ended the workload.
    pub(crate) signal: Option<u8>,
    /// For the user; empty where the reason is enough. One line; after a panic the last lines of the console follow.
    pub(crate) detail: String,
}

impl End {
    /// Coracle failed, with status 125.
    #[must_use]
    pub(crate) fn failed(reason: EndReason, detail: &str) -> Self {
        Self { reason, status: STATUS_FAILED, signal: None, detail: one_line(detail) }
    }

    /// The workload ended, after a request to stop if `stopped`.
    #[must_use]
    pub(crate) fn of_workload(end: WorkloadEnd, stopped: bool) -> Self {
        let (reason, status, signal) = match end {
            WorkloadEnd::Exited(status) => (EndReason::Exited, status, None),
            WorkloadEnd::Signalled { signal, out_of_memory: true } => (EndReason::Oom, after(signal), Some(signal)),
            WorkloadEnd::Signalled { signal, .. } => (EndReason::Signalled, after(signal), Some(signal)),
            WorkloadEnd::Reboot => (EndReason::GuestReset, 0, None),
            WorkloadEnd::Poweroff => (EndReason::GuestPoweroff, 0, None),
        };
        // Exhausted memory is reported even after a request to stop.
        let reason = if stopped && reason != EndReason::Oom { EndReason::Stopped } else { reason };
        Self { reason, status, signal, detail: String::new() }
    }

    /// States how much memory was exhausted, and which option gives more.
    #[must_use]
    pub(crate) fn with_memory(mut self, memory: MemorySize) -> Self {
        if self.reason == EndReason::Oom {
            self.detail = format!("out of memory: the machine has {memory}; --memory gives more");
        }
        self
    }

    /// PID 1 could not start the workload.
    #[must_use]
    pub(crate) fn of_failure(kind: FailureKind, step: &str, detail: &str, errno: i32) -> Self {
        let (reason, status) = match kind {
            FailureKind::NotFound => (EndReason::ConfigError, 127),
            FailureKind::NotExecutable => (EndReason::ConfigError, 126),
            FailureKind::Configuration => (EndReason::ConfigError, STATUS_FAILED),
            FailureKind::Network => (EndReason::NetworkError, STATUS_FAILED),
            FailureKind::Setup => (EndReason::HostError, STATUS_FAILED),
        };
        let cause = if errno > 0 { format!(": {}", std::io::Error::from_raw_os_error(errno)) } else { String::new() };
        Self { reason, status, signal: None, detail: one_line(&format!("cannot {step}: {detail}{cause}")) }
    }

    /// The machine stopped by itself before PID 1 reported how the workload ended.
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
            ExitReason::HostError(line) => Self::failed(EndReason::HostError, line),
            ExitReason::InternalError(line) => Self::failed(EndReason::InternalError, line),
        }
    }

    /// `signal` arrived before the workload ran.
    #[must_use]
    pub(crate) fn signalled_before_workload(signal: u8) -> Self {
        let detail = "asked to stop before the workload ran".to_owned();
        Self { reason: EndReason::Stopped, status: after(signal), signal: None, detail }
    }

    /// Power was cut, for the reason in `detail`.
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

    /// Refines an unexpected reset by the last lines of the kernel's console: after a panic it is a panic, after an error of PID 1
    /// it is that error.
    #[must_use]
    pub(crate) fn with_console(self, tail: &str) -> Self {
        let unexpected = self.reason == EndReason::GuestReset && self.status == STATUS_FAILED;
        if !unexpected {
            return self;
        }
        let Some(at) = tail.rfind("Kernel panic") else {
            // PID 1 logs to the console if it cannot reach its ports.
            let last = tail.rfind("coracle-init: ").and_then(|at| tail[at..].lines().next());
            return last.map_or(self, |line| Self::failed(EndReason::HostError, line));
        };
        let mut lines = tail[at..].lines().filter(|line| !line.trim().is_empty());
        let mut end = Self::failed(EndReason::GuestPanic, lines.next().unwrap_or_default());
        for line in lines.take(MAX_PANIC_LINES) {
            end.detail.push('\n');
            end.detail.push_str(&one_line(line));
        }
        end
    }

    /// The first line of the detail, which `coracle run` prints.
    #[must_use]
    pub(crate) fn summary(&self) -> &str {
        self.detail.lines().next().unwrap_or_default()
    }

    /// Whether coracle or the guest's kernel failed, as opposed to an end of the workload or on request.
    #[must_use]
    pub(crate) fn is_failure(&self) -> bool {
        match self.reason.status_rule() {
            StatusRule::Workload | StatusRule::Killed => false,
            StatusRule::Requested => self.status != 0,
            StatusRule::Rejected | StatusRule::Failed => true,
        }
    }

    /// Whether `coracle run` prints the [`summary`](Self::summary).
    #[must_use]
    pub(crate) fn is_printed(&self) -> bool {
        !self.detail.is_empty() && self.reason.output() == Output::Printed
    }
}

/// Exit status that a shell gives a process which `signal` ended.
fn after(signal: u8) -> u8 {
    128_u8.saturating_add(signal)
}

/// Without control characters and bounded: `text` may come from the guest, and is printed to a terminal.
fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(MAX_DETAIL_CHARACTERS).map(printable).collect()
}

#[cfg(test)]
#[path = "end_tests.rs"]
mod tests;
