// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes by number and start time: together they name one process for as long as the host is up, because numbers are
//! used again. Pure but for reading `/proc`.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;

/// One process of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started: clock ticks since the host's boot, `starttime` of proc_pid_stat(5).
    pub(crate) started: u64,
}

impl ProcessId {
    /// The calling process.
    #[must_use]
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        // Without /proc nobody can look whether it lives either.
        Self { pid, started: started(pid).unwrap_or_default() }
    }

    /// Whether it runs. One that has ended and was not waited for does not.
    #[must_use]
    pub(crate) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// A handle that becomes readable when it ends, and through which it can be signalled; `None` if it has ended.
    #[must_use]
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The handle was taken by number: only now is it sure whose it is.
        self.is_alive().then_some(handle)
    }
}

fn started(pid: u32) -> Option<u64> {
    start_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22, unless field 3 says that the process is only waited for. The name, field 2, may hold anything but ends with
/// the last parenthesis.
fn start_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let rest = "1 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 8765 2000 300";
        assert_eq!(start_of(&format!("7 (a) b) S {rest}")), Some(8765));
        assert_eq!(start_of(&format!("7 (ended) Z {rest}")), None);
        assert_eq!(start_of("7 (short) S 1 2"), None);
    }

    #[test]
    fn a_process_lives_under_its_own_start_time_only() {
        let own = ProcessId::own();
        assert!(own.is_alive() && own.open().is_some());
        let other = ProcessId { started: own.started + 1, ..own };
        assert!(!other.is_alive() && other.open().is_none());
    }
}
