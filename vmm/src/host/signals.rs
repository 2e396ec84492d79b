// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals to this process, read from a descriptor. `main` blocks them before it starts the first thread, so that every thread
//! inherits the mask and no handler runs; `main`'s event loop reads the descriptor. The kick of the vCPU threads (`SIGRTMIN`) is not
//! among them.
//!
//! HUP is not handled if it is ignored at the start: that is how `nohup` makes a program outlive its terminal. INT and QUIT are
//! handled even then, because shells start every background job with them ignored. PIPE is ignored by the Rust runtime.
#![allow(unsafe_code, reason = "signal dispositions, masks and signalfd(2) have no safe wrapper here")]

use super::system_error::{Cannot as _, SystemError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signals of the contract, WINCH for the terminal's size, CONT for its modes.
const HANDLED: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGWINCH,
    libc::SIGCONT,
];
/// The signals that end a run whose workload was not executed yet.
const ENDING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Undoes what a caller left in this process: a blocked signal would never arrive, and with CHLD ignored the exit status of a child
/// is lost. A file that reaches its limit (`RLIMIT_FSIZE`) is an error of `write`, not the end of the process. Called first of all by
/// `main`.
pub(crate) fn reset_inherited() {
    // SAFETY: sets dispositions without handlers, and an empty mask.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocked signals.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
    nohup: bool,
}

impl Signals {
    /// Blocks the signals on the calling thread, which must be the only one.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub(crate) fn block() -> Result<Self, SystemError> {
        let nohup = is_ignored(libc::SIGHUP).cannot("examine the disposition of SIGHUP")?;
        let set = set_of(&HANDLED, nohup);
        // SAFETY: `set` is initialised; the old mask is not requested.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result)).cannot("block signals");
        }
        Ok(Self { descriptor: signalfd(&set)?, nohup })
    }

    /// Another descriptor, only for the signals that end a run before its workload runs. The others stay pending until
    /// [`Signals`] itself is read.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub(crate) fn ending(&self) -> Result<Self, SystemError> {
        Ok(Self { descriptor: signalfd(&set_of(&ENDING, self.nohup))?, nohup: self.nohup })
    }

    /// The next pending signal; never waits.
    #[must_use]
    pub(crate) fn read(&self) -> Option<i32> {
        const LENGTH: usize = size_of::<libc::signalfd_siginfo>();
        let mut bytes = [0_u8; LENGTH];
        loop {
            match rustix::io::read(&self.descriptor, &mut bytes) {
                // ssi_signo, the first member.
                Ok(LENGTH) => return Some(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
                Err(rustix::io::Errno::INTR) => {}
                _ => return None,
            }
        }
    }
}

impl AsFd for Signals {
    /// Readable while a signal is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads the disposition, into `action`.
    if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

fn set_of(signals: &[libc::c_int], nohup: bool) -> libc::sigset_t {
    // SAFETY: all-zero bytes are a valid `sigset_t`, and the calls only change it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals.iter().filter(|&&signal| !(nohup && signal == libc::SIGHUP)) {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn signalfd(set: &libc::sigset_t) -> Result<OwnedFd, SystemError> {
    // SAFETY: creates a new descriptor from an initialised set.
    let descriptor = unsafe { libc::signalfd(-1, std::ptr::from_ref(set), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error()).cannot("create a signalfd");
    }
    // SAFETY: the call above returned it, and nothing else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends a signal to the calling thread, where it is blocked; the test runner's other threads do not block it.
#[cfg(test)]
pub(super) fn raise(signal: libc::c_int) {
    // SAFETY: the signal is blocked, so no handler runs.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[cfg(test)]
#[path = "signals_tests.rs"]
mod tests;
