// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A thread that waits for descriptors, and for the end of its owner.

use rustix::event::{EventfdFlags, eventfd};
use std::io::Result;
use std::os::fd::OwnedFd;
use std::thread::{Builder, JoinHandle};

/// The thread, which ends with this value.
#[derive(Debug)]
pub(super) struct StoppableThread {
    thread: Option<JoinHandle<()>>,
    stop: OwnedFd,
}

impl StoppableThread {
    /// `work` returns soon after the descriptor that it is given becomes readable.
    pub(super) fn start(name: &str, work: impl FnOnce(&OwnedFd) + Send + 'static) -> Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let thread = Builder::new().name(name.to_owned()).spawn(move || work(&stopped))?;
        Ok(Self { thread: Some(thread), stop })
    }
}

impl Drop for StoppableThread {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
