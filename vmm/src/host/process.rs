// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes by process ID and start time, which together identify one process until the host reboots: process IDs are used again.

use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open, set_dumpable_behavior};
use std::os::fd::OwnedFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks since the host's boot: `starttime` of proc_pid_stat(5).
    pub(crate) started: u64,
}

impl ProcessId {
    #[must_use]
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        // Without /proc no process can examine this one.
        Self { pid, started: started(pid).unwrap_or_default() }
    }

    /// False for a zombie, too.
    #[must_use]
    pub(crate) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// A pidfd: readable when the process ends, and usable to signal it. `None` if it has ended.
    #[must_use]
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The process ID may have been used again before the pidfd was opened.
        self.is_alive().then_some(handle)
    }
}

/// Makes this process not dumpable: it leaves no core file, and without `CAP_SYS_PTRACE` no other process of its user can read its
/// memory. Both would show the guest's secrets.
pub(crate) fn forbid_dumps() {
    // Fails for an unknown behavior only.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

fn started(pid: u32) -> Option<u64> {
    start_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22, unless field 3 is the state of a zombie. The name, field 2, may hold any character but ends with the last parenthesis.
fn start_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn start_time_is_found_after_any_name() {
        let rest = "1 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 8765 2000 300";
        assert_eq!(start_of(&format!("7 (a) b) S {rest}")), Some(8765));
        assert_eq!(start_of(&format!("7 (ended) Z {rest}")), None);
        assert_eq!(start_of("7 (short) S 1 2"), None);
    }

    #[test]
    fn process_is_not_dumpable_and_still_reads_its_own_files() {
        use rustix::process::dumpable_behavior;
        forbid_dumps();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        assert!(std::fs::read_to_string("/proc/self/maps").is_ok_and(|maps| !maps.is_empty()));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).is_ok());
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }

    #[test]
    fn a_process_is_alive_with_its_own_start_time_only() {
        let own = ProcessId::own();
        assert!(own.is_alive() && own.open().is_some());
        let other = ProcessId { started: own.started + 1, ..own };
        assert!(!other.is_alive() && other.open().is_none());
    }
}
