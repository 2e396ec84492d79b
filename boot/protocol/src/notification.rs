// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a workload says to its service manager (`sd_notify(3)`): datagrams of `NAME=VALUE` lines, of which few concern us.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// The abstract address of the socket, as `NOTIFY_SOCKET` names it: it needs no file in the image.
pub const SOCKET: &str = "@coracle-notify";
/// Longest status that is passed on, in characters.
const STATUS_CHARACTERS: usize = 256;

/// How far the workload is with reading its configuration again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reload {
    /// `RELOADING=1`.
    Begun,
    /// `RELOADING=1`, then `READY=1`.
    Done,
}

/// Several datagrams may be one of these: what was said since the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `READY=1`, before any `reload`.
    pub ready: bool,
    /// `RELOADING=1` and what came of it.
    pub reload: Option<Reload>,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `WATCHDOG=1`.
    pub watchdog: bool,
    /// `EXTEND_TIMEOUT_USEC=`: this much longer for what the workload is doing, in microseconds.
    pub extend_timeout: Option<u64>,
    /// `STATUS=`: one line for a person.
    pub status: Option<String>,
}

impl Notification {
    /// Adds what `datagram` says. What is not understood is for others.
    pub fn hear(&mut self, datagram: &[u8]) {
        for line in datagram.split(|&byte| byte == b'\n') {
            match line {
                b"READY=1" if self.reload.is_some() => self.reload = Some(Reload::Done),
                b"READY=1" => self.ready = true,
                b"RELOADING=1" => self.reload = Some(Reload::Begun),
                b"STOPPING=1" => self.stopping = true,
                b"WATCHDOG=1" => self.watchdog = true,
                _ => {
                    if let Some(time) = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=") {
                        let time = core::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
                        self.extend_timeout = time.or(self.extend_timeout);
                    }
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
        heard.hear(b"MAINPID=1\nFDSTORE=1\nWATCHDOG_USEC=1\nREADY=0\nX_READY=1\nEXTEND_TIMEOUT_USEC=-1\n");
        assert!(heard.is_empty());
        heard.hear(b"STATUS=Loading\nREADY=1");
        heard.hear(b"STATUS=Serving \xff\x1b[2J\nWATCHDOG=1\n");
        let status = Some("Serving \u{fffd}[2J".into());
        assert_eq!(heard, Notification { ready: true, watchdog: true, status, ..Notification::default() });
        heard.hear(b"EXTEND_TIMEOUT_USEC=3000000\nSTOPPING=1");
        assert_eq!((heard.extend_timeout, heard.stopping), (Some(3_000_000), true));
    }

    #[test]
    fn ready_after_reloading_is_the_end_of_that() {
        let said = |datagrams: &[&[u8]]| {
            let mut heard = Notification::default();
            datagrams.iter().for_each(|datagram| heard.hear(datagram));
            (heard.ready, heard.reload)
        };
        assert_eq!(said(&[b"READY=1", b"RELOADING=1\nMONOTONIC_USEC=5"]), (true, Some(Reload::Begun)));
        assert_eq!(said(&[b"RELOADING=1", b"READY=1"]), (false, Some(Reload::Done)));
        assert_eq!(said(&[b"RELOADING=1", b"READY=1", b"RELOADING=1"]), (false, Some(Reload::Begun)));
    }
}
