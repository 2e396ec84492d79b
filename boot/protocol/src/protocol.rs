// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames of the control port: a little-endian `u32` length, then that many bytes of postcard. Both directions are byte
//! streams over one virtio-console port; a frame longer than [`MAX_FRAME`] ends the conversation.
//!
//! The order of a life: `Hello` ->, <- `Spec`, `Running` ->, <- `Signal`, `Resize`, `StdinEnd`, `OutputClosed` at any time,
//! `Ended` ->, when all that must last is on the disks; the answer is that the host cuts the power, once it has every byte of
//! the streams. `Failed` may stand in the place of any message of PID 1 and is answered likewise. Between `Running` and
//! `Ended` there may be any number of `Exec` in both directions, of `Health` and `Notification`, and `Ready`, of which the
//! first one counts.

use crate::exec::{ExecReport, ExecRequest};
use crate::health::HealthReport;
use crate::notification::Notification;
use crate::run_spec::{RunSpec, WindowSize};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Changes whenever a message does; host and init are built together, so a difference is a mistake of installation.
pub const VERSION: u32 = 5;
/// Longest payload of a frame, in bytes. Environment and arguments of a Linux process are at most 2 MiB by default.
pub const MAX_FRAME: u32 = 4 << 20;
/// Names of the console ports, as the driver shows them in `/sys/class/virtio-ports/*/name`. The port number is the
/// position in this list; port 0 is the kernel's console.
pub const PORT_NAMES: [&str; 4] = ["console", "control", "stdio", "stderr"];
/// Port number of this protocol.
pub const PORT_CONTROL: u32 = 1;
/// Port number of the workload's standard input and output (or its terminal).
pub const PORT_STDIO: u32 = 2;
/// Port number of the workload's standard error.
pub const PORT_STDERR: u32 = 3;

/// From the host to PID 1.
#[allow(clippy::large_enum_variant, reason = "one value of it is alive at a time")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// The answer to `Hello`.
    Spec(RunSpec),
    /// Deliver this signal number to the workload.
    Signal(u8),
    /// The host's terminal has a new size.
    Resize(WindowSize),
    /// The host's standard input ended after this many bytes in all: the workload reads end of file after them.
    StdinEnd {
        /// Bytes sent on the stdio port since the start.
        bytes: u64,
    },
    /// Nobody reads the host's standard output (or error) any more: the workload's next write gets `EPIPE`.
    OutputClosed {
        /// The error stream rather than the output stream.
        stderr: bool,
    },
    /// Concerns a process besides the workload.
    Exec {
        /// Which one.
        id: u32,
        /// What to do.
        request: ExecRequest,
    },
}

/// From PID 1 to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// PID 1 runs and asks for its `RunSpec`.
    Hello {
        /// [`VERSION`] of the guest's side.
        version: u32,
    },
    /// The workload has been executed (its `execve` succeeded).
    Running,
    /// The workload could not be started. One line on the host.
    Failed {
        /// What kind of failure; decides the exit status.
        kind: FailureKind,
        /// The step, e.g. `mount root disk`.
        step: String,
        /// What was wrong, naming the object.
        detail: String,
        /// Linux error number, or 0.
        errno: i32,
    },
    /// The workload ended; its descendants too; streams are drained and file systems synced.
    Ended {
        /// How.
        end: WorkloadEnd,
        /// Bytes written to the stdio port since the start.
        stdout_bytes: u64,
        /// Bytes written to the stderr port since the start.
        stderr_bytes: u64,
    },
    /// Concerns a process besides the workload.
    Exec {
        /// Which one.
        id: u32,
        /// What happened.
        report: ExecReport,
    },
    /// The workload is ready, as `RunSpec::readiness` says; not if that is `Executed`. One that speaks for itself may
    /// say so again.
    Ready,
    /// A health check has ended.
    Health(HealthReport),
    /// The workload said this to its service manager.
    Notification(Notification),
}

/// How the workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadEnd {
    /// `_exit` with this status.
    Exited(u8),
    /// Ended by this signal.
    Signalled {
        /// Signal number.
        signal: u8,
        /// The guest's kernel killed it for want of memory.
        out_of_memory: bool,
    },
    /// `--system`: reboot was asked for inside (`SIGHUP` end of the PID namespace).
    Reboot,
    /// `--system`: poweroff or halt was asked for inside (`SIGINT` end of the PID namespace).
    Poweroff,
}

/// Why a workload could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The command is not there: status 127.
    NotFound,
    /// The command is there and cannot be executed: status 126.
    NotExecutable,
    /// The image does not have what the configuration names, e.g. the user: status 125, `config-error`.
    Configuration,
    /// The guest could not prepare the surroundings: status 125, `host-error`.
    Surroundings,
}

/// A frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Its length is over [`MAX_FRAME`].
    TooLong(u32),
    /// Its payload is no message of this version.
    Malformed,
}

/// `message` as one frame.
#[must_use]
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    let payload = postcard::to_allocvec(message).expect("messages hold nothing that postcard cannot write");
    let mut frame = Vec::with_capacity(4 + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&payload);
    frame
}

/// Collects the bytes of a stream and gives out whole messages.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
}

impl FrameReader {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// The stream is broken and must not be read on.
    #[allow(clippy::should_implement_trait, reason = "one reader gives out messages of the type that is asked for")]
    pub fn next<M: serde::de::DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let end = 4 + length as usize;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let (message, rest) = postcard::take_from_bytes(&self.bytes[4..end]).map_err(|_| FrameError::Malformed)?;
        if !rest.is_empty() {
            return Err(FrameError::Malformed);
        }
        self.bytes.drain(..end);
        Ok(Some(message))
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
