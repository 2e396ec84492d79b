// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Panics: mistakes of ours, on whatever thread. The first is kept as one line instead of being printed where it happens, and
//! `main`, which may be waiting for something else, is woken. With `RUST_BACKTRACE` the standard library has its say, too.

use std::io;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::OnceLock;
use vmm_sys_util::eventfd::EventFd;

static PANICS: Panics = Panics::new();

/// From now on panics are kept. Called once, by `main`.
pub(crate) fn keep() {
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        PANICS.keep(line(panic));
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            usual(panic);
        }
    }));
}

/// The first panic of this process, if there was one: on which thread, where, why. What comes after one follows from it.
#[must_use]
pub(crate) fn first() -> Option<&'static str> {
    PANICS.first()
}

/// Readable once there was a panic, on whatever thread, before or after this call.
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

    fn keep(&self, line: String) {
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
        // The hook looks for the descriptor after it has kept the line: one of the two sees the other.
        if self.first.get().is_some() {
            wake_up(wake);
        }
        Ok(wake)
    }
}

fn wake_up(wake: &EventFd) {
    // Its counter is far from its limit.
    let _ = wake.write(1);
}

fn line(panic: &PanicHookInfo<'_>) -> String {
    let current = std::thread::current();
    let thread = current.name().unwrap_or("without a name");
    let place = panic.location().map(|location| format!(" at {location}")).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("internal error: the thread {thread} panicked{place}: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_kept_and_wakes_who_watches() {
        let panics = Panics::new();
        let wake = panics.watch().unwrap();
        assert_eq!(wake.read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        panics.keep("one".into());
        panics.keep("other".into());
        assert_eq!((panics.first(), wake.read().unwrap()), (Some("one"), 1));
    }

    #[test]
    fn who_watches_late_hears_of_a_panic_before() {
        let panics = Panics::new();
        panics.keep("one".into());
        assert_eq!(panics.watch().unwrap().read().unwrap(), 1);
    }
}
