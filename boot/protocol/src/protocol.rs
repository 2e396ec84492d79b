// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames of the control port: a little-endian `u32` length, then that many bytes of postcard. Both
//! directions are byte streams over one virtio-console port. A frame longer than [`MAX_TO_GUEST`]
//! or [`MAX_TO_HOST`] is a protocol error.
//!
//! ```text
//!  PID 1                                  host
//!  Hello                              ->
//!                                     <-  TemplateStart in a machine from a template
//!                                     <-  PrepareRoot in a machine that becomes a template of its image
//!  RootPrepared                       ->
//!                                     <-  Spec
//!  Addresses, Running                 ->
//!                                     <-  Signal, Resize, StdinEnd, OutputClosed, Exec
//!  Exec, Health, Notification, Ready,  ->
//!  Addresses
//!                                     <-  Freeze
//!  Frozen                             ->
//!                                     <-  Thaw, or Restored in a copy
//!  Resumed                            ->      after Restored
//!                                     <-  FreezeScratch
//!  ScratchFrozen                      ->
//!                                     <-  ThawScratch
//!  Ended                              ->
//! ```
//!
//! Between `Hello` and `Spec` the host may send `TemplateStart` more than once: a template may be made from another one.
//!
//! Between `Frozen` and the next message of the host PID 1 sends nothing, so that a snapshot has no
//! part of a frame. `NotFrozen` replaces `Frozen`, and needs no answer.
//!
//! Between `FreezeScratch` and `ThawScratch` all other messages go on. The end of the workload thaws
//! the file system, too.
//!
//! PID 1 sends `Ended` once everything that must last is on the disks. The host answers by cutting
//! the power, once it has all bytes of the streams. `Failed` may replace any message of PID 1 and
//! is answered likewise. Only the first `Ready` counts.

use crate::exec::{ExecReport, ExecRequest};
use crate::health::HealthReport;
use crate::identity::{Identity, TemplateStart};
use crate::notification::Notification;
use crate::run_spec::{RootPreparation, RunSpec, WindowSize};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Changes with every change of a message. Host and init are built together, so a mismatch is an
/// installation error.
pub const VERSION: u32 = 17;
/// Maximum payload of a frame to the guest, in bytes. Environment and arguments of a Linux process
/// are at most 2 MiB by default.
pub const MAX_TO_GUEST: u32 = 4 << 20;
/// Maximum payload of a frame to the host, in bytes. The largest message is a buffer of 16 KiB of
/// output.
pub const MAX_TO_HOST: u32 = 64 << 10;
/// Names of the console ports, as in `/sys/class/virtio-ports/*/name`. The port number is the index
/// in this list; port 0 is the kernel's console.
pub const PORT_NAMES: [&str; 4] = ["console", "control", "stdio", "stderr"];
/// Port number of this protocol.
pub const PORT_CONTROL: u32 = 1;
/// Port number of the workload's standard input and output (or its terminal).
pub const PORT_STDIO: u32 = 2;
/// Port number of the workload's standard error.
pub const PORT_STDERR: u32 = 3;

/// From the host to PID 1.
#[allow(clippy::large_enum_variant, reason = "only one value exists at a time")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// The answer to `Hello`.
    Spec(RunSpec),
    /// Deliver this signal number to the workload.
    Signal(u8),
    /// New size of the host's terminal.
    Resize(WindowSize),
    /// The host's standard input ended after this many bytes in total; the workload then reads end
    /// of file.
    StdinEnd {
        /// Bytes sent on the stdio port since the start.
        bytes: u64,
    },
    /// The host's standard output (or error) has no reader any more: the workload's next write gets
    /// `EPIPE`.
    OutputClosed {
        /// The error stream rather than the output stream.
        stderr: bool,
    },
    /// A request for a process beside the workload.
    Exec {
        /// Its number.
        id: u32,
        /// The request.
        request: ExecRequest,
    },
    /// Stop the processes of the workload, and those beside it, for a snapshot.
    Freeze,
    /// The snapshot is taken: let the processes run on.
    Thaw,
    /// This machine is a copy, restored from the snapshot. Take on the identity, then let the
    /// processes run on.
    Restored(Identity),
    /// This machine starts from a template, whose `Hello` was answered by no host. `Spec` follows.
    TemplateStart(TemplateStart),
    /// Write the file system of the scratch disk to the disk, and let no process change it: the host
    /// copies the disk.
    FreezeScratch,
    /// The host has copied the scratch disk, or has given up: processes may change its files.
    ThawScratch,
    /// Mount this root, before the run specification is known. The `Spec` that follows has the same root.
    PrepareRoot(RootPreparation),
}

