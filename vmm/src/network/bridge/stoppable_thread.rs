// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A thread that waits for descriptors, and for the end of its owner.

use crate::sandbox::SandboxError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io::{Error, Result};
use std::iter::once;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The thread, which ends with this value.
#[derive(Debug)]
pub(super) struct StoppableThread {
    thread: Option<JoinHandle<()>>,
    stop: OwnedFd,
}

impl StoppableThread {
    /// The thread confines itself by `confine`. `work` returns soon after [`Stop::wait`] has returned `None`.
    pub(super) fn start(
        name: &str,
        confine: impl FnOnce() -> std::result::Result<(), SandboxError> + Send + 'static,
        work: impl FnOnce(&Stop) + Send + 'static,
    ) -> Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = Stop(stop.try_clone()?);
        let (confined, outcome) = sync_channel(1);
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = confine();
            let is_confined = outcome.is_ok();
            // The owner waits for it.
            let _ = confined.send(outcome);
            if is_confined {
                work(&stopped);
            }
        })?;
        let thread = Self { thread: Some(thread), stop };
        outcome.recv().map_err(Error::other)?.map_err(Error::other)?;
        Ok(thread)
    }
}

impl Drop for StoppableThread {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread's side: readable once the owner has gone.
#[derive(Debug)]
pub(super) struct Stop(OwnedFd);

impl Stop {
    /// Waits until one of `sockets` is readable, or until `deadline`. Returns which are, in their order; `None` if the thread is to
    /// end.
    pub(super) fn wait<'a>(
        &'a self,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<bool>>> {
        let descriptors = once(self.0.as_fd()).chain(sockets);
        let mut sources: Vec<_> = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec::try_from(left).expect("limits are short"));
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = sources.iter().map(|source| !source.revents().is_empty());
        Ok(if ready.next() == Some(true) { None } else { Some(ready.collect()) })
    }

    /// Waits for a moment, or until the thread is to end: after a failure for which [`wait`](Self::wait) would not wait.
    pub(super) fn pause(&self) {
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&PAUSE));
    }
}
