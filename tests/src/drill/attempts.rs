// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a thread that was taken over tries: a table, each row one thing that a host without the sandbox allows, to root at least.

use super::remote::{Refusal, Remote};
use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, AT_EMPTY_PATH, AT_FDCWD, MAP_ANONYMOUS, MAP_PRIVATE,
    O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_READ, PROT_WRITE, SIGCHLD, SOCK_DGRAM,
    SOCK_RAW, SOCK_STREAM,
};
use rustix::io::Errno;
use std::fs;
use std::path::{Path, PathBuf};

/// What there is to reach.
#[derive(Debug)]
pub(super) struct Targets {
    /// A directory of the same user, with the files `file` and `other`, and the directory `empty`. Not the machine's.
    pub(super) outside: PathBuf,
    /// A process of the same user.
    pub(super) process: u32,
    /// An address in it that can be read and written.
    pub(super) address: u64,
    /// The control socket of another machine of the same user.
    pub(super) control_socket: PathBuf,
    /// The name of an abstract Unix socket that listens.
    pub(super) abstract_socket: String,
    /// A TCP port of 127.0.0.1 that listens.
    pub(super) port: u16,
}

pub(super) type Outcome = Result<u64, Refusal>;

/// Something that a thread tries.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub name: &'static str,
    /// The process is of no use to the next attempts, where it succeeds.
    pub(super) is_lasting: bool,
    pub(super) make: fn(&mut Remote, &Targets) -> Outcome,
}

const fn attempt(name: &'static str, make: fn(&mut Remote, &Targets) -> Outcome) -> Attempt {
    Attempt { name, is_lasting: false, make }
}

const fn lasting(name: &'static str, make: fn(&mut Remote, &Targets) -> Outcome) -> Attempt {
    Attempt { name, is_lasting: true, make }
}

const CWD: u64 = AT_FDCWD as u64;
const KVM_CREATE_VM: u64 = 0xae01;
const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const TUNSETIFF: u64 = 0x4004_54ca;
const PAGE: u64 = 4096;