/// From PID 1 to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// PID 1 runs and asks for its `RunSpec`.
    Hello {
        /// [`VERSION`] of the guest's side.
        version: u32,
    },
    /// The addresses of all interfaces. Sent only if one comes from DHCP, whenever that changes.
    Addresses(Vec<IpAddr>),
    /// The workload has been executed (its `execve` succeeded).
    Running,
    /// The workload could not be started. The host prints it as one line.
    Failed {
        /// Decides the exit status.
        kind: FailureKind,
        /// The step, e.g. `mount root disk`.
        step: String,
        /// The fault, naming the object.
        detail: String,
        /// Linux error number, or 0.
        errno: i32,
    },
    /// The workload and its descendants ended, streams are drained and file systems synced.
    Ended {
        /// Exit status or signal.
        end: WorkloadEnd,
        /// Bytes written to the stdio port since the start.
        stdout_bytes: u64,
        /// Bytes written to the stderr port since the start.
        stderr_bytes: u64,
    },
    /// A report about a process beside the workload.
    Exec {
        /// Its number.
        id: u32,
        /// The report.
        report: ExecReport,
    },
    /// The condition of `RunSpec::readiness` is met. Not sent for `Executed`; sent again after a
    /// reload for `Notified`.
    Ready,
    /// A health check has ended.
    Health(HealthReport),
    /// The workload sent this to its service manager.
    Notification(Notification),
    /// The processes have stopped.
    Frozen,
    /// The processes cannot be stopped; they run on.
    NotFrozen {
        /// The reason, with the object that it concerns.
        detail: String,
    },
    /// The copy has its identity, and its processes run.
    Resumed,
    /// The answer to `FreezeScratch`. After an error nothing is frozen; the text is the reason, with
    /// the object that it concerns.
    ScratchFrozen(Result<(), String>),
    /// The answer to `PrepareRoot`: the process that becomes the workload is in the root, and waits for its run specification.
    RootPrepared,
}

/// Exit status or signal of a process, or what `reboot(2)` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadEnd {
    /// `_exit` with this status.
    Exited(u8),
    /// Killed by a signal.
    Signalled {
        /// Signal number.
        signal: u8,
        /// The guest's kernel killed it because memory ran out.
        out_of_memory: bool,
    },
    /// `--system`: the guest rebooted (its PID namespace ended by `SIGHUP`).
    Reboot,
    /// `--system`: the guest powered off or halted (its PID namespace ended by `SIGINT`).
    Poweroff,
}

/// Why a workload could not be started. Decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The command does not exist: status 127.
    NotFound,
    /// The command exists and cannot be executed: status 126.
    NotExecutable,
    /// The image lacks something that the configuration names, e.g. the user: status 125,
    /// `config-error`.
    Configuration,
    /// No server of DHCP gave an address: status 125, `network-error`.
    Network,
    /// PID 1 could not set up the environment: status 125, `host-error`.
    Setup,
}

/// An invalid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Its length is above the maximum of its direction.
    TooLong(u32),
    /// Its payload is not a message of this version.
    Malformed,
}

/// Encodes `message` as one frame.
#[must_use]
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    let payload = postcard::to_allocvec(message).expect("postcard can encode every message");
    let mut frame = Vec::with_capacity(4 + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&payload);
    frame
}

/// Assembles messages from the bytes of a stream.
#[derive(Debug)]
pub struct FrameReader {
    max: u32,
    bytes: Vec<u8>,
}

impl FrameReader {
    /// Accepts frames of at most `max` bytes of payload: [`MAX_TO_GUEST`] or [`MAX_TO_HOST`].
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { max, bytes: Vec::new() }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next complete message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// The stream is broken and must not be read further.
    #[allow(clippy::should_implement_trait, reason = "the caller chooses the type of the message")]
    pub fn next<M: serde::de::DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        if length > self.max {
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
