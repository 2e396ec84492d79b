// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An eventfd that wakes `main` when a log has grown, if it is armed. The `io` event loop notifies; `main`'s waits.

use std::io::Result;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use vmm_sys_util::eventfd::EventFd;

#[derive(Debug)]
pub(crate) struct LogNotifier {
    event: EventFd,
    armed: AtomicBool,
}

impl LogNotifier {
    /// Not armed.
    ///
    /// # Errors
    /// The limit of descriptors is reached.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?, armed: AtomicBool::new(false) })
    }

    /// Resets the descriptor. If it is `armed`, it becomes readable once something is written after this call: read the logs
    /// after it, not before.
    pub(crate) fn arm(&self, armed: bool) {
        // A notification before this line is covered by the caller's read, one after the store wakes again.
        let _ = self.event.read();
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// A log has grown.
    pub(super) fn notify(&self) {
        // One load while it is not armed, one write each time it is.
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            // Fails only if the counter is at its maximum; then it is readable.
            let _ = self.event.write(1);
        }
    }
}

impl AsRawFd for LogNotifier {
    /// Readable from a notification until the next [`arm`](LogNotifier::arm).
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_wakes_once_each_time_it_is_armed() {
        let notifier = LogNotifier::new().unwrap();
        notifier.notify();
        assert!(notifier.event.read().is_err(), "not armed");
        notifier.arm(true);
        notifier.notify();
        notifier.notify();
        assert_eq!(notifier.event.read().unwrap(), 1);
        notifier.arm(true);
        assert!(notifier.event.read().is_err(), "nothing was written since");
        notifier.arm(false);
        notifier.notify();
        assert!(notifier.event.read().is_err(), "disarmed");
    }
}
