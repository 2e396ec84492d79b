// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a conversation wants done. Plain data, obeyed by `main`'s event loop.

use crate::control::end::End;
use crate::control::exec::{ExecId, ExecNews};
use crate::control::stages::Stage;
use guest_init::health::HealthReport;
use guest_init::notification::Notification;
use std::time::Duration;

/// What to do about it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this frame to the control port.
    Send(Vec<u8>),
    /// (Re)start a timer.
    SetTimer(TimerKind, Duration),
    /// Stop the vCPUs now.
    PowerOff,
    /// A stage of the boot was reached.
    Reached(Stage),
    /// The workload is ready.
    Ready,
    /// A health check ended.
    Health(HealthReport),
    /// The workload said this to its service manager.
    Notified(Notification),
    /// Something happened to a process beside the workload.
    Exec(ExecId, ExecNews),
    /// The workload was asked to end.
    Stopping,
    /// The end. Nothing comes after it.
    End(End),
}

/// The timers of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// `--timeout`.
    Run,
    /// `--stop-timeout`.
    Stop,
    /// [`GRACE`].
    Grace,
}
