// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waits until a socket accepts more, only while it does not: a socket that is watched all the time
//! would wake the worker for each frame that leaves it. An epoll descriptor of its own, because a
//! worker's sources cannot change. Used on the event loop of the interface.

use crate::event_loop::Source;
use std::io::Result;
use std::os::fd::AsRawFd;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

#[derive(Debug)]
pub(super) struct OutputWait {
    epoll: Epoll,
    is_waiting: bool,
}

impl OutputWait {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { epoll: Epoll::new()?, is_waiting: false })
    }

    /// Ready once when the socket accepts more.
    pub(super) fn source(&self, token: u32) -> Source {
        Source::readable(&self.epoll, token)
    }

    /// `socket` has returned `WouldBlock`.
    pub(super) fn wait_for(&mut self, socket: &impl AsRawFd) {
        let event = EpollEvent::new(EventSet::OUT | EventSet::ONE_SHOT, 0);
        let control = |operation| self.epoll.ctl(operation, socket.as_raw_fd(), event);
        // A new socket is not known yet. The second fails only without kernel memory; what waits is
        // sent with the next frame then.
        let _ = control(ControlOperation::Modify).or_else(|_| control(ControlOperation::Add));
        self.is_waiting = true;
    }

    /// Takes the event, if there is one.
    pub(super) fn update(&mut self) {
        if self.is_waiting && self.epoll.wait(0, &mut [EpollEvent::default()]).is_ok_and(|count| count > 0) {
            self.is_waiting = false;
        }
    }
}
