// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a supervisor hears. Plain data, made by `main`'s event loop.

use super::action::TimerKind;
use super::exec::{ExecCommand, ExecId};
use guest_protocol::run_spec::WindowSize;
use kvm::ExitReason;
use std::time::Duration;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event<'a> {
    /// Bytes came from the control port.
    ControlBytes(&'a [u8]),
    /// The control port will give no more.
    ControlClosed,
    /// A signal to this process.
    HostSignal(i32),
    /// The terminal has a new size.
    WindowSize(WindowSize),
    /// Somebody asks for a polite end.
    Stop {
        /// From now to the power cut, instead of `--stop-timeout`.
        grace: Option<Duration>,
        /// Instead of the stop signal.
        signal: Option<u8>,
    },
    /// Somebody asks for a signal to the workload; KILL cuts the power.
    Kill(u8),
    /// A timer ran out.
    Timer(TimerKind),
    /// Standard input ended after this many bytes went to the guest.
    StdinEnded {
        /// Since the start.
        bytes: u64,
    },
    /// Nobody reads an output any more.
    OutputClosed {
        /// Standard error rather than standard output.
        stderr: bool,
    },
    /// How many bytes have come out on the host since the start.
    StreamsWritten {
        /// Of standard output.
        stdout: u64,
        /// Of standard error.
        stderr: u64,
    },
    /// Somebody wants something of a process beside the workload.
    Exec(ExecId, ExecCommand),
    /// The machine stopped by itself.
    MachineStopped(ExitReason),
}
