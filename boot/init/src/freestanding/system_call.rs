// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls that rustix does not wrap, or only in its runtime that replaces a C library:
//! starting and executing processes, signals, the clock. Numbers and structures are those of Linux
//! for x86-64 (`asm/unistd_64.h`, `linux/sched.h`).
// Reason for unsafe code: system calls take raw pointers.
#![allow(unsafe_code)]

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::ptr::null;
use core::sync::atomic::{AtomicBool, Ordering};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::Pid;
use rustix::thread::{UnshareFlags, unshare_unsafe};

const RT_SIGPROCMASK: usize = 14;
const IOCTL: usize = 16;
const BIND: usize = 49;
const SETSOCKOPT: usize = 54;
const EXECVE: usize = 59;
const RT_SIGTIMEDWAIT: usize = 128;
const EXIT_GROUP: usize = 231;
const CLOCK_SETTIME: usize = 227;
const CLOCK_GETTIME: usize = 228;
const SECCOMP: usize = 317;
const EXECVEAT: usize = 322;
const PIDFD_SEND_SIGNAL: usize = 424;
const CLONE3: usize = 435;
const CLOSE_RANGE: usize = 436;

const SIGCHLD: u64 = 17;
const AT_EMPTY_PATH: usize = 0x1000;
const SIGNAL_SET_SIZE: usize = 8;

/// Namespaces of a new process, for [`fork`].
pub(crate) mod clone_flags {
    pub(crate) const NEW_MOUNT: u64 = 0x0002_0000;
    pub(crate) const NEW_UTS: u64 = 0x0400_0000;
    pub(crate) const NEW_IPC: u64 = 0x0800_0000;
    /// The child is PID 1 of the new namespace.
    pub(crate) const NEW_PID: u64 = 0x2000_0000;
}
const CLONE_PIDFD: u64 = 0x0000_1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Whether this process came from [`fork`].
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// `struct clone_args`, up to and including `cgroup`.
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
/// The arguments are valid for the system call of that number.
unsafe fn call(number: usize, arguments: [usize; 5]) -> Result<usize, Errno> {
    let value: isize;
    // SAFETY: the kernel changes rax, rcx, r11 and what the arguments point to; the caller vouches
    // for the latter.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => value, in("rdi") arguments[0], in("rsi") arguments[1],
            in("rdx") arguments[2], in("r10") arguments[3], in("r8") arguments[4], out("rcx") _, out("r11") _,
            options(nostack));
    }
    usize::try_from(value).map_err(|_| Errno::from_raw_os_error(-value as i32))
}

/// Starts a process with the namespaces of `flags`, in the control group whose directory `cgroup`
/// is. The child runs `body` on its own copy of the memory and of the descriptor table, and ends
/// with status 127 if `body` returns.
pub(crate) fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce()) -> Result<(Pid, OwnedFd), Errno> {
    let mut pidfd = -1_i32;
    let arguments = CloneArguments {
        flags: flags | CLONE_PIDFD | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: SIGCHLD,
        cgroup: cgroup.map_or(0, |directory| directory.as_raw_fd() as u64),
        ..CloneArguments::default()
    };
    // SAFETY: reads a structure of the stated size and writes one descriptor number. The child
    // shares no memory with this process, so it may return here as well; there is one thread and no
    // lock that it could have copied.
    let pid = unsafe { call(CLONE3, [(&raw const arguments) as usize, size_of::<CloneArguments>(), 0, 0, 0]) }? as i32;
    if pid == 0 {
        IS_CHILD.store(true, Ordering::Relaxed);
        body();
        exit(127)
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((Pid::from_raw(pid).expect("the kernel gives children positive numbers"), pidfd))
}

/// Whether this process came from [`fork`] and has not executed a program yet.
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

pub(crate) fn exit(status: u8) -> ! {
    loop {
        // SAFETY: takes no pointer.
        let _ = unsafe { call(EXIT_GROUP, [status as usize, 0, 0, 0, 0]) };
    }
}

/// Closes all descriptors but 0 to 2 and those of `kept`.
pub(crate) fn close_all_but(kept: &mut [i32]) -> Result<(), Errno> {
    kept.sort_unstable();
    let mut first = 3;
    for &descriptor in kept.iter().filter(|&&descriptor| descriptor >= 3) {
        if descriptor > first {
            close_range(first, descriptor - 1)?;
        }
        first = descriptor + 1;
    }
    close_range(first, i32::MAX)
}

fn close_range(first: i32, last: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer. Descriptors are closed behind the back of their owners in this
    // process, which is a child that executes a program or ends, and uses none of them.
    unsafe { call(CLOSE_RANGE, [first as usize, last as usize, 0, 0, 0]) }.map(drop)
}

/// Strings with the array of pointers that `execve` takes.
pub(crate) struct StringArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([null()]).collect();
        Self { strings, pointers }
    }

    pub(crate) fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Executes `file`. Returns only if that fails.
