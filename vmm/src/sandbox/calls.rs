// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The system calls of each kind of thread while the guest runs: data, to be read from top to bottom. What is not listed ends the
//! run. How to add one is in `vmm/docs/security.md`.
//!
//! A call whose arguments matter has a rule for one of them; several lines with the same call are alternatives. Numbers of
//! arguments count from 0.

use super::thread::Thread;

/// A system call, and what one of its arguments must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    #[cfg_attr(not(test), expect(dead_code, reason = "for a reader, and for tests"))]
    pub(super) name: &'static str,
    pub(super) number: i64,
    pub(super) rule: Rule,
}

/// An argument's number, and its values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    Any,
    /// One of the values, compared as 32 bits.
    OneOf(u8, &'static [u64]),
    /// None of the bits.
    Without(u8, u64),
    /// The ID of this process.
    Own(u8),
    /// The ID of this process, or of one that it started before.
    OwnOrHelper(u8),
    /// The call fails with ENOSYS, as where the kernel lacks it, and the C library makes another one.
    Missing,
}

/// A line of a list.
macro_rules! call {
    ($number:ident) => {
        call!($number, Rule::Any)
    };
    ($number:ident, $rule:expr) => {
        Call { name: stringify!($number), number: libc::$number, rule: $rule }
    };
}

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const AF_UNIX: u64 = libc::AF_UNIX as u64;
const FIONBIO: u64 = libc::FIONBIO;

/// Of every thread: memory without code (`madvise`: the stack of a thread that ends), locks, the clock where the vDSO has none, its
/// end, and what the handler of a violation itself calls (`write`, `rt_sigreturn`).
const COMMON: &[Call] = &[
    call!(SYS_write),
    call!(SYS_futex),
    call!(SYS_sched_yield),
    call!(SYS_mmap, Rule::Without(2, PROT_EXEC)),
    call!(SYS_munmap),
    call!(SYS_madvise, Rule::OneOf(2, &[libc::MADV_DONTNEED as u64])),
    call!(SYS_brk),
    call!(SYS_clock_gettime),
    call!(SYS_restart_syscall),
    call!(SYS_rt_sigreturn),
    call!(SYS_rt_sigprocmask),
    call!(SYS_sigaltstack),
    call!(SYS_exit),
    call!(SYS_close),
    // The standard library checks a descriptor before it closes it.
    #[cfg(debug_assertions)]
    call!(SYS_fcntl, Rule::OneOf(1, &[libc::F_GETFD as u64])),
];

/// What other processes send instead of a kick goes on to `main` (`tgkill`); the offloads of a tap that the driver has chosen.
const VCPU: &[Call] = &[
    call!(SYS_ioctl, Rule::OneOf(1, &kvm::VCPU_IOCTLS)),
    call!(SYS_ioctl, Rule::OneOf(1, &[TUNSETOFFLOAD])),
    call!(SYS_tgkill, Rule::Own(0)),
];

const TUNSETOFFLOAD: u64 = 0x4004_54d0;

/// Of every event loop.
const EVENT_LOOP: &[Call] = &[call!(SYS_read), call!(SYS_epoll_wait), call!(SYS_epoll_ctl), call!(SYS_timerfd_settime)];

/// The console and the random numbers: the workload's streams, whatever they are, and the logs with their rotation. Reading a
/// terminal from the background stops the process (`kill`), signals of a terminal are queued for `main`.
const IO: &[Call] = &[
    call!(SYS_getrandom),
    call!(SYS_mremap),
    call!(SYS_readv),
    call!(SYS_writev),
    call!(SYS_recvmsg),
    call!(SYS_sendmsg),
    call!(SYS_ppoll),
    call!(SYS_openat),
    call!(SYS_unlink),
    call!(SYS_rename),
    call!(SYS_ftruncate),
    call!(SYS_getpid),
    call!(SYS_getuid),
    call!(SYS_kill, Rule::Own(0)),
    call!(SYS_rt_sigqueueinfo, Rule::Own(0)),
];

/// Of every interface: frames of a stream or the state of the link, and the metadata service: documents, which may be large, and
/// tokens.
const INTERFACE: &[Call] = &[call!(SYS_recvfrom), call!(SYS_sendto), call!(SYS_mremap), call!(SYS_getrandom)];

/// Frames of the guest, partly in its memory, and the offloads that the driver changes by a command.
const TAP: &[Call] = &[call!(SYS_writev), call!(SYS_ioctl, Rule::OneOf(1, &[TUNSETOFFLOAD]))];

/// Frames with their headers and VLAN tags.
const PACKET_SOCKET: &[Call] = &[call!(SYS_recvmsg), call!(SYS_sendmsg), call!(SYS_getsockopt)];

