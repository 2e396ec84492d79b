// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Further processes in a running microVM (`coracle exec`): what the host asks of PID 1 for one of them, and what PID 1
//! reports. Each has a number of the host's choice, and travels over the control port among everything else, so its streams
//! are bounded: either side sends only as many bytes as the other has given it credit for. A reader that does not read
//! therefore stops one process and nothing else.
//!
//! ```text
//!  Start ->   <- Started, or Failed and nothing more
//!  Input, InputEnd, Signal, Resize, Credit, HangUp ->   <- Output, Credit
//!             <- Ended: the last word
//! ```

use crate::protocol::{FailureKind, WorkloadEnd};
use crate::run_spec::WindowSize;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Processes that can be running at one time; the next one is refused.
pub const MOST: usize = 64;
/// Bytes of output, of both streams together, that PID 1 may send before it was given credit for more.
pub const OUTPUT_WINDOW: u32 = 64 << 10;
/// Bytes of input that the host may send before it was given credit for more. PID 1 keeps them until they are read.
pub const INPUT_WINDOW: u32 = 16 << 10;

/// What to run besides the workload, in its surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// `argv`; never empty. The first is looked up in the `PATH` of the environment if it holds no slash.
    pub arguments: Vec<String>,
    /// `NAME=value` strings that come on top of the workload's.
    pub environment: Vec<String>,
    /// Empty means the workload's. It must be there.
    pub working_directory: String,
    /// As the workload's is written; empty means the workload's.
    pub user: String,
    /// A terminal of its own with this size instead of pipes.
    pub terminal: Option<WindowSize>,
    /// Whether input will come. Without it the process reads end of file.
    pub stdin: bool,
    /// Nobody waits for it: no streams and no terminal, only its number is taken until it ends.
    pub detached: bool,
}

/// From the host, for one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecRequest {
    /// Start it. The number must be free.
    Start(ExecSpec),
    /// Bytes for its standard input.
    Input(Vec<u8>),
    /// Its standard input ends after these.
    InputEnd,
    /// Deliver this signal number.
    Signal(u8),
    /// Its terminal has a new size.
    Resize(WindowSize),
    /// So many more bytes of output may be sent.
    Credit(u32),
    /// Nobody is there any more: its streams are closed and it is sent SIGHUP, as by a terminal that goes away.
    HangUp,
}

/// From PID 1, of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecReport {
    /// Its `execve` succeeded.
    Started,
    /// It could not be started. The number is free again.
    Failed {
        /// What kind of failure; decides the exit status.
        kind: FailureKind,
        /// The step, e.g. `find user`.
        step: String,
        /// What was wrong, naming the object.
        detail: String,
        /// Linux error number, or 0.
        errno: i32,
    },
    /// Bytes that it wrote.
    Output {
        /// Standard error rather than standard output; a terminal has only the latter.
        stderr: bool,
        /// Never empty.
        bytes: Vec<u8>,
    },
    /// So many more bytes of input may be sent.
    Credit(u32),
    /// It ended, and every byte that it wrote was sent. The number is free again.
    Ended(WorkloadEnd),
}
