// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Long work before the machine runs, such as the conversion of an image, that a signal can interrupt: a thread of its own
//! (`prepare`) does it while `main` waits for signals. Interrupted work ends with the process, which the caller ends at once.

use super::signals::Signals;
use super::system_error::{Cannot as _, SystemError};
use std::os::fd::{AsRawFd as _, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// What `main` serves while it waits for the work.
pub(crate) trait Meanwhile {
    /// Ends the work early.
    type End;

    /// Readable when there is something to serve. It does not change.
    fn descriptor(&self) -> Option<RawFd>;

    /// Until there is something to serve, however long the descriptor is not readable.
    fn until_next(&self) -> Option<Duration>;

    /// Does what is possible now and returns without waiting.
    fn serve(&mut self) -> Option<Self::End>;
}

/// The work goes on until the process ends, unless it is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T, E> {
    Done(T),
    /// This signal ends the run.
    Signalled(u8),
    /// From [`Meanwhile::serve`].
    Ended(E),
}

/// Does `work`, unless a signal that ends a run comes first, or `meanwhile` ends it. A panic of the work continues in the caller.
///
/// # Errors
/// The host has no more threads or descriptors.
pub(crate) fn interruptible<T: Send + 'static, M: Meanwhile>(
    signals: &Signals,
    meanwhile: &mut M,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Outcome<T, M::End>, SystemError> {
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
    let epoll = Epoll::new().cannot("create an epoll set")?;
    let sources = [Some(done.as_raw_fd()), Some(ending.as_raw_fd()), meanwhile.descriptor()];
    for (source, descriptor) in sources.into_iter().enumerate() {
        let Some(descriptor) = descriptor else { continue };
        let event = EpollEvent::new(EventSet::IN | EventSet::HANG_UP, source as u64);
        epoll.ctl(ControlOperation::Add, descriptor, event).cannot("add a source to an epoll set")?;
    }
    loop {
        let timeout = meanwhile.until_next().map_or(-1, |wait| i32::try_from(wait.as_millis() + 1).unwrap_or(i32::MAX));
        let mut events = [EpollEvent::default(); 3];
        // EINTR is a turn without a ready source.
        let count = epoll.wait(timeout, &mut events).unwrap_or_default();
        if let Some(signal) = ending.read() {
            return Ok(Outcome::Signalled(signal.number));
        }
        if events[..count].iter().any(|event| event.data() == DONE) {
            let outcome = from_thread.recv().expect("the thread sends before it closes its pipe");
            return Ok(Outcome::Done(outcome.unwrap_or_else(|panic| resume_unwind(panic))));
        }
        if let Some(end) = meanwhile.serve() {
            return Ok(Outcome::Ended(end));
        }
    }
}

/// The end of the work, among the sources.
const DONE: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use vmm_sys_util::eventfd::EventFd;

    /// Ends the work once its event has come.
    struct Clients(EventFd);

    impl Clients {
        fn new() -> Self {
            Self(EventFd::new(libc::EFD_NONBLOCK).unwrap())
        }
    }

    impl Meanwhile for Clients {
        type End = u64;

        fn descriptor(&self) -> Option<RawFd> {
            Some(self.0.as_raw_fd())
        }

        fn until_next(&self) -> Option<Duration> {
            None
        }

        fn serve(&mut self) -> Option<u64> {
            self.0.read().ok()
        }
    }

    /// Work that ends when the sender is used or dropped.
    fn long_work() -> (Sender<()>, impl FnOnce() -> bool + Send) {
        let (release, released) = channel();
        (release, move || released.recv().is_ok())
    }

    #[test]
    fn work_without_a_signal_returns_its_result() {
        let signals = Signals::block().unwrap();
        assert_eq!(interruptible(&signals, &mut Clients::new(), || 7).unwrap(), Outcome::Done(7));
    }

    #[test]
    fn a_signal_does_not_wait_for_the_work() {
        let signals = Signals::block().unwrap();
        super::super::signals::raise(libc::SIGTERM);
        let (_release, work) = long_work();
        let outcome = interruptible(&signals, &mut Clients::new(), work).unwrap();
        assert_eq!(outcome, Outcome::Signalled(15));
    }

    #[test]
    fn clients_are_served_meanwhile_and_may_end_the_work() {
        let (signals, mut clients, (_release, work)) = (Signals::block().unwrap(), Clients::new(), long_work());
        clients.0.write(3).unwrap();
        assert_eq!(interruptible(&signals, &mut clients, work).unwrap(), Outcome::Ended(3));
    }

    #[test]
    fn a_panic_of_the_work_continues_in_the_caller() {
        let signals = Signals::block().unwrap();
        let run = || interruptible(&signals, &mut Clients::new(), || panic!("of the work"));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