/// The connection to passt, and the end of it.
const STREAM: &[Call] = &[call!(SYS_shutdown)];

/// The stream to a switch, which is connected again.
const NET_SOCKET: &[Call] = &[
    call!(SYS_shutdown),
    call!(SYS_timerfd_gettime),
    call!(SYS_socket, Rule::OneOf(0, &[AF_UNIX])),
    call!(SYS_connect),
];

/// Programs of the host on both ends of the socket device.
const VSOCK: &[Call] = &[
    call!(SYS_mremap),
    call!(SYS_recvfrom),
    call!(SYS_sendto),
    call!(SYS_recvmsg),
    call!(SYS_sendmsg),
    call!(SYS_shutdown),
    call!(SYS_accept4),
    call!(SYS_socket, Rule::OneOf(0, &[AF_UNIX])),
    call!(SYS_connect),
];

/// Sectors of an open file.
const DISK: &[Call] = &[call!(SYS_preadv), call!(SYS_pwritev), call!(SYS_fdatasync), call!(SYS_fallocate)];

/// Directories of the host. Landlock limits which.
const ANY_SHARE: &[Call] = &[
    call!(SYS_mremap),
    call!(SYS_preadv),
    call!(SYS_openat2),
    call!(SYS_statx),
    call!(SYS_fstat),
    call!(SYS_newfstatat),
    call!(SYS_fstatfs),
    call!(SYS_getdents64),
    call!(SYS_lseek),
    call!(SYS_readlinkat),
    call!(SYS_fsync),
    call!(SYS_fdatasync),
    call!(SYS_syncfs),
    call!(SYS_getxattr),
    call!(SYS_listxattr),
];

/// Files that are opened to read them.
const READ_ONLY_SHARE: &[Call] =
    &[call!(SYS_open, Rule::Without(1, TO_CHANGE)), call!(SYS_openat, Rule::Without(2, TO_CHANGE))];
const TO_CHANGE: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u64;

/// Every change that a file system has.
const SHARE: &[Call] = &[
    call!(SYS_open),
    call!(SYS_openat),
    call!(SYS_pwritev),
    call!(SYS_pwritev2),
    call!(SYS_mkdirat),
    call!(SYS_mknodat),
    call!(SYS_symlinkat),
    call!(SYS_linkat),
    call!(SYS_unlinkat),
    call!(SYS_renameat2),
    call!(SYS_fchmod),
    call!(SYS_fchmodat),
    call!(SYS_fchownat),
    call!(SYS_utimensat),
    call!(SYS_ftruncate),
    call!(SYS_fallocate),
    call!(SYS_setxattr),
    call!(SYS_removexattr),
];

/// Reads the kernel once, and stores its digest in the cache. Where statx fails, as under some filters of container engines, the
/// standard library makes the older calls.
const DIGEST: &[Call] = &[
    call!(SYS_mremap),
    call!(SYS_pread64),
    call!(SYS_openat),
    call!(SYS_statx),
    call!(SYS_fstat),
    call!(SYS_newfstatat),
    call!(SYS_rename),
    call!(SYS_unlink),
    call!(SYS_mkdir),
    call!(SYS_getpid),
];

/// New threads of this process, which inherit every layer; the standard library asks for the attributes of each. The flags of clone3
/// are in memory, where a filter does not see them.
const THREADS: &[Call] = &[
    call!(SYS_clone3, Rule::Missing),
    call!(SYS_clone, Rule::OneOf(0, &[THREAD_OF_GLIBC, THREAD_OF_MUSL])),
    call!(SYS_set_robust_list),
    call!(SYS_rseq),
    call!(SYS_sched_getaffinity),
    call!(SYS_mprotect, Rule::Without(2, PROT_EXEC)),
    call!(SYS_prctl, Rule::OneOf(0, &[libc::PR_SET_NAME as u64])),
    call!(SYS_gettid),
];
const THREAD_OF_GLIBC: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
const THREAD_OF_MUSL: u64 = THREAD_OF_GLIBC | libc::CLONE_DETACHED as u64;

/// Of every thread of a bridge: sockets of the internet, and their end.
const INTERNET: &[Call] = &[
    call!(SYS_mremap),
    call!(SYS_read),
    call!(SYS_poll),
    call!(SYS_ppoll),
    call!(SYS_socket, Rule::OneOf(0, &[libc::AF_INET as u64, libc::AF_INET6 as u64])),
    call!(SYS_connect),
    call!(SYS_recvfrom),
    call!(SYS_sendto),
];

