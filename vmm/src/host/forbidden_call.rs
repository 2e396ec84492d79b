// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls that a thread's filter does not allow. The first is stored, and `main` is woken; the call fails with EPERM, so that
//! the thread ends in the usual order. Nothing here allocates or locks: [`on_signal`] runs in a signal handler, on any thread.
#![allow(unsafe_code, reason = "reads and changes what the kernel passes to a signal handler")]

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU64, Ordering};

/// `si_code` of a SIGSYS that a filter caused.
const SYS_SECCOMP: libc::c_int = 1;
/// `TASK_COMM_LEN` without its last byte.
const NAME_SIZE: usize = 16;
const NONE: i64 = -1;
const REFUSED: i64 = -(libc::EPERM as i64);

thread_local! {
    static NAME: Cell<[u8; NAME_SIZE]> = const { Cell::new([0; NAME_SIZE]) };
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

static FIRST: AtomicI64 = AtomicI64::new(NONE);
/// Its thread. Stored after the call: an interrupted reader sees an empty name at worst.
static THREAD: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
/// Threads that pass on what other processes send.
const WITH_OTHER_SIGNALS: [&[u8]; 3] = [b"", b"main", b"io"];

/// An eventfd, open as long as the process runs.
static WAKE: AtomicI32 = AtomicI32::new(-1);
static IS_REPORTED: AtomicU8 = AtomicU8::new(0);

/// A system call that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForbiddenCall {
    pub(crate) thread: String,
    pub(crate) number: i64,
}

/// The calling thread has a filter from now on, and is called `name` in reports.
pub(crate) fn name_thread(name: &str) {
    let mut bytes = [0; NAME_SIZE];
    let length = name.len().min(NAME_SIZE);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    NAME.set(bytes);
}

/// Does `step`, whose forbidden calls fail and are not reported.
pub(super) fn expected(step: impl FnOnce()) {
    IS_EXPECTED.set(true);
    step();
    IS_EXPECTED.set(false);
}

/// `descriptor`, an eventfd that stays open, is written to after a refused call.
pub(crate) fn wake(descriptor: libc::c_int) {
    WAKE.store(descriptor, Ordering::SeqCst);
    if FIRST.load(Ordering::SeqCst) != NONE {
        write_event(descriptor);
    }
}

/// The first refused call of this process.
#[must_use]
pub(crate) fn first() -> Option<ForbiddenCall> {
    let number = FIRST.load(Ordering::SeqCst);
    let bytes = [&THREAD[0], &THREAD[1]].map(|half| half.load(Ordering::SeqCst).to_ne_bytes()).concat();
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    (number != NONE).then(|| ForbiddenCall { thread: String::from_utf8_lossy(name).into_owned(), number })
}

/// Whether the handler has a call to report that [`first`] was not asked for yet.
#[must_use]
pub(crate) fn take_unreported() -> Option<ForbiddenCall> {
    let call = first()?;
    (IS_REPORTED.swap(1, Ordering::SeqCst) == 0).then_some(call)
}

/// Handles a SIGSYS; returns false if another process sent it and this thread passes it on. Async-signal-safe.
///
/// # Safety
/// The arguments are those of a handler with `SA_SIGINFO`.
pub(super) unsafe fn on_signal(info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: the caller's promise.
    let is_by_filter = unsafe { (*info).si_code } == SYS_SECCOMP;
    let name = NAME.get();
    if !is_by_filter {
        return !passes_signals_on();
    }
    // SAFETY: the context is a `ucontext_t`. The kernel has put the number of the call back into RAX, which becomes its result.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let result = &mut registers[libc::REG_RAX as usize];
    let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| name[at + byte]));
    if IS_EXPECTED.get() {
        *result = REFUSED;
        return true;
    }
    if FIRST.compare_exchange(NONE, *result, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        THREAD[0].store(half(0), Ordering::SeqCst);
        THREAD[1].store(half(8), Ordering::SeqCst);
        write_event(WAKE.load(Ordering::SeqCst));
    }
    *result = REFUSED;
    true
}

/// Whether the calling thread passes on what another process sent. The kernel prefers `main`. What reaches another thread, which may
/// not queue it, is lost.
pub(super) fn passes_signals_on() -> bool {
    let name = NAME.get();
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE);
    WITH_OTHER_SIGNALS.contains(&&name[..length])
}

/// Adds one to an eventfd. Async-signal-safe.
pub(super) fn write_event(descriptor: libc::c_int) {
    let one = 1_u64;
    // SAFETY: reads the eight bytes of `one`. It fails where there is no descriptor.
    unsafe { libc::write(descriptor, (&raw const one).cast(), size_of::<u64>()) };
}
