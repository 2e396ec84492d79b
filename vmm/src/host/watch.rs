// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting for something to happen in a folder, or for a process to end: what follows a run from outside waits like this.
//! inotify(7), pidfd_open(2).

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Something to wait for.
#[derive(Debug)]
pub(crate) struct FolderWatch(OwnedFd);

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A file in the folder was made, written, renamed or removed.
    Changed,
    /// The process has ended. It wrote what it wrote before.
    Ended,
    /// Nobody reads our standard output any more.
    Unread,
}

impl FolderWatch {
    /// Watches `folder` from now on. Look at it after this, not before.
    ///
    /// # Errors
    /// It is not there, or the host watches enough already.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        add_watch(&inotify, folder, wanted | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR)?;
        Ok(Self(inotify))
    }

    /// Waits for a change, the end of `process` if there is one, or until nobody reads what is written about it.
    ///
    /// # Errors
    /// The host cannot wait.
    pub(crate) fn wait(&self, process: Option<&OwnedFd>) -> io::Result<Woken> {
        let Some(process) = process else { return Ok(Woken::Ended) };
        let stdout = std::io::stdout();
        let mut sources = [
            PollFd::new(&self.0, PollFlags::IN),
            PollFd::new(process, PollFlags::IN),
            // For its errors only, which are always told.
            PollFd::new(&stdout, PollFlags::empty()),
        ];
        rustix::io::retry_on_intr(|| poll(&mut sources, None))?;
        if !sources[1].revents().is_empty() {
            return Ok(Woken::Ended);
        }
        if sources[2].revents().contains(PollFlags::ERR) {
            return Ok(Woken::Unread);
        }
        // What happened is looked at in the folder itself.
        let mut events = [0; 4096];
        while rustix::io::read(&self.0, &mut events).is_ok_and(|length| length > 0) {}
        Ok(Woken::Changed)
    }
}

/// Waits for the end of a process.
///
/// # Errors
/// The host cannot wait.
pub(crate) fn wait_for_end(process: &OwnedFd) -> io::Result<()> {
    let mut source = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut source, None))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::ProcessId;
    use std::process::{Command, Stdio};

    #[test]
    fn a_change_and_the_end_of_a_process_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let watch = FolderWatch::new(folder.path()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle =
            rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty())
                .unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert_eq!(watch.wait(Some(&handle)).unwrap(), Woken::Changed);
        drop(child.stdin.take());
        assert_eq!(watch.wait(Some(&handle)).unwrap(), Woken::Ended);
        wait_for_end(&handle).unwrap();
        child.wait().unwrap();
        assert_eq!(watch.wait(ProcessId::own().open().filter(|_| false).as_ref()).unwrap(), Woken::Ended);
    }
}
