// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Panics on any thread: bugs of coracle's. The first is stored as one line instead of being printed by the thread, and `main` is
//! woken by an eventfd. With `RUST_BACKTRACE` the standard library's message is printed, too.

use super::forbidden_call;
use std::io;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::OnceLock;
use vmm_sys_util::eventfd::EventFd;

static PANICS: Panics = Panics::new();

/// Called once, by `main`.
pub(crate) fn install_hook() {
    let default_hook = take_hook();
    set_hook(Box::new(move |panic| {
        PANICS.store(line(panic));
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            // Names of functions are in a file that a confined thread may not open.
            forbidden_call::expected(|| default_hook(panic));
        }
    }));
}

/// The first panic of this process: thread, location, message. Later ones are its consequences.
#[must_use]
pub(crate) fn first() -> Option<&'static str> {
    PANICS.first()
}

/// An eventfd that is readable once a thread has panicked, before or after this call.
///
/// # Errors
/// The host has no more descriptors.
pub(crate) fn watch() -> io::Result<&'static EventFd> {
    PANICS.watch()
}

struct Panics {
    first: OnceLock<String>,
    wake: OnceLock<EventFd>,
}

impl Panics {
    const fn new() -> Self {
        Self { first: OnceLock::new(), wake: OnceLock::new() }
    }

    fn store(&self, line: String) {
        if self.first.set(line).is_ok()
            && let Some(wake) = self.wake.get()
        {
            wake_up(wake);
        }
    }

    fn first(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }

    fn watch(&self) -> io::Result<&EventFd> {
        let new = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let wake = self.wake.get_or_init(|| new);
        // The hook reads `wake` after it has stored the line, so one of the two sees the other.
        if self.first.get().is_some() {
            wake_up(wake);
        }
        Ok(wake)
    }
}

fn wake_up(wake: &EventFd) {
    // The counter cannot overflow.
    let _ = wake.write(1);
}

fn line(panic: &PanicHookInfo<'_>) -> String {
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let place = panic.location().map(|location| format!(" at {location}")).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("internal error: the thread {thread} panicked{place}: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_stored_and_wakes_the_watcher() {
        let panics = Panics::new();
        let wake = panics.watch().unwrap();
        assert_eq!(wake.read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        panics.store("one".into());
        panics.store("other".into());
        assert_eq!((panics.first(), wake.read().unwrap()), (Some("one"), 1));
    }

    #[test]
    fn a_late_watcher_is_woken_at_once() {
        let panics = Panics::new();
        panics.store("one".into());
        assert_eq!(panics.watch().unwrap().read().unwrap(), 1);
    }
}
