// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the supervisor receives and what it answers. Plain data; `main`'s event loop makes the
//! events and performs the actions.

use super::exec::{ExecCommand, ExecEvent, ExecId};
use crate::state::end::End;
use crate::state::stages::Stage;
use guest_protocol::health::HealthReport;
use guest_protocol::notification::Notification;
use guest_protocol::run_spec::WindowSize;
use kvm::ExitReason;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) enum Event<'a> {
    /// Bytes from the control port.
    ControlBytes(&'a [u8]),
    /// End of file on the control port.
    ControlClosed,
    /// PID 1 does not read its messages.
    ControlStalled,
    /// A signal to this process.
    HostSignal(i32),
    /// The terminal was resized.
    WindowSize(WindowSize),
    /// A client asks for an orderly stop.
    Stop {
        /// Until the power is cut, in place of `--stop-timeout`.
        grace: Option<Duration>,
        /// In place of the stop signal.
        signal: Option<u8>,
    },
    /// A client sends the workload this signal; KILL cuts the power.
    Kill(u8),
    Timer(TimerKind),
    /// End of file on standard input after `bytes`, counted since the start.
    StdinEnded {
        bytes: u64,
    },
    /// The reader of standard output (or error) is gone.
    OutputClosed {
        stderr: bool,
    },
    /// Bytes written on the host since the start. Follows [`Action::AwaitOutput`]: at once, and
    /// again when a count is reached.
    OutputWritten {
        stdout: u64,
        stderr: u64,
    },
    Exec(ExecId, ExecCommand),
    /// The machine stopped without [`Action::PowerOff`].
    MachineStopped(ExitReason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write this frame to the control port.
    Send(Vec<u8>),
    /// Start the timer, or restart it.
    SetTimer(TimerKind, Duration),
    /// Report with [`Event::OutputWritten`] how much output is written, now and when these counts
    /// are reached.
    AwaitOutput {
        stdout: u64,
        stderr: u64,
    },
    /// Stop the vCPUs.
    PowerOff,
    StageReached(Stage),
    /// The workload is ready.
    Ready,
    /// A health check finished.
    Health(HealthReport),
    /// Pass this on to the service manager.
    Notify(Notification),
    Exec(ExecId, ExecEvent),
    /// The workload was asked to end.
    Stopping,
    /// No other event follows this one.
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TimerKind {
    /// `--timeout`.
    Run,
    /// `--stop-timeout`.
    Stop,
    /// [`GRACE`](super::GRACE).
    Grace,
    /// The next health report may be passed on.
    Health,
    /// The next notification may be passed on.
    Notification,
}