pub(super) const ATTEMPTS: &[Attempt] = &[
    // Files of others.
    attempt("read /etc/passwd (open)", |thread, _| {
        let path = thread.path("/etc/passwd");
        let file = thread.call(libc::SYS_open, &[path, O_RDONLY as u64])?;
        read(thread, file)
    }),
    attempt("read /etc/passwd (openat)", |thread, _| {
        let file = open(thread, "/etc/passwd", O_RDONLY)?;
        read(thread, file)
    }),
    attempt("read /etc/passwd (openat2)", |thread, _| {
        let (path, how) = (thread.path("/etc/passwd"), thread.words(&[O_RDONLY as u64, 0, 0]));
        let file = thread.call(libc::SYS_openat2, &[CWD, path, how, 24])?;
        read(thread, file)
    }),
    attempt("read /etc/shadow", |thread, _| {
        let file = open(thread, "/etc/shadow", O_RDONLY)?;
        read(thread, file)
    }),
    attempt("list /", |thread, _| {
        let directory = open(thread, "/", O_RDONLY | O_DIRECTORY)?;
        let space = thread.space(1024);
        thread.call(libc::SYS_getdents64, &[directory, space, 1024])
    }),
    attempt("read a file of the user", |thread, targets| {
        let file = open(thread, targets.outside.join("file"), O_RDONLY)?;
        read(thread, file)
    }),
    attempt("open a file of the user for writing", |thread, targets| {
        open(thread, targets.outside.join("file"), O_WRONLY)
    }),
    attempt("create a file (openat)", |thread, targets| {
        open(thread, targets.outside.join("created"), O_WRONLY | O_CREAT)
    }),
    attempt("create a file (creat)", |thread, targets| {
        let path = thread.path(targets.outside.join("created"));
        thread.call(libc::SYS_creat, &[path, 0o600])
    }),
    attempt("create an unnamed file", |thread, targets| open(thread, &targets.outside, libc::O_TMPFILE | O_RDWR)),
    attempt("make a directory", |thread, targets| {
        let path = unused(thread, targets);
        thread.call(libc::SYS_mkdirat, &[CWD, path, 0o700])
    }),
    attempt("make a symbolic link", |thread, targets| {
        let (target, path) = (thread.path("/etc/passwd"), unused(thread, targets));
        thread.call(libc::SYS_symlinkat, &[target, CWD, path])
    }),
    attempt("make a hard link", |thread, targets| {
        let (target, path) = (thread.path(targets.outside.join("file")), unused(thread, targets));
        thread.call(libc::SYS_linkat, &[CWD, target, CWD, path, 0])
    }),
    attempt("make a FIFO", |thread, targets| {
        let path = unused(thread, targets);
        thread.call(libc::SYS_mknodat, &[CWD, path, u64::from(libc::S_IFIFO | 0o600), 0])
    }),
    attempt("make a block device", |thread, targets| {
        let path = unused(thread, targets);
        thread.call(libc::SYS_mknodat, &[CWD, path, u64::from(libc::S_IFBLK | 0o600), 0x700])
    }),
    attempt("rename a file (rename)", |thread, targets| {
        let [from, to] = ["file", "other"].map(|name| thread.path(targets.outside.join(name)));
        thread.call(libc::SYS_rename, &[from, to])
    }),
    attempt("rename a file (renameat2)", |thread, targets| {
        let [from, to] = ["file", "other"].map(|name| thread.path(targets.outside.join(name)));
        thread.call(libc::SYS_renameat2, &[CWD, from, CWD, to, 0])
    }),
    attempt("remove a file (unlink)", |thread, targets| {
        let path = thread.path(targets.outside.join("file"));
        thread.call(libc::SYS_unlink, &[path])
    }),
    attempt("remove a file (unlinkat)", |thread, targets| {
        let path = thread.path(targets.outside.join("file"));
        thread.call(libc::SYS_unlinkat, &[CWD, path, 0])
    }),
    attempt("remove a directory", |thread, targets| {
        let path = thread.path(targets.outside.join("empty"));
        thread.call(libc::SYS_rmdir, &[path])
    }),
    attempt("truncate a file", |thread, targets| {
        let path = thread.path(targets.outside.join("file"));
        thread.call(libc::SYS_truncate, &[path, 0])
    }),
    attempt("change a file's mode", |thread, targets| {
        let path = thread.path(targets.outside.join("file"));
        thread.call(libc::SYS_fchmodat, &[CWD, path, 0o666])
    }),
    attempt("change a file's owner", |thread, targets| {
        let path = thread.path(targets.outside.join("file"));
        thread.call(libc::SYS_fchownat, &[CWD, path, 12345, 12345, 0])
    }),
    attempt("change a file's times", |thread, targets| {
        let path = thread.path(targets.outside.join("file"));
        thread.call(libc::SYS_utimensat, &[CWD, path, 0, 0])
    }),
    attempt("change a file's attributes", |thread, targets| {
        let (path, name) = (thread.path(targets.outside.join("file")), thread.put(b"user.drill\0"));
        thread.call(libc::SYS_setxattr, &[path, name, name, 4, 0])
    }),
    attempt("open a file by its handle", |thread, targets| {
        let (size, mut handle) = (128_u32, [0; 136]);
        handle[..4].copy_from_slice(&size.to_le_bytes());
        let (path, handle) = (thread.path(targets.outside.join("file")), thread.put(&handle));
        let mount = thread.space(8);
        let directory = open(thread, &targets.outside, O_RDONLY | O_DIRECTORY)?;
        thread.call(libc::SYS_name_to_handle_at, &[CWD, path, handle, mount, 0])?;
        thread.call(libc::SYS_open_by_handle_at, &[directory, handle, O_RDONLY as u64])
    }),
    // Devices and settings of the host.
    attempt("open /dev/kvm", |thread, _| open(thread, "/dev/kvm", O_RDWR)),
    attempt("make a virtual machine", |thread, _| {
        let kvm = match descriptor(thread, "/dev/kvm") {
            Some(kvm) => kvm,
            None => open(thread, "/dev/kvm", O_RDWR)?,
        };
        thread.call(libc::SYS_ioctl, &[kvm, KVM_CREATE_VM, 0])
    }),
    attempt("give the guest more of the monitor's memory", |thread, _| {
        let vm = descriptor(thread, "anon_inode:kvm-vm").ok_or(Refusal::Error(Errno::BADF))?;
        let (slot, gpa, memory) = (25, 1 << 35, thread.memory());
        let region = thread.words(&[slot, gpa, PAGE, memory]);
        thread.call(libc::SYS_ioctl, &[vm, KVM_SET_USER_MEMORY_REGION, region])
    }),
    attempt("make a tap", |thread, _| {
        let tun = open(thread, "/dev/net/tun", O_RDWR)?;
        let mut request = [0; 40];
        request[16..18].copy_from_slice(&0x1002_u16.to_le_bytes());
        let request = thread.put(&request);
        thread.call(libc::SYS_ioctl, &[tun, TUNSETIFF, request])
    }),
    attempt("open /dev/mem", |thread, _| open(thread, "/dev/mem", O_RDONLY)),
    attempt("open /proc/sysrq-trigger", |thread, _| open(thread, "/proc/sysrq-trigger", O_WRONLY)),
    attempt("open the setting of core files", |thread, _| open(thread, "/proc/sys/kernel/core_pattern", O_WRONLY)),
    attempt("read the kernel's log", |thread, _| {
        let space = thread.space(1024);
        thread.call(libc::SYS_syslog, &[3, space, 1024])
    }),
    attempt("set the host's name", |thread, _| {
        let name = thread.put(b"drill");
        thread.call(libc::SYS_sethostname, &[name, 5])
    }),
    attempt("set the host's domain", |thread, _| {
        let name = thread.put(b"drill");
        thread.call(libc::SYS_setdomainname, &[name, 5])
    }),
    attempt("use all I/O ports", |thread, _| thread.call(libc::SYS_iopl, &[3])),
    attempt("use an I/O port", |thread, _| thread.call(libc::SYS_ioperm, &[0x80, 1, 1])),
    attempt("stop accounting", |thread, _| thread.call(libc::SYS_acct, &[0])),
    // Mounts and namespaces.
    lasting("mount a file system", |thread, targets| {
        let (kind, path) = (thread.put(b"tmpfs\0"), thread.path(&targets.outside));
        thread.call(libc::SYS_mount, &[kind, path, kind, 0, 0])
    }),
    attempt("make a file system (fsopen)", |thread, _| {
        let kind = thread.put(b"tmpfs\0");
        thread.call(libc::SYS_fsopen, &[kind, 0])
    }),
    attempt("copy a mount (open_tree)", |thread, _| {
        let (root, copy) = (thread.path("/"), 1);
        thread.call(libc::SYS_open_tree, &[CWD, root, copy])
    }),
    lasting("unmount a file system", |thread, _| {
        let (path, detach) = (thread.path("/proc"), 2);
        thread.call(libc::SYS_umount2, &[path, detach])
    }),
    lasting("change the root", |thread, targets| {
        let path = thread.path(&targets.outside);
        thread.call(libc::SYS_chroot, &[path])
    }),
    lasting("leave the mount namespace", |thread, _| thread.call(libc::SYS_unshare, &[libc::CLONE_NEWNS as u64])),
    lasting("leave the network namespace", |thread, _| thread.call(libc::SYS_unshare, &[libc::CLONE_NEWNET as u64])),
    lasting("leave the UTS namespace", |thread, _| thread.call(libc::SYS_unshare, &[libc::CLONE_NEWUTS as u64])),
    lasting("enter a namespace of init", |thread, _| {
        let namespace = open(thread, "/proc/1/ns/net", O_RDONLY)?;
        thread.call(libc::SYS_setns, &[namespace, 0])
    }),
    // Programs and processes.
    lasting("execute a program (execve)", |thread, _| {
        let (path, arguments) = (thread.path("/bin/true"), thread.words(&[0]));
        thread.call(libc::SYS_execve, &[path, arguments, arguments])
    }),
    lasting("execute a program (execveat)", |thread, _| {
        let (path, arguments) = (thread.path("/bin/true"), thread.words(&[0]));
        thread.call(libc::SYS_execveat, &[CWD, path, arguments, arguments, 0])
    }),
    lasting("execute an open file", |thread, _| {
        let file = open(thread, "/bin/true", O_PATH)?;
        let (empty, arguments) = (thread.put(b"\0"), thread.words(&[0]));
        thread.call(libc::SYS_execveat, &[file, empty, arguments, arguments, AT_EMPTY_PATH as u64])
    }),
    attempt("start a process (fork)", |thread, _| thread.call(libc::SYS_fork, &[])),
    attempt("start a process (vfork)", |thread, _| thread.call(libc::SYS_vfork, &[])),
    attempt("start a process (clone)", |thread, _| thread.call(libc::SYS_clone, &[SIGCHLD as u64])),
    attempt("start a process (clone3)", |thread, _| {
        let arguments = thread.words(&[0, 0, 0, 0, SIGCHLD as u64, 0, 0, 0]);
        thread.call(libc::SYS_clone3, &[arguments, 64])
    }),
    lasting("start a process in new namespaces", |thread, _| {
        thread.call(libc::SYS_clone, &[(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | SIGCHLD) as u64])
    }),
    lasting("start a thread", |thread, _| {
        let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        let stack = thread.memory() + PAGE;
        thread.call(libc::SYS_clone, &[flags as u64, stack])
    }),
    attempt("trace a process", |thread, targets| {
        thread.call(libc::SYS_ptrace, &[u64::from(libc::PTRACE_SEIZE), targets.process.into(), 0, 0])
    }),
    attempt("read a process's memory", |thread, targets| {
        let (own, other) = vectors(thread, targets);
        thread.call(libc::SYS_process_vm_readv, &[targets.process.into(), own, 1, other, 1, 0])
    }),
    attempt("write a process's memory", |thread, targets| {
        let (own, other) = vectors(thread, targets);
        thread.call(libc::SYS_process_vm_readv, &[targets.process.into(), own, 1, other, 1, 0])?;
        thread.call(libc::SYS_process_vm_writev, &[targets.process.into(), own, 1, other, 1, 0])
    }),
    attempt("open a process's memory", |thread, targets| {
        open(thread, format!("/proc/{}/mem", targets.process), O_RDWR)
    }),
    attempt("read a process's environment", |thread, targets| {
        let file = open(thread, format!("/proc/{}/environ", targets.process), O_RDONLY)?;
        read(thread, file)
    }),
    attempt("refer to a process", |thread, targets| thread.call(libc::SYS_pidfd_open, &[targets.process.into(), 0])),
    attempt("take a process's descriptor", |thread, targets| {
        let process = thread.call(libc::SYS_pidfd_open, &[targets.process.into(), 0])?;
        thread.call(libc::SYS_pidfd_getfd, &[process, 0, 0])
    }),
    attempt("signal a process (kill)", |thread, targets| {
        thread.call(libc::SYS_kill, &[targets.process.into(), libc::SIGCONT as u64])
    }),
    attempt("signal a process (tgkill)", |thread, targets| {
        thread.call(libc::SYS_tgkill, &[targets.process.into(), targets.process.into(), libc::SIGCONT as u64])
    }),
    attempt("signal a process (rt_sigqueueinfo)", |thread, targets| {
        // `si_code` is SI_QUEUE.
        let mut information = [0; 16];
        information[1] = u64::from(u32::MAX);
        let information = thread.words(&information);
        thread.call(libc::SYS_rt_sigqueueinfo, &[targets.process.into(), libc::SIGCONT as u64, information])
    }),
    attempt("change a process's limits", |thread, targets| {
        let space = thread.space(16);
        thread.call(libc::SYS_prlimit64, &[targets.process.into(), u64::from(libc::RLIMIT_NOFILE), 0, space])?;
        thread.call(libc::SYS_prlimit64, &[targets.process.into(), u64::from(libc::RLIMIT_NOFILE), space, 0])
    }),
    attempt("change a process's priority", |thread, targets| {
        thread.call(libc::SYS_setpriority, &[0, targets.process.into(), 1])
    }),
    attempt("pin a process to a CPU", |thread, targets| {
        let set = thread.words(&[u64::MAX]);
        thread.call(libc::SYS_sched_setaffinity, &[targets.process.into(), 8, set])
    }),
    // Its own rights.
    lasting("become another user (setuid)", |thread, _| thread.call(libc::SYS_setuid, &[65534])),
    lasting("become another user (setresuid)", |thread, _| thread.call(libc::SYS_setresuid, &[65534, 65534, 65534])),
    lasting("change the group", |thread, _| thread.call(libc::SYS_setresgid, &[65534, 65534, 65534])),
    lasting("change the groups", |thread, _| thread.call(libc::SYS_setgroups, &[0, 0])),
    lasting("access files as another user", |thread, _| {
        thread.call(libc::SYS_setfsuid, &[65534])?;
        // It never fails; it returns the user before.
        match thread.call(libc::SYS_setfsuid, &[65534])? {
            65534 => Ok(65534),
            _ => Err(Refusal::Error(Errno::PERM)),
        }
    }),
    lasting("take a capability", |thread, _| {
        let (header, system) = (thread.words(&[0x2008_0522]), 1 << 21);
        let sets = thread.words(&[system | system << 32, 0, 0]);
        thread.call(libc::SYS_capset, &[header, sets])
    }),
    lasting("become dumpable", |thread, _| thread.call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as u64, 1])),
    lasting("handle forbidden calls itself", |thread, _| {
        let action = thread.words(&[0, 0x0400_0000, 0, 0]);
        thread.call(libc::SYS_rt_sigaction, &[libc::SIGSYS as u64, action, 0, 8])
    }),
    lasting("have another personality", |thread, _| {
        thread.call(libc::SYS_personality, &[libc::ADDR_NO_RANDOMIZE as u64])
    }),
    attempt("have executable memory (mmap)", |thread, _| {
        let protection = (PROT_READ | PROT_WRITE | PROT_EXEC) as u64;
        thread.call(libc::SYS_mmap, &[0, PAGE, protection, (MAP_PRIVATE | MAP_ANONYMOUS) as u64, u64::MAX, 0])
    }),
    attempt("have executable memory (mprotect)", |thread, _| {
        let memory = thread.memory() & !(PAGE - 1);
        thread.call(libc::SYS_mprotect, &[memory, PAGE, (PROT_READ | PROT_WRITE | PROT_EXEC) as u64])
    }),
    attempt("have executable memory (pkey_mprotect)", |thread, _| {
        let memory = thread.memory() & !(PAGE - 1);
        let protection = (PROT_READ | PROT_WRITE | PROT_EXEC) as u64;
        thread.call(libc::SYS_pkey_mprotect, &[memory, PAGE, protection, u64::MAX])
    }),
    attempt("have a file in memory", |thread, _| {
        let name = thread.put(b"drill\0");
        thread.call(libc::SYS_memfd_create, &[name, 0])
    }),
    attempt("have shared memory", |thread, _| thread.call(libc::SYS_shmget, &[0, PAGE, 0o600])),
    attempt("change descriptor tables of the processor", |thread, _| {
        let space = thread.space(16);
        thread.call(libc::SYS_modify_ldt, &[0, space, 16])
    }),
    // Large parts of the kernel.
    attempt("load BPF", |thread, _| {
        let map = thread.words(&[2 | 4 << 32, 4 | 1 << 32, 0, 0, 0, 0, 0, 0, 0]);
        thread.call(libc::SYS_bpf, &[0, map, 72])
    }),
    attempt("measure the host", |thread, _| {
        let (software, size) = (1, 64);
        let mut event = vec![0_u64; 8];
        event[0] = software | size << 32;
        let event = thread.words(&event);
        thread.call(libc::SYS_perf_event_open, &[event, 0, u64::MAX, u64::MAX, 0])
    }),
    attempt("handle page faults", |thread, _| thread.call(libc::SYS_userfaultfd, &[1])),
    attempt("queue system calls (io_uring)", |thread, _| {
        let parameters = thread.put(&[0; 120]);
        thread.call(libc::SYS_io_uring_setup, &[1, parameters])
    }),
    attempt("queue I/O (io_setup)", |thread, _| {
        let context = thread.words(&[0]);
        thread.call(libc::SYS_io_setup, &[1, context])
    }),
    attempt("use a keyring", |thread, _| thread.call(libc::SYS_keyctl, &[0, (-3_i64).cast_unsigned(), 1])),
    attempt("add a key", |thread, _| {
        let (kind, name) = (thread.put(b"user\0"), thread.put(b"drill\0"));
        thread.call(libc::SYS_add_key, &[kind, name, name, 5, (-1_i64).cast_unsigned()])
    }),
    attempt("watch files (inotify)", |thread, _| thread.call(libc::SYS_inotify_init1, &[0])),
    attempt("watch files (fanotify)", |thread, _| thread.call(libc::SYS_fanotify_init, &[0, 0])),
    // Networks and other processes' sockets.
    attempt("connect by TCP", |thread, targets| {
        let socket = socket(thread, AF_INET, SOCK_STREAM, 0)?;
        let address = internet(thread, targets.port);
        thread.call(libc::SYS_connect, &[socket, address, 16])
    }),
    attempt("listen by TCP", |thread, _| {
        let socket = socket(thread, AF_INET, SOCK_STREAM, 0)?;
        let address = internet(thread, 0);
        thread.call(libc::SYS_bind, &[socket, address, 16])?;
        thread.call(libc::SYS_listen, &[socket, 1])
    }),
    attempt("send a datagram", |thread, targets| {
        let socket = socket(thread, AF_INET, SOCK_DGRAM, 0)?;
        let address = internet(thread, targets.port);
        thread.call(libc::SYS_sendto, &[socket, address, 16, 0, address, 16])
    }),
    attempt("have an IPv6 socket", |thread, _| socket(thread, AF_INET6, SOCK_STREAM, 0)),
    attempt("have a raw socket", |thread, _| socket(thread, AF_INET, SOCK_RAW, libc::IPPROTO_ICMP)),
    attempt("have a packet socket", |thread, _| socket(thread, AF_PACKET, SOCK_RAW, 0)),
    attempt("have a netlink socket", |thread, _| socket(thread, AF_NETLINK, SOCK_RAW, 0)),
    attempt("have a socket of virtual machines", |thread, _| socket(thread, AF_VSOCK, SOCK_STREAM, 0)),
    attempt("connect to another machine's control socket", |thread, targets| {
        let socket = socket(thread, AF_UNIX, SOCK_STREAM, 0)?;
        let (address, length) = unix(thread, targets.control_socket.as_os_str().as_encoded_bytes());
        thread.call(libc::SYS_connect, &[socket, address, length])
    }),
    attempt("connect to an abstract socket", |thread, targets| {
        let socket = socket(thread, AF_UNIX, SOCK_STREAM, 0)?;
        let (address, length) = unix(thread, format!("\0{}", targets.abstract_socket).as_bytes());
        thread.call(libc::SYS_connect, &[socket, address, length])
    }),
    attempt("listen at a Unix socket", |thread, targets| {
        let socket = socket(thread, AF_UNIX, SOCK_STREAM, 0)?;
        let path = targets.outside.join(unused_name());
        let (address, length) = unix(thread, path.as_os_str().as_encoded_bytes());
        thread.call(libc::SYS_bind, &[socket, address, length])
    }),
];

