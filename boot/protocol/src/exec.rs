// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Further processes in a running microVM (`coracle exec`): the host's requests and PID 1's reports
//! for one of them.
//!
//! The host chooses a number for each process. All of them share the control port, so their streams
//! are flow-controlled: either side sends only as many bytes as the other has granted. A reader
//! that does not read stops its own process and nothing else.
//!
//! ```text
//!  Start ->   <- Started, or Failed and nothing more
//!  Input, InputEnd, Signal, Resize, Credit, HangUp ->   <- Output, Credit
//!             <- Ended: always the last message
//! ```

use crate::attributes::ProcessAttributes;
use crate::protocol::{FailureKind, WorkloadEnd};
use crate::run_spec::WindowSize;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Processes that can exist at one time; a further `Start` fails.
pub const MAX_PROCESSES: usize = 64;
/// Credit for output, of both streams together, that PID 1 has before the host grants more. One
/// `Output` costs [`output_cost`].
pub const OUTPUT_WINDOW: u32 = 64 << 10;
/// What an `Output` costs beside its bytes: the frame that it becomes on the host is kept until a
/// client takes it, and has a header of this size. Without it, frames of one byte would cost the
/// host nine times the credit.
pub const OUTPUT_OVERHEAD: u32 = 8;
/// Bytes of input that the host may send before PID 1 grants more. PID 1 keeps them until they are
/// read.
pub const INPUT_WINDOW: u32 = 16 << 10;

/// Credit for an `Output` of so many bytes.
#[must_use]
pub const fn output_cost(length: usize) -> u32 {
    OUTPUT_OVERHEAD.saturating_add(if length > u32::MAX as usize { u32::MAX } else { length as u32 })
}

/// A process to run beside the workload, in its namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// `argv`; empty only if it writes files. A command without a slash is looked up in the `PATH` of the
    /// environment.
    pub arguments: Vec<String>,
    /// `NAME=value` strings that override the workload's.
    pub environment: Vec<String>,
    /// Must exist. Empty means the workload's.
    pub working_directory: String,
    /// In the form of [`RunSpec::user`](crate::run_spec::RunSpec::user). Empty means the
    /// workload's.
    pub user: String,
    /// A pty of this size instead of pipes.
    pub terminal: Option<WindowSize>,
    /// Whether the host sends input. Without it the process reads end of file.
    pub stdin: bool,
    /// No streams and no terminal; the process only occupies its number until it ends.
    pub detached: bool,
    /// Absent means the workload's.
    pub attributes: Option<ProcessAttributes>,
    /// It is PID 1's own, and writes the files that its standard input has in the form of
    /// [`files`](crate::files), as root.
    pub writes_files: bool,
}

/// From the host, for one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecRequest {
    /// Start it. The number must be free.
    Start(ExecSpec),
    /// Bytes for its standard input.
    Input(Vec<u8>),
    /// End of its standard input, after the bytes sent so far.
    InputEnd,
    /// Deliver this signal number.
    Signal(u8),
    /// New size of its terminal.
    Resize(WindowSize),
    /// Grants this much more credit for output.
    Credit(u32),
    /// The client is gone: close the streams and send SIGHUP, as a terminal that is hung up does.
    HangUp,
}

/// From PID 1, about one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecReport {
    /// Its `execve` succeeded.
    Started,
    /// It could not be started. The number is free again.
    Failed {
        /// Decides the exit status.
        kind: FailureKind,
        /// The step, e.g. `find user`.
        step: String,
        /// The fault, naming the object.
        detail: String,
        /// Linux error number, or 0.
        errno: i32,
    },
    /// Bytes that it wrote.
    Output {
        /// Standard error rather than standard output. A terminal has only the latter.
        stderr: bool,
        /// Never empty.
        bytes: Vec<u8>,
    },
    /// Grants this many more bytes of input.
    Credit(u32),
    /// It ended, and all of its output was sent. The number is free again.
    Ended(WorkloadEnd),
}
