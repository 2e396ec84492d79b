// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Notifications of a workload to its service manager (`sd_notify(3)`), as PID 1 passes them on.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Value of `NOTIFY_SOCKET`: an abstract address, which needs no file in the image.
pub const SOCKET: &str = "@coracle-notify";
/// Bound of [`Notification::status`], in characters.
pub const MAX_STATUS_CHARACTERS: usize = 256;

/// Progress of a configuration reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reload {
    /// `RELOADING=1`.
    Begun,
    /// `RELOADING=1`, then `READY=1`.
    Done,
}

/// The content of all datagrams since the previous message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `READY=1`, before any `reload`.
    pub ready: bool,
    /// The last `RELOADING=1` and its outcome.
    pub reload: Option<Reload>,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `WATCHDOG=1`.
    pub watchdog: bool,
    /// `EXTEND_TIMEOUT_USEC=`: extends the timeout of the current operation, in microseconds.
    pub extend_timeout: Option<u64>,
    /// `STATUS=`: one line for a person.
    pub status: Option<String>,
}
