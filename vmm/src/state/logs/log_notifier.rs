// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells `main` that a log has grown, if it wants to know: rung by the `io` event loop, heard by `main`'s.

use std::io::Result;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// See the module.
#[derive(Debug)]
pub(crate) struct LogNotifier {
    event: EventFd,
    wanted: AtomicBool,
}

impl LogNotifier {
    /// A notifier that nobody listens to.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?, wanted: AtomicBool::new(false) })
    }

    /// Silences the descriptor. If it is `wanted`, it will be readable once something is written after this call: look at the
    /// logs after it, not before.
    pub(crate) fn arm(&self, wanted: bool) {
        // An earlier ring is answered by the look that follows; one after this line is heard.
        let _ = self.event.read();
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Something was written.
    pub(super) fn notify(&self) {
        // Cheap while nobody listens, and once for a listener however much is written.
        if self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst) {
            // It fails only when the counter is at its limit; then it is readable.
            let _ = self.event.write(1);
        }
    }
}

impl AsRawFd for LogNotifier {
    /// Readable from a ring until the next [`arm`](LogNotifier::arm).
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_once_for_whoever_listens() {
        let notifier = LogNotifier::new().unwrap();
        notifier.notify();
        assert!(notifier.event.read().is_err(), "nobody listened");
        notifier.arm(true);
        notifier.notify();
        notifier.notify();
        assert_eq!(notifier.event.read().unwrap(), 1);
        notifier.arm(true);
        assert!(notifier.event.read().is_err(), "nothing was written since");
        notifier.arm(false);
        notifier.notify();
        assert!(notifier.event.read().is_err(), "nobody listens any more");
    }
}
