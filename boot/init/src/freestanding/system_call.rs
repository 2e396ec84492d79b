// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls that rustix does not wrap, or not without its C-library-like runtime: starting and executing processes
//! and waiting for signals. Numbers and structures are Linux' for x86-64 (`asm/unistd_64.h`, `linux/sched.h`).
// Reason for unsafe code: system calls take raw pointers, and a new process needs a stack of its own.
#![allow(unsafe_code)]

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::ptr::null;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

const RT_SIGPROCMASK: usize = 14;
const EXECVE: usize = 59;
const RT_SIGTIMEDWAIT: usize = 128;
const EXIT_GROUP: usize = 231;
const CLOCK_GETTIME: usize = 228;
const EXECVEAT: usize = 322;
const PIDFD_SEND_SIGNAL: usize = 424;
const CLONE3: usize = 435;

const SIGCHLD: u64 = 17;
const AT_EMPTY_PATH: usize = 0x1000;
const SIGNAL_SET_BYTES: usize = 8;
/// Bytes of the stack of a child before it executes; untouched pages cost nothing.
const CHILD_STACK: usize = 64 << 10;

/// Namespaces and shared resources of a child, for [`run_in_child`].
pub(crate) mod clone_flags {
    /// A mount namespace of its own.
    pub(crate) const NEW_MOUNTS: u64 = 0x0002_0000;
    /// A host name of its own.
    pub(crate) const NEW_HOST_NAME: u64 = 0x0400_0000;
    /// System V IPC and POSIX message queues of its own.
    pub(crate) const NEW_IPC: u64 = 0x0800_0000;
    /// The child is PID 1 of a new PID namespace.
    pub(crate) const NEW_PIDS: u64 = 0x2000_0000;
    /// One table of file descriptors for both, until the child leaves it.
    pub(crate) const SHARED_FILES: u64 = 0x0000_0400;
}
const CLONE_VM: u64 = 0x0000_0100;
const CLONE_PIDFD: u64 = 0x0000_1000;
const CLONE_VFORK: u64 = 0x0000_4000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, up to and with `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// # Safety
/// As the system call of that number demands.
unsafe fn call(number: usize, arguments: [usize; 5]) -> Result<usize, Errno> {
    let value: isize;
    // SAFETY: the kernel changes rax, rcx, r11 and what the arguments point to; the caller vouches for the latter.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => value, in("rdi") arguments[0], in("rsi") arguments[1],
            in("rdx") arguments[2], in("r10") arguments[3], in("r8") arguments[4], out("rcx") _, out("r11") _,
            options(nostack));
    }
    outcome(value)
}

fn outcome(value: isize) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| Errno::from_raw_os_error(-value as i32))
}

/// Runs `body` in a new process with the namespaces of `flags`, in the control group that `cgroup` is a folder of, and
/// returns once that process has executed a program or ended. `body` returns only if it could not execute one; the
/// process ends then.
///
/// The child shares the caller's memory (`CLONE_VM | CLONE_VFORK`): no page table is copied and no page faults follow,
/// and what `body` writes, such as why it failed, is there for the caller until it starts another child. That the
/// caller is suspended meanwhile is what makes the exclusive borrow in `body` true.
///
/// # Errors
/// There is no such process.
pub(crate) fn run_in_child(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    body: &mut dyn FnMut(),
) -> Result<(Pid, OwnedFd), Errno> {
    let mut stack: Vec<u128> = Vec::with_capacity(CHILD_STACK / size_of::<u128>());
    let mut pidfd = -1_i32;
    let mut body = body;
    let arguments = CloneArguments {
        flags: flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: SIGCHLD,
        stack: stack.as_mut_ptr() as u64,
        stack_size: CHILD_STACK as u64,
        cgroup: cgroup.map_or(0, |folder| folder.as_raw_fd() as u64),
        ..CloneArguments::default()
    };
    super::heap::begin_child();
    let value: isize;
    // SAFETY: the child starts on the stack reserved above, 16-byte aligned as the calling convention wants it before
    // the call, and leaves this block only by ending; the parent goes on behind it, with its registers as they were.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
            inlateout("rax") CLONE3 as isize => value, in("rdi") &raw const arguments,
            in("rsi") size_of::<CloneArguments>(), in("r12") &raw mut body,
            in("r13") child_main as unsafe extern "C" fn(*mut &mut dyn FnMut()) -> !, out("rcx") _, out("r11") _);
    }
    super::heap::end_child();
    let pid = outcome(value)? as i32;
    drop(stack);
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((Pid::from_raw(pid).expect("the kernel gives children positive numbers"), pidfd))
}

/// # Safety
/// `body` points to a closure that nobody else uses meanwhile.
unsafe extern "C" fn child_main(body: *mut &mut dyn FnMut()) -> ! {
    // SAFETY: the caller's promise.
    unsafe { (*body)() };
    exit(127)
}

/// Ends this process.
pub(crate) fn exit(status: u8) -> ! {
    loop {
        // SAFETY: takes no pointer.
        let _ = unsafe { call(EXIT_GROUP, [status as usize, 0, 0, 0, 0]) };
    }
}

/// Strings with the array of pointers that `execve` wants.
pub(crate) struct StringArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    /// `strings` in their order.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([null()]).collect();
        Self { strings, pointers }
    }

    /// The strings.
    pub(crate) fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Executes `file`; returns only to say why not.
pub(crate) fn execute(file: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    let addresses =
        [file.as_ptr() as usize, arguments.pointers.as_ptr() as usize, environment.pointers.as_ptr() as usize];
    // SAFETY: a string and two arrays of strings with a null at the end, all alive.
    let result = unsafe { call(EXECVE, [addresses[0], addresses[1], addresses[2], 0, 0]) };
    result.expect_err("execve returns only with an error")
}

/// Executes the file that `program` is open on; returns only to say why not.
pub(crate) fn execute_descriptor(program: BorrowedFd<'_>, arguments: &StringArray, environment: &StringArray) -> Errno {
    let arrays = [arguments.pointers.as_ptr() as usize, environment.pointers.as_ptr() as usize];
    let program = program.as_raw_fd() as usize;
    // SAFETY: an empty string and two arrays of strings with a null at the end, all alive.
    let result = unsafe { call(EXECVEAT, [program, c"".as_ptr() as usize, arrays[0], arrays[1], AT_EMPTY_PATH]) };
    result.expect_err("execveat returns only with an error")
}

/// Sends any signal, real-time ones too, to the process of `pidfd`.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: u8) -> Result<(), Errno> {
    // SAFETY: the one pointer, to further information, is null.
    unsafe { call(PIDFD_SEND_SIGNAL, [pidfd.as_raw_fd() as usize, signal as usize, 0, 0, 0]) }.map(drop)
}

/// Blocks all signals of this process, or none.
pub(crate) fn block_signals(all: bool) {
    const SIG_SETMASK: usize = 2;
    let set: u64 = if all { !0 } else { 0 };
    // SAFETY: reads a set of the stated size and writes nothing. It fails for wrong arguments only.
    let _ = unsafe { call(RT_SIGPROCMASK, [SIG_SETMASK, (&raw const set) as usize, 0, SIGNAL_SET_BYTES, 0]) };
}

/// Waits for one of the blocked signals and takes it.
pub(crate) fn wait_for_signal() -> Result<u8, Errno> {
    let set = !0_u64;
    // SAFETY: reads a set of the stated size; the pointers to what else it could tell are null.
    unsafe { call(RT_SIGTIMEDWAIT, [(&raw const set) as usize, 0, 0, SIGNAL_SET_BYTES, 0]) }.map(|signal| signal as u8)
}

/// The monotonic clock. rustix would look for the kernel's own code for it, whose place is in a file that is not mounted.
pub(crate) fn milliseconds_since_boot() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    // SAFETY: writes a `struct timespec`, two 64-bit numbers. It fails for wrong arguments only.
    let _ = unsafe { call(CLOCK_GETTIME, [CLOCK_MONOTONIC, (&raw mut time) as usize, 0, 0, 0]) };
    time[0] * 1000 + time[1] / 1_000_000
}

/// Stops sharing this with other processes, and goes on with a copy or a new one of its own.
pub(crate) fn leave(shared: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: of what can be left, the table of descriptors is the one that could matter: descriptors keep their numbers
    // and stay open here, whoever closes them elsewhere.
    unsafe { rustix::thread::unshare_unsafe(shared) }
}
