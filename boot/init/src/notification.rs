// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a workload says to its service manager (`sd_notify(3)`): datagrams of `NAME=VALUE` lines, of which few concern us.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// The abstract address of the socket, as `NOTIFY_SOCKET` names it: it needs no file in the image.
pub const SOCKET: &str = "@coracle-notify";
/// Longest status that is passed on, in characters.
const STATUS_CHARACTERS: usize = 256;

/// Several datagrams may be one of these: what was said since the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `READY=1`.
    pub ready: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `WATCHDOG=1`.
    pub watchdog: bool,
    /// `STATUS=`: one line for a person.
    pub status: Option<String>,
}

impl Notification {
    /// Adds what `datagram` says. What is not understood is for others.
    pub fn hear(&mut self, datagram: &[u8]) {
        for line in datagram.split(|&byte| byte == b'\n') {
            match line {
                b"READY=1" => self.ready = true,
                b"STOPPING=1" => self.stopping = true,
                b"WATCHDOG=1" => self.watchdog = true,
                _ => {
                    if let Some(status) = line.strip_prefix(b"STATUS=") {
                        let status = String::from_utf8_lossy(status);
                        let printable = status.chars().filter(|character| !character.is_control());
                        self.status = Some(printable.take(STATUS_CHARACTERS).collect());
                    }
                }
            }
        }
    }

    /// Whether there is anything to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_concern_us_are_heard_and_others_are_not() {
        let mut heard = Notification::default();
        heard.hear(b"MAINPID=1\nREADY=0\nX_READY=1\n");
        assert!(heard.is_empty());
        heard.hear(b"STATUS=Loading\nREADY=1");
        heard.hear(b"STATUS=Serving \xff\x1b[2J\nWATCHDOG=1\n");
        let status = Some("Serving \u{fffd}[2J".into());
        assert_eq!(heard, Notification { ready: true, stopping: false, watchdog: true, status });
    }
}
