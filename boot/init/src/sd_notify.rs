// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Datagrams of `sd_notify(3)`: `NAME=VALUE` lines, of which only those in [`Notification`] are
//! passed on.

use alloc::string::String;
use guest_protocol::notification::{MAX_STATUS_CHARACTERS, Notification, Reload};

/// Merges `datagram` into `pending`. Unknown lines are ignored.
pub fn merge(pending: &mut Notification, datagram: &[u8]) {
    for line in datagram.split(|&byte| byte == b'\n') {
        match line {
            b"READY=1" if pending.reload.is_some() => pending.reload = Some(Reload::Done),
            b"READY=1" => pending.ready = true,
            b"RELOADING=1" => pending.reload = Some(Reload::Begun),
            b"STOPPING=1" => pending.stopping = true,
            b"WATCHDOG=1" => pending.watchdog = true,
            _ => {
                if let Some(time) = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=") {
                    let time = core::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
                    pending.extend_timeout = time.or(pending.extend_timeout);
                }
                if let Some(status) = line.strip_prefix(b"STATUS=") {
                    let status = String::from_utf8_lossy(status);
                    let printable = status.chars().filter(|character| !character.is_control());
                    pending.status = Some(printable.take(MAX_STATUS_CHARACTERS).collect());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_takes_known_lines_and_ignores_others() {
        let mut pending = Notification::default();
        merge(&mut pending, b"MAINPID=1\nFDSTORE=1\nWATCHDOG_USEC=1\nREADY=0\nX_READY=1\nEXTEND_TIMEOUT_USEC=-1\n");
        assert_eq!(pending, Notification::default());
        merge(&mut pending, b"STATUS=Loading\nREADY=1");
        merge(&mut pending, b"STATUS=Serving \xff\x1b[2J\nWATCHDOG=1\n");
        let status = Some("Serving \u{fffd}[2J".into());
        assert_eq!(pending, Notification { ready: true, watchdog: true, status, ..Notification::default() });
        merge(&mut pending, b"EXTEND_TIMEOUT_USEC=3000000\nSTOPPING=1");
        assert_eq!((pending.extend_timeout, pending.stopping), (Some(3_000_000), true));
    }

    #[test]
    fn ready_after_reloading_means_reload_done() {
        let merged = |datagrams: &[&[u8]]| {
            let mut pending = Notification::default();
            datagrams.iter().for_each(|datagram| merge(&mut pending, datagram));
            (pending.ready, pending.reload)
        };
        assert_eq!(merged(&[b"READY=1", b"RELOADING=1\nMONOTONIC_USEC=5"]), (true, Some(Reload::Begun)));
        assert_eq!(merged(&[b"RELOADING=1", b"READY=1"]), (false, Some(Reload::Done)));
        assert_eq!(merged(&[b"RELOADING=1", b"READY=1", b"RELOADING=1"]), (false, Some(Reload::Begun)));
    }
}
