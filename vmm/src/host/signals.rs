// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals to this process as a descriptor. `main` blocks them before it starts the first thread, so that every thread
//! inherits the mask and no handler ever runs; the descriptor is read by `main`'s event loop. The kick of the vCPU threads
//! (`SIGRTMIN`) is not among them.
//!
//! HUP is left alone where it is ignored at the start: that is how `nohup` asks a program to outlive its terminal. INT and QUIT
//! are handled even then, because shells start every job in the background with them ignored, and a driver that sends them
//! from a script means them. PIPE is ignored by the Rust runtime. XFSZ is blocked and never read: a file that reaches its limit
//! (`RLIMIT_FSIZE`) is an error of `write`, not the end of the process.
#![allow(unsafe_code)] // Signal masks and signalfd(2) have no safe wrapper here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the contract gives a meaning, WINCH for the terminal's size, and CONT for its modes.
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
/// What ends a run whose workload has not been executed yet.
const ENDING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Blocked signals, to be read one by one.
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
    pub(crate) fn block() -> io::Result<Self> {
        let nohup = is_ignored(libc::SIGHUP)?;
        let set = set_of(&HANDLED, nohup);
        let mut blocked = set;
        // SAFETY: `blocked` is initialised; no old mask is asked for.
        let result = unsafe {
            libc::sigaddset(&raw mut blocked, libc::SIGXFSZ);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut())
        };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        Ok(Self { descriptor: signalfd(&set)?, nohup })
    }

    /// Another descriptor, for those signals only that end a run before its workload runs. The others stay pending
    /// while nobody reads [`Signals`] itself.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub(crate) fn ending(&self) -> io::Result<Self> {
        Ok(Self { descriptor: signalfd(&set_of(&ENDING, self.nohup))?, nohup: self.nohup })
    }

    /// The next signal that has arrived; never waits.
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
    /// Readable while a signal waits.
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

fn signalfd(set: &libc::sigset_t) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor from an initialised set.
    let descriptor = unsafe { libc::signalfd(-1, std::ptr::from_ref(set), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends a signal to the calling thread, which has it blocked: the test runner's other threads do not.
#[cfg(test)]
pub(super) fn raise(signal: libc::c_int) {
    // SAFETY: the signal is blocked, so no handler runs.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[cfg(test)]
#[path = "signals_tests.rs"]
mod tests;
