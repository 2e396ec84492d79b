// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Long work before the machine runs, such as the conversion of an image, that a signal can interrupt: a thread of its own
//! (`prepare`) does it while `main` waits for signals. Interrupted work ends with the process, which the caller ends at once.

use super::signals::Signals;
use super::system_error::{Cannot as _, SystemError};
use rustix::event::{PollFd, PollFlags, poll};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::thread::Builder;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    Done(T),
    /// This signal ends the run. The work goes on until the process ends.
    Interrupted(u8),
}

/// Does `work`, unless a signal that ends a run comes first. A panic of the work continues in the caller.
///
/// # Errors
/// The host has no more threads or descriptors.
pub(crate) fn interruptible<T: Send + 'static>(
    signals: &Signals,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Outcome<T>, SystemError> {
    let ending = signals.ending()?;
    let (result, from_thread) = channel();
    // The end of the thread closes the pipe, even after a panic.
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (done, open) = pipe.cannot("create a pipe to the thread `prepare`")?;
    let thread = Builder::new().name("prepare".into()).spawn(move || {
        let _open = open;
        // The receiver is gone after a signal.
        let _ = result.send(catch_unwind(AssertUnwindSafe(work)));
    });
    thread.cannot("start the thread `prepare`")?;
    loop {
        let mut sources = [PollFd::new(&done, PollFlags::IN), PollFd::new(&ending, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut sources, None)).cannot("wait for the thread `prepare`")?;
        let is_done = !sources[0].revents().is_empty();
        if let Some(signal) = ending.read().and_then(|signal| u8::try_from(signal).ok()) {
            return Ok(Outcome::Interrupted(signal));
        }
        if is_done {
            let outcome = from_thread.recv().expect("the thread sends before it closes its pipe");
            return Ok(Outcome::Done(outcome.unwrap_or_else(|panic| resume_unwind(panic))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn work_without_a_signal_returns_its_result() {
        let signals = Signals::block().unwrap();
        assert_eq!(interruptible(&signals, || 7).unwrap(), Outcome::Done(7));
    }

    #[test]
    fn a_signal_does_not_wait_for_the_work() {
        let signals = Signals::block().unwrap();
        super::super::signals::raise(libc::SIGTERM);
        let (release, released) = channel::<()>();
        let outcome = interruptible(&signals, move || released.recv()).unwrap();
        assert_eq!(outcome, Outcome::Interrupted(15));
        release.send(()).unwrap();
    }

    #[test]
    fn a_panic_of_the_work_continues_in_the_caller() {
        let signals = Signals::block().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| interruptible(&signals, || panic!("of the work"))));
        assert!(outcome.is_err());
    }
}
