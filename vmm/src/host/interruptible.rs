// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Long work before the machine runs, such as an image's conversion, that a signal can end: it goes to a thread of its own
//! (`prepare`) while `main` listens. Work that is left behind ends with the process, which the caller lets end at once.

use super::signals::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::thread::Builder;

/// What came first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// The work is done.
    Done(T),
    /// This signal asks for the end. The work goes on until the process ends.
    Interrupted(u8),
}

/// Does `work`, unless a signal that ends a run comes first. A panic of it goes on in the caller.
///
/// # Errors
/// The host has no more threads or descriptors.
pub(crate) fn interruptible<T: Send + 'static>(
    signals: &Signals,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Outcome<T>> {
    let ending = signals.ending()?;
    let (result, from_thread) = channel();
    // The thread's end closes the pipe, whatever it ends by.
    let (done, open) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Builder::new().name("prepare".into()).spawn(move || {
        let _open = open;
        // Nobody waits any more if a signal came.
        let _ = result.send(catch_unwind(AssertUnwindSafe(work)));
    })?;
    loop {
        let mut sources = [PollFd::new(&done, PollFlags::IN), PollFd::new(&ending, PollFlags::IN)];
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
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
    fn work_without_a_signal_gives_its_result() {
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
    fn a_panic_of_the_work_is_the_callers() {
        let signals = Signals::block().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| interruptible(&signals, || panic!("of the work"))));
        assert!(outcome.is_err());
    }
}
