// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes a vCPU thread leave `KVM_RUN`: a signal whose handler sets `immediate_exit` in the
//! thread's own `kvm_run`. Without the flag, a signal that arrives just before `KVM_RUN` would be
//! lost (KVM API, `immediate_exit`). The handler runs on vCPU threads; any thread calls [`kick`].
#![allow(unsafe_code)] // A signal handler, and a pointer into memory shared with the kernel.

use kvm_bindings::kvm_run;
use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt as _;
use std::ptr::{addr_of_mut, null_mut};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

thread_local! {
    /// The `kvm_run` of this thread's vCPU; null on other threads.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(null_mut()) };
}

/// The ID of this process, for the handler: confined vCPU threads do not ask for it.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// The signal of a kick: the first real-time signal that the C library does not use.
#[must_use]
pub fn kick_signal() -> libc::c_int {
    signal()
}

fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info`; its sender is set for this code.
    let is_kick = unsafe { (*info).si_code == libc::SI_TKILL && (*info).si_pid() == PROCESS.load(Ordering::Relaxed) };
    if !is_kick {
        pass_on(signal);
        return;
    }
    let run = RUN.get();
    if !run.is_null() {
        // SAFETY: the pointer is set while this thread owns the vCPU, and cleared before the
        // mapping is removed; the kernel reads the byte at the next KVM_RUN. Volatile, because
        // nothing in this program reads it.
        unsafe { addr_of_mut!((*run).immediate_exit).write_volatile(1) };
    }
}

/// Another process sent the signal to this process, not to this thread: the main thread, which
/// blocks it, gets it.
fn pass_on(signal: libc::c_int) {
    // SAFETY: the calls take no pointers and are async-signal-safe; `errno` is the interrupted
    // code's afterwards.
    unsafe {
        let errno = *libc::__errno_location();
        let process = PROCESS.load(Ordering::Relaxed);
        libc::syscall(libc::SYS_tgkill, process, process, signal);
        *libc::__errno_location() = errno;
    }
}

/// Installs the signal handler. Called before the first vCPU thread starts. The main thread must
/// block the signal: what another process sends is passed on to it.
///
/// # Errors
/// `sigaction` failed.
pub fn install_kick_handler() -> Result<(), std::io::Error> {
    PROCESS.store(std::process::id().cast_signed(), Ordering::Relaxed);
    // SAFETY: all-zero bytes are a valid `sigaction`: an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is initialised, and `handle` is async-signal-safe.
    if unsafe { libc::sigaction(signal(), &raw const action, null_mut()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Unblocks the kick signal on the calling thread, which may have inherited a mask that blocks it.
pub(super) fn unblock_signal() {
    // SAFETY: `set` is initialised by sigemptyset before it is used; both calls only read and write
    // it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
    }
}

/// While it exists on a vCPU's thread, a kick of the thread reaches the vCPU.
pub(super) struct Kickable(());

impl Kickable {
    /// `run` must stay mapped while the result exists.
    pub(super) fn new(run: *mut kvm_run) -> Self {
        RUN.set(run);
        Self(())
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        RUN.set(null_mut());
    }
}

/// Kicks the vCPU that runs on `thread`.
pub fn kick<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle is not joined, so the thread's id is valid even if the thread has ended.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), signal()) };
}

/// CPU time that `thread` has used; `None` if it has ended.
#[must_use]
pub fn cpu_time<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    let mut clock = 0;
    // SAFETY: the handle is not joined, so the thread's id is valid even if the thread has ended;
    // `clock` is ours.
    if unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time`, which is ours.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    (read == 0).then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
}
