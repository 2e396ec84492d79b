// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file system of the scratch disk, frozen while the host copies the disk. A child freezes it,
//! because everything has to be written first, and PID 1 goes on meanwhile. The kernel keeps a file
//! system frozen whatever becomes of the process that froze it, so PID 1 thaws it: when the host asks
//! for that, and when the workload ends.

use super::root::SCRATCH;
use crate::freestanding::system_call::{exit, fork, freeze_file_system, thaw_file_system};
use alloc::format;
use alloc::string::String;
use guest_protocol::run_spec::{Root, Upper};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags, open, syncfs};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

#[derive(Default)]
pub(crate) struct Scratch {
    /// The child that freezes it, until it has ended.
    freezer: Option<(Pid, OwnedFd)>,
    is_frozen: bool,
}

impl Scratch {
    /// Begins to freeze the file system. An event with `token` follows.
    pub(crate) fn freeze(&mut self, root: &Root, epoll: &OwnedFd, token: u64) -> Result<(), String> {
        if !matches!(root.upper, Upper::Disk(_) | Upper::Kept(_)) {
            return Err("there is no scratch disk".into());
        }
        if self.freezer.is_some() || self.is_frozen {
            return Err("it is frozen already".into());
        }
        let failed = |errno: Errno| format!("fork: errno {}", errno.raw_os_error());
        let (pid, pidfd) = fork(0, None, || {
            let errno = write_and_freeze().map_or_else(Errno::raw_os_error, |()| 0);
            exit(errno as u8);
        })
        .map_err(failed)?;
        if let Err(errno) = epoll::add(epoll, &pidfd, EventData::new_u64(token), EventFlags::IN) {
            // There will be no event.
            let _ = self.reap(pid);
            self.thaw();
            return Err(failed(errno));
        }
        self.freezer = Some((pid, pidfd));
        Ok(())
    }

    /// The event of [`freeze`](Self::freeze): whether the file system is frozen.
    pub(crate) fn on_event(&mut self, epoll: &OwnedFd) -> Option<Result<(), String>> {
        let (pid, pidfd) = self.freezer.take()?;
        // A child that was forked meanwhile may hold a copy of the descriptor.
        let _ = epoll::delete(epoll, &pidfd);
        Some(self.reap(pid).map_err(|errno| format!("{SCRATCH}: errno {}", errno.raw_os_error())))
    }

    /// Waits for the child.
    fn reap(&mut self, pid: Pid) -> Result<(), Errno> {
        let status = waitpid(Some(pid), WaitOptions::empty())?;
        match status.and_then(|(_, status)| status.exit_status()) {
            Some(0) => {
                self.is_frozen = true;
                Ok(())
            }
            Some(errno) => Err(Errno::from_raw_os_error(errno)),
            None => Err(Errno::INTR),
        }
    }

    /// Lets processes change the files again.
    pub(crate) fn thaw(&mut self) {
        if core::mem::take(&mut self.is_frozen) {
            // It fails only if root in the workload has thawed it.
            let _ = open_top().and_then(|top| thaw_file_system(top.as_fd()));
        }
    }

    /// The workload has ended. A kept layer is written next; any other one ends with the machine, which does not wait for a disk
    /// that hangs.
    pub(crate) fn finish(&mut self, root: &Root) {
        if !matches!(root.upper, Upper::Kept(_)) {
            return;
        }
        if let Some((pid, _)) = self.freezer.take() {
            let _ = self.reap(pid);
        }
        self.thaw();
    }
}

/// Most is written while processes may still write.
fn write_and_freeze() -> Result<(), Errno> {
    let top = open_top()?;
    syncfs(&top)?;
    freeze_file_system(top.as_fd())
}

fn open_top() -> Result<OwnedFd, Errno> {
    open(SCRATCH, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
