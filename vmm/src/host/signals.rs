// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals to this process, all but KILL and STOP, read from a descriptor. `main` blocks them before it starts the first thread, so
//! that every thread inherits the mask; `main`'s event loop reads the descriptor.
//!
//! | signal | here |
//! |---|---|
//! | HUP | not read if it is ignored at the start: that is how `nohup` makes a program outlive its terminal. INT and QUIT are read even then, because shells start every background job with them ignored |
//! | CHLD | of a child of this process: not read |
//! | PIPE, XFSZ | of a write of this process: not read. The write fails |
//! | TSTP, TTIN, TTOU | of the terminal: this process stops, as any job does. TTIN and TTOU cannot be blocked for that: a read would fail and a change of the terminal's modes succeed. Their handler queues those that a process sent |
//! | 32, 33 | the C library's, which it unblocks in new threads: the same handler queues them |
//! | RTMIN | the kick of a vCPU thread is sent to that thread. Its handler (`vmm/kvm/src/kick.rs`) passes on what it was not sent for |
//! | SEGV, ILL, FPE, TRAP | of a fault of this process: its end, blocked or not |
//! | BUS | of guest memory that is lost: `lost_memory.rs`, on the thread that accessed it. Of another fault: its end. Not blocked, or each would be. Its handler queues those that a process sent |
//! | SYS | of a system call that a filter refused: `forbidden_call.rs`, on the thread that made it. Not blocked, or it would be the end. Its handler queues those that a process sent |
#![allow(unsafe_code, reason = "signal dispositions, masks and signalfd(2) have no safe wrapper here")]

use super::system_error::{Cannot as _, SystemError};
use super::{forbidden_call, lost_memory};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Not blocked: they cannot be, or have a handler.
const NOT_BLOCKED: [libc::c_int; 6] =
    [libc::SIGKILL, libc::SIGSTOP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGSYS, libc::SIGBUS];
/// Kept from programs by the C library, which refuses to change their disposition.
const OF_THE_C_LIBRARY: [libc::c_int; 2] = [32, SETXID];
/// Sent by the C library to each thread when the process changes its user.
const SETXID: libc::c_int = 33;
/// Its handler for that.
static OF_LIBRARY: AtomicUsize = AtomicUsize::new(0);
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

/// Queued by the handler with the number of the signal that came. A real-time signal, so that several are kept.
fn carrier() -> libc::c_int {
    libc::SIGRTMAX()
}

/// A signal to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    /// From 1 to 64.
    pub(crate) number: u8,
    /// It is the kernel's, for example the terminal's, and not another process's.
    pub(crate) by_kernel: bool,
}

#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
    nohup: bool,
    /// This process is a job of a shell that can stop it.
    has_job_control: bool,
}

impl Signals {
    /// Blocks the signals on the calling thread, which must be the only one.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub(crate) fn block() -> Result<Self, SystemError> {
        let ignored = |signal| is_ignored(signal).cannot("examine the disposition of a signal");
        let (nohup, has_job_control) = (ignored(libc::SIGHUP)?, !ignored(libc::SIGTSTP)?);
        // The C library installs its handlers when the first thread is created.
        let first = std::thread::Builder::new().spawn(|| {}).cannot("start a thread")?;
        let _ = first.join();
        install_handlers(has_job_control).cannot("install a signal handler")?;
        let set = all_blocked(nohup);
        // SAFETY: `set` is initialised; the old mask is not requested.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result)).cannot("block signals");
        }
        Ok(Self { descriptor: signalfd(&set)?, nohup, has_job_control })
    }

    /// Another descriptor, only for the signals that end a run before its workload runs. The others stay pending until
    /// [`Signals`] itself is read.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub(crate) fn ending(&self) -> Result<Self, SystemError> {
        Ok(Self { descriptor: signalfd(&set_of(&ENDING, self.nohup))?, ..*self })
    }

    /// The next pending signal; never waits.
    #[must_use]
    pub(crate) fn read(&self) -> Option<ReceivedSignal> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.descriptor, &mut info) {
                Ok(length) if length == info.len() => {
                    if let Some(received) = self.examine(&info) {
                        return Some(received);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                _ => return None,
            }
        }
    }

    /// The signal of a `struct signalfd_siginfo`, unless it is one of this process's own, by the table above.
    fn examine(&self, info: &[u8]) -> Option<ReceivedSignal> {
        let member = |offset: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|byte| info[offset + byte]));
        let number = member(offset_of!(libc::signalfd_siginfo, ssi_signo));
        let code = member(offset_of!(libc::signalfd_siginfo, ssi_code));
        let is_own = member(offset_of!(libc::signalfd_siginfo, ssi_pid)) == std::process::id().cast_signed();
        let carried = member(offset_of!(libc::signalfd_siginfo, ssi_int));
        let received = |number: i32| Some(ReceivedSignal { number: number as u8, by_kernel: code == libc::SI_KERNEL });
        match (number, code) {
            (_, libc::SI_QUEUE) if is_own && number == carrier() => received(carried),
            // The kernel sends the signal of a write in the name of the process that writes.
            (_, libc::SI_USER) if is_own => None,
            (libc::SIGCHLD, 1..) => None,
            (libc::SIGTSTP, libc::SI_KERNEL) => {
                if self.has_job_control {
                    stop();
                }
                None
            }
            _ => received(number),
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

/// Calls `clean_up` when a signal ends this process (HUP, INT, QUIT, TERM), just before. Ignored ones stay ignored. For verbs that
/// have no event loop; the calling thread must be the only one.
///
/// # Errors
/// The host has no more threads.
pub(crate) fn before_end(clean_up: impl FnOnce() + Send + 'static) -> Result<(), SystemError> {
    let mut ending = Vec::new();
    for signal in ENDING {
        if !is_ignored(signal).cannot("examine the disposition of a signal")? {
            ending.push(signal);
        }
    }
    let set = set_of(&ending, false);
    // SAFETY: `set` is initialised; the old mask is not requested.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result)).cannot("block signals");
    }
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both are initialised.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } != 0 {
            return;
        }
        clean_up();
        let set = set_of(&[signal], false);
        // SAFETY: `set` is initialised. The signal has its default effect, which is the end of the process.
        unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".into()).spawn(wait);
    thread.map(drop).cannot("start the thread `signals`")
}