/// Queries by datagrams and connections, their answers from the host's servers, and the leases of the machines on the bridge.
const NAMES: &[Call] = &[
    call!(SYS_accept4),
    call!(SYS_ioctl, Rule::OneOf(1, &[FIONBIO])),
    call!(SYS_getsockopt),
    call!(SYS_setsockopt, Rule::OneOf(2, &[libc::SO_RCVTIMEO as u64, libc::SO_SNDTIMEO as u64])),
    call!(SYS_openat),
    call!(SYS_getdents64),
    call!(SYS_statx),
    call!(SYS_fstat),
    call!(SYS_newfstatat),
    call!(SYS_flock),
];

/// Connections to published ports.
const PORTS: &[Call] = &[
    call!(SYS_accept4),
    call!(SYS_ioctl, Rule::OneOf(1, &[FIONBIO])),
    call!(SYS_getsockopt),
    call!(SYS_shutdown),
    call!(SYS_fcntl, Rule::OneOf(1, &[F_DUPFD_CLOEXEC])),
];

/// The event loop of the machine: signals, clients of the control socket, documents and logs in the run directory, the end.
const MAIN: &[Call] = &[
    call!(SYS_mremap),
    call!(SYS_getrandom),
    call!(SYS_lseek),
    call!(SYS_recvfrom),
    call!(SYS_recvmsg),
    call!(SYS_sendto),
    call!(SYS_sendmsg),
    call!(SYS_accept4),
    call!(SYS_shutdown),
    call!(SYS_getsockopt),
    call!(SYS_ppoll),
    // A snapshot.
    call!(SYS_pread64),
    call!(SYS_pwrite64),
    call!(SYS_dup2),
    call!(SYS_fcntl, Rule::OneOf(1, &[F_DUPFD_CLOEXEC, libc::F_GETFL as u64, libc::F_SETFL as u64])),
    call!(SYS_ioctl, Rule::OneOf(1, MAIN_IOCTLS)),
    call!(SYS_ioctl, Rule::OneOf(1, &kvm::SNAPSHOT_IOCTLS)),
    call!(SYS_open),
    call!(SYS_openat),
    call!(SYS_statx),
    call!(SYS_fstat),
    call!(SYS_newfstatat),
    call!(SYS_getdents64),
    call!(SYS_rename),
    call!(SYS_unlink),
    call!(SYS_unlinkat),
    call!(SYS_rmdir),
    call!(SYS_ftruncate),
    call!(SYS_getpid),
    call!(SYS_getuid),
    call!(SYS_geteuid),
    call!(SYS_tgkill, Rule::Own(0)),
    call!(SYS_kill, Rule::OwnOrHelper(0)),
    call!(SYS_wait4),
    call!(SYS_rt_sigqueueinfo, Rule::Own(0)),
    call!(SYS_exit_group),
];
const F_DUPFD_CLOEXEC: u64 = libc::F_DUPFD_CLOEXEC as u64;
/// Modes and size of a terminal; a client's socket does not block; a scratch disk is copied; a tap gets its offloads again where the
/// machine runs on after it was saved.
const MAIN_IOCTLS: &[u64] =
    &[libc::TCGETS, libc::TCSETS, TCGETS2, TCSETS2, libc::TIOCGWINSZ, FIONBIO, FICLONE, TUNSETOFFLOAD];
const FICLONE: u64 = 0x4004_9409;
const TCGETS2: u64 = 0x802c_542a;
const TCSETS2: u64 = 0x402c_542b;

/// All calls of a thread.
pub(super) fn of(thread: Thread) -> impl Iterator<Item = Call> {
    let shared: &'static [&'static [Call]] = match thread {
        Thread::Vcpu | Thread::Digest => &[],
        Thread::Names | Thread::Ports => &[INTERNET, THREADS],
        Thread::Datagrams => &[INTERNET],
        Thread::Share | Thread::ReadOnlyShare => &[EVENT_LOOP, ANY_SHARE],
        Thread::Tap | Thread::PacketSocket | Thread::Stream | Thread::NetSocket => &[EVENT_LOOP, INTERFACE],
        _ => &[EVENT_LOOP],
    };
    let own = match thread {
        Thread::Main => MAIN,
        Thread::Vcpu => VCPU,
        Thread::Io => IO,
        Thread::Tap => TAP,
        Thread::PacketSocket => PACKET_SOCKET,
        Thread::Stream => STREAM,
        Thread::NetSocket => NET_SOCKET,
        Thread::Vsock => VSOCK,
        Thread::Share => SHARE,
        Thread::ReadOnlyShare => READ_ONLY_SHARE,
        Thread::Disk => DISK,
        Thread::Digest => DIGEST,
        Thread::Names => NAMES,
        Thread::Ports => PORTS,
        Thread::Datagrams => &[],
    };
    [COMMON, own].into_iter().chain(shared.iter().copied()).flatten().copied()
}