pub(crate) fn execute(file: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    let addresses =
        [file.as_ptr() as usize, arguments.pointers.as_ptr() as usize, environment.pointers.as_ptr() as usize];
    // SAFETY: a string and two null-terminated arrays of strings, all alive.
    let result = unsafe { call(EXECVE, [addresses[0], addresses[1], addresses[2], 0, 0]) };
    result.expect_err("execve returns only with an error")
}

/// Executes the file that `program` is open on. Returns only if that fails.
pub(crate) fn execute_descriptor(program: BorrowedFd<'_>, arguments: &StringArray, environment: &StringArray) -> Errno {
    let arrays = [arguments.pointers.as_ptr() as usize, environment.pointers.as_ptr() as usize];
    let program = program.as_raw_fd() as usize;
    // SAFETY: an empty string and two null-terminated arrays of strings, all alive.
    let result = unsafe { call(EXECVEAT, [program, c"".as_ptr() as usize, arrays[0], arrays[1], AT_EMPTY_PATH]) };
    result.expect_err("execveat returns only with an error")
}

/// `struct sock_fprog`.
#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const u64,
}

/// Gives this process a seccomp filter. Each of `instructions` is a `struct sock_filter`.
pub(crate) fn install_filter(instructions: &[u64]) -> Result<(), Errno> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    let program = FilterProgram { length, instructions: instructions.as_ptr() };
    // SAFETY: reads a structure, and as many instructions of 8 bytes as it says; the kernel checks
    // them.
    unsafe { call(SECCOMP, [SECCOMP_SET_MODE_FILTER, 0, (&raw const program) as usize, 0, 0]) }.map(drop)
}

/// `struct sockaddr_ll`.
#[repr(C)]
#[derive(Default)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: i32,
    hardware_type: u16,
    packet_type: u8,
    length: u8,
    address: [u8; 8],
}

/// Opens a socket for whole frames of an interface that does not block. It receives frames of IPv4 that pass `filter`, each of
/// whose instructions is a `struct sock_filter`.
pub(crate) fn open_packet_socket(index: u32, filter: &[u64]) -> Result<OwnedFd, Errno> {
    const SOL_SOCKET: usize = 1;
    const SO_ATTACH_FILTER: usize = 26;
    const ETH_P_IP: u16 = 0x0800;
    // Without a protocol it receives nothing until it is bound.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let number = socket.as_raw_fd() as usize;
    let length = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = FilterProgram { length, instructions: filter.as_ptr() };
    let pointer = (&raw const program) as usize;
    // SAFETY: reads a structure of the stated size, and as many instructions of 8 bytes as it says; the kernel checks them.
    unsafe { call(SETSOCKOPT, [number, SOL_SOCKET, SO_ATTACH_FILTER, pointer, size_of::<FilterProgram>()]) }?;
    let address = LinkAddress {
        family: AddressFamily::PACKET.as_raw(),
        protocol: ETH_P_IP.to_be(),
        index: index as i32,
        ..LinkAddress::default()
    };
    // SAFETY: reads a structure of the stated size.
    unsafe { call(BIND, [number, (&raw const address) as usize, size_of::<LinkAddress>(), 0, 0]) }?;
    Ok(socket)
}

/// Sends a signal, including real-time signals, to the process of `pidfd`.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: u8) -> Result<(), Errno> {
    // SAFETY: the only pointer, to further information, is null.
    unsafe { call(PIDFD_SEND_SIGNAL, [pidfd.as_raw_fd() as usize, signal as usize, 0, 0, 0]) }.map(drop)
}

/// Blocks all signals of this process, or none.
pub(crate) fn block_signals(all: bool) {
    const SIG_SETMASK: usize = 2;
    let set: u64 = if all { !0 } else { 0 };
    // SAFETY: reads a set of the stated size and writes nothing. It fails only for invalid
    // arguments.
    let _ = unsafe { call(RT_SIGPROCMASK, [SIG_SETMASK, (&raw const set) as usize, 0, SIGNAL_SET_SIZE, 0]) };
}

/// A signal that was pending.
pub(crate) struct Taken {
    pub(crate) signal: u8,
    /// It is the kernel's: of a child, of the terminal.
    pub(crate) by_kernel: bool,
}

