// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting for a change in a directory or for the end of a process: inotify(7), pidfd_open(2). Used by the verbs that follow a
//! machine from outside.

use super::system_error::{Cannot as _, SystemError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::os::fd::OwnedFd;
use std::path::Path;

/// An inotify watch of one directory.
#[derive(Debug)]
pub(crate) struct DirectoryWatch(OwnedFd);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// A file in the directory was created, written, renamed or removed.
    Changed,
    /// The process has ended. Its last writes are complete.
    ProcessEnded,
    /// The reader of this process's standard output closed it.
    OutputClosed,
}

impl DirectoryWatch {
    /// Watches `directory` from now on. Read its files after this call, not before.
    ///
    /// # Errors
    /// The directory does not exist, or a limit of inotify is reached.
    pub(crate) fn new(directory: &Path) -> Result<Self, SystemError> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).cannot("create an inotify instance")?;
        let events = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        add_watch(&inotify, directory, events | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR)
            .cannot(format!("watch {}", directory.display()))?;
        Ok(Self(inotify))
    }

    /// Waits for a change, for the end of `process`, or until standard output is closed by its reader. Without a process, which
    /// has ended then, it returns at once.
    ///
    /// # Errors
    /// poll(2) failed.
    pub(crate) fn wait(&self, process: Option<&OwnedFd>) -> Result<WakeReason, SystemError> {
        let Some(process) = process else { return Ok(WakeReason::ProcessEnded) };
        let stdout = std::io::stdout();
        let mut sources = [
            PollFd::new(&self.0, PollFlags::IN),
            PollFd::new(process, PollFlags::IN),
            // For POLLERR, which is always reported.
            PollFd::new(&stdout, PollFlags::empty()),
        ];
        rustix::io::retry_on_intr(|| poll(&mut sources, None)).cannot("wait for the machine")?;
        if !sources[1].revents().is_empty() {
            return Ok(WakeReason::ProcessEnded);
        }
        if sources[2].revents().contains(PollFlags::ERR) {
            return Ok(WakeReason::OutputClosed);
        }
        // The events only wake: the caller reads the directory itself.
        let mut events = [0; 4096];
        while rustix::io::read(&self.0, &mut events).is_ok_and(|length| length > 0) {}
        Ok(WakeReason::Changed)
    }
}

/// Waits for the end of a process.
///
/// # Errors
/// poll(2) failed.
pub(crate) fn wait_for_end(process: &OwnedFd) -> Result<(), SystemError> {
    let mut source = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut source, None)).cannot("wait for the end of the process")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::ProcessId;
    use std::process::{Command, Stdio};

    #[test]
    fn a_watch_reports_changes_and_the_end_of_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let watch = DirectoryWatch::new(directory.path()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle =
            rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty())
                .unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        assert_eq!(watch.wait(Some(&handle)).unwrap(), WakeReason::Changed);
        drop(child.stdin.take());
        assert_eq!(watch.wait(Some(&handle)).unwrap(), WakeReason::ProcessEnded);
        wait_for_end(&handle).unwrap();
        child.wait().unwrap();
        let no_process = ProcessId::own().open().filter(|_| false);
        assert_eq!(watch.wait(no_process.as_ref()).unwrap(), WakeReason::ProcessEnded);
    }
}