/// Stops this process until it is continued.
fn stop() {
    // SAFETY: takes no pointer.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// Runs on any thread.
extern "C" fn on_unblocked(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info`; all calls are async-signal-safe, and `errno` is the interrupted code's afterwards.
    // What is stored in OF_LIBRARY besides 0 and 1 (default and ignored) is a handler.
    unsafe {
        let errno = *libc::__errno_location();
        let is_handled = match signal {
            libc::SIGSYS => forbidden_call::on_signal(info, context),
            libc::SIGBUS => lost_memory::on_signal(info, context),
            _ => false,
        };
        if is_handled {
            *libc::__errno_location() = errno;
            return;
        }
        let is_own = (*info).si_code == libc::SI_TKILL && (*info).si_pid() == libc::getpid();
        let of_library = OF_LIBRARY.load(Ordering::Relaxed);
        if (*info).si_code == libc::SI_KERNEL {
            stop();
        } else if signal == SETXID && is_own && of_library > 1 {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(of_library);
            handler(signal, info, context);
        } else {
            let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(signal as usize) };
            libc::sigqueue(libc::getpid(), carrier(), value);
        }
        *libc::__errno_location() = errno;
    }
}

/// Installs the handler of the signals that are not blocked. Those of job control stay ignored where they are.
fn install_handlers(has_job_control: bool) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigaction`: an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_unblocked as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    let job_control: &[_] = if has_job_control { &[libc::SIGTTIN, libc::SIGTTOU] } else { &[] };
    for &signal in job_control.iter().chain(&[libc::SIGSYS, libc::SIGBUS, carrier()]) {
        // SAFETY: `action` is initialised, and its handler is async-signal-safe.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // The C library refuses the other two. The kernel's form of the action, with what the C library added to it, is that of the
    // carrier, which is blocked.
    let ours = kernel_action(carrier(), None)?;
    let of_library = kernel_action(SETXID, None)?[0];
    if of_library != ours[0] {
        OF_LIBRARY.store(of_library as usize, Ordering::Relaxed);
    }
    for signal in OF_THE_C_LIBRARY {
        kernel_action(signal, Some(&ours))?;
    }
    Ok(())
}

/// The kernel's `struct sigaction` on 64-bit architectures; the handler is its first member.
type KernelAction = [u64; 4];

/// Sets the action of a signal, if one is given. Returns the one before.
fn kernel_action(signal: libc::c_int, new: Option<&KernelAction>) -> io::Result<KernelAction> {
    let mut old = KernelAction::default();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both are null or have the structure's size; the last argument is the size of the mask in it. The caller passes an
    // action that the kernel returned.
    match unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, &raw mut old, size_of::<u64>()) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
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

/// Everything that is read.
fn all_blocked(nohup: bool) -> libc::sigset_t {
    // SAFETY: all-zero bytes are a valid `sigset_t`, and the calls only change it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        let ignored = nohup.then_some(libc::SIGHUP);
        for signal in NOT_BLOCKED.into_iter().chain(OF_THE_C_LIBRARY).chain(ignored) {
            libc::sigdelset(&raw mut set, signal);
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

/// Blocks every signal on the calling thread but SYS, BUS, `others`, and those that cannot be blocked: handlers of the others run on
/// `main`, where what they call is allowed.
pub(crate) fn block_all_but(others: &[libc::c_int]) {
    let mut mask = u64::MAX;
    for signal in others.iter().chain(&[libc::SIGSYS, libc::SIGBUS]) {
        mask &= !(1 << (signal - 1));
    }
    // SAFETY: the system call, because the C library leaves its own signals out; it reads the eight bytes of `mask`.
    unsafe {
        let none = std::ptr::null_mut::<libc::c_void>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, size_of::<u64>());
    }
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