/// Takes one of the blocked signals. Without `wait`, fails with `EAGAIN` if none is pending.
pub(crate) fn take_signal(wait: bool) -> Result<Taken, Errno> {
    // `siginfo_t`: `si_code` is the third member.
    let (mut info, set, no_time) = ([0_i32; 32], !0_u64, [0_u64; 2]);
    let timeout = if wait { null() } else { &raw const no_time };
    let pointers = [(&raw const set) as usize, info.as_mut_ptr() as usize, timeout as usize];
    // SAFETY: reads a set of the stated size and, unless null, a `struct timespec`; writes a
    // `siginfo_t`, which has 128 bytes.
    let signal = unsafe { call(RT_SIGTIMEDWAIT, [pointers[0], pointers[1], pointers[2], SIGNAL_SET_SIZE, 0]) }?;
    Ok(Taken { signal: signal as u8, by_kernel: info[2] > 0 })
}

/// The monotonic clock. rustix would look for the vDSO, whose address it reads from a file that is
/// not mounted.
pub(crate) fn milliseconds_since_boot() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    // SAFETY: writes a `struct timespec`, two 64-bit numbers. It fails only for invalid arguments.
    let _ = unsafe { call(CLOCK_GETTIME, [CLOCK_MONOTONIC, (&raw mut time) as usize, 0, 0, 0]) };
    time[0] * 1000 + time[1] / 1_000_000
}

/// Sets the wall clock to so many nanoseconds since 1970.
pub(crate) fn set_wall_clock(nanoseconds: u64) -> Result<(), Errno> {
    const CLOCK_REALTIME: usize = 0;
    let time = [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000];
    // SAFETY: reads a `struct timespec`, two 64-bit numbers.
    unsafe { call(CLOCK_SETTIME, [CLOCK_REALTIME, (&raw const time) as usize, 0, 0, 0]) }.map(drop)
}

/// The mount namespace of the process of `pidfd`. Kernels before 6.11 do not have this call.
pub(crate) fn mount_namespace(pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const PIDFD_GET_MNT_NAMESPACE: usize = 0xff03;
    // SAFETY: takes no pointer.
    let descriptor = unsafe { call(IOCTL, [pidfd.as_raw_fd() as usize, PIDFD_GET_MNT_NAMESPACE, 0, 0, 0]) }?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

/// Bytes that [`add_entropy`] takes.
pub(crate) const ENTROPY_BYTES: usize = guest_protocol::identity::ENTROPY_BYTES;

/// `struct rand_pool_info` (`linux/random.h`).
#[repr(C)]
struct RandomPoolInfo {
    entropy_bits: i32,
    bytes: i32,
    entropy: [u8; ENTROPY_BYTES],
}

/// Credits `entropy` to the kernel and makes all its random numbers depend on it from now on, those
/// in other processes, too. `random` is `/dev/urandom`.
pub(crate) fn add_entropy(random: BorrowedFd<'_>, entropy: [u8; ENTROPY_BYTES]) -> Result<(), Errno> {
    const RNDADDENTROPY: usize = 0x4008_5203;
    const RNDRESEEDCRNG: usize = 0x5207;
    let (bytes, random) = (ENTROPY_BYTES as i32, random.as_raw_fd() as usize);
    let info = RandomPoolInfo { entropy_bits: 8 * bytes, bytes, entropy };
    // SAFETY: reads a structure, and as many bytes after it as it says.
    unsafe { call(IOCTL, [random, RNDADDENTROPY, (&raw const info) as usize, 0, 0]) }?;
    // SAFETY: takes no pointer.
    unsafe { call(IOCTL, [random, RNDRESEEDCRNG, 0, 0, 0]) }.map(drop)
}

/// Writes the file system of `file`, and lets no process change it until [`thaw_file_system`].
pub(crate) fn freeze_file_system(file: BorrowedFd<'_>) -> Result<(), Errno> {
    const FIFREEZE: usize = 0xc004_5877;
    // SAFETY: the kernel does not read the argument.
    unsafe { call(IOCTL, [file.as_raw_fd() as usize, FIFREEZE, 0, 0, 0]) }.map(drop)
}

/// Lets processes change the file system of `file` again.
pub(crate) fn thaw_file_system(file: BorrowedFd<'_>) -> Result<(), Errno> {
    const FITHAW: usize = 0xc004_5878;
    // SAFETY: the kernel does not read the argument.
    unsafe { call(IOCTL, [file.as_raw_fd() as usize, FITHAW, 0, 0, 0]) }.map(drop)
}

/// Makes the control group of this process the root of a new control group namespace, which
/// therefore cannot be created by [`fork`]. A kernel without control groups has no such namespace.
pub(crate) fn unshare_cgroup_namespace() {
    // SAFETY: only the separation of descriptor tables could matter.
    let _ = unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) };
}
