// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a supervisor wants done. Plain data, obeyed by `main`'s event loop.

use super::exec::{ExecId, ExecNews};
use crate::state::end::End;
use crate::state::stages::Stage;
use guest_protocol::health::HealthReport;
use guest_protocol::notification::Notification;
use std::time::Duration;

/// What to do about it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
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

/// The timers of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TimerKind {
    /// `--timeout`.
    Run,
    /// `--stop-timeout`.
    Stop,
    /// [`GRACE`].
    Grace,
}