fn open(thread: &mut Remote, path: impl AsRef<Path>, flags: i32) -> Outcome {
    let path = thread.path(path);
    thread.call(libc::SYS_openat, &[CWD, path, flags as u64, 0o600])
}

fn read(thread: &mut Remote, file: u64) -> Outcome {
    let space = thread.space(256);
    thread.call(libc::SYS_read, &[file, space, 256])
}

/// A name that no file has yet.
fn unused_name() -> String {
    static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("new-{}", COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

fn unused(thread: &mut Remote, targets: &Targets) -> u64 {
    thread.path(targets.outside.join(unused_name()))
}

fn socket(thread: &mut Remote, family: i32, kind: i32, protocol: i32) -> Outcome {
    thread.call(libc::SYS_socket, &[family as u64, kind as u64, protocol as u64])
}

/// A `sockaddr_in` of 127.0.0.1.
fn internet(thread: &mut Remote, port: u16) -> u64 {
    let [high, low] = port.to_be_bytes();
    thread.put(&[AF_INET as u8, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// A `sockaddr_un`, and its length.
fn unix(thread: &mut Remote, path: &[u8]) -> (u64, u64) {
    let bytes = [&[AF_UNIX as u8, 0], path].concat();
    (thread.put(&bytes), bytes.len() as u64)
}

/// An open descriptor of the process.
fn descriptor(thread: &Remote, target: &str) -> Option<u64> {
    let entries = fs::read_dir(format!("/proc/{}/fd", thread.process())).ok()?;
    let is_wanted = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(target));
    entries.flatten().find(is_wanted)?.file_name().to_str()?.parse().ok()
}

/// Vectors of 8 bytes: in this process, and in the other one.
fn vectors(thread: &mut Remote, targets: &Targets) -> (u64, u64) {
    let space = thread.space(8);
    (thread.words(&[space, 8]), thread.words(&[targets.address, 8]))
}
