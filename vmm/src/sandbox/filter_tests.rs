// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use std::collections::BTreeSet;

/// What a thread that was taken over could leave its confinement with, or become another program.
const FORBIDDEN: [i64; 35] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    libc::SYS_setuid,
    libc::SYS_setresuid,
    libc::SYS_capset,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_prlimit64,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_keyctl,
    libc::SYS_bind,
    libc::SYS_memfd_create,
];

fn numbers(thread: Thread) -> BTreeSet<i64> {
    calls::of(thread).map(|call| call.number).collect()
}

#[test]
fn no_thread_has_a_forbidden_call() {
    for thread in Thread::ALL {
        // With the rules that these have, they make threads only, and name them.
        let makes_threads = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_prctl];
        let is_of_threads = |call: &Call| match (thread, call.rule) {
            (Thread::Names | Thread::Ports, Rule::Missing | Rule::OneOf(..)) => makes_threads.contains(&call.number),
            _ => false,
        };
        let forbidden = |call: &Call| FORBIDDEN.contains(&call.number) && !is_of_threads(call);
        let found: Vec<_> = calls::of(thread).filter(forbidden).collect();
        assert!(found.is_empty(), "{thread:?}: {found:?}");
    }
}

/// Whether `fcntl` is there only to check descriptors.
fn is_only_checked(thread: Thread) -> bool {
    calls::of(thread).filter(|call| call.number == libc::SYS_fcntl).count() == 1
}

#[test]
fn lists_stay_within_their_limits() {
    for (thread, limit) in [
        (Thread::Main, 53),
        (Thread::Vcpu, 16),
        (Thread::Io, 33),
        (Thread::Tap, 24),
        (Thread::PacketSocket, 25),
        (Thread::Stream, 23),
        (Thread::NetSocket, 26),
        (Thread::Vsock, 27),
        (Thread::Share, 51),
        (Thread::ReadOnlyShare, 35),
        (Thread::Disk, 22),
        (Thread::Digest, 24),
        (Thread::Names, 40),
        (Thread::Ports, 35),
        (Thread::Datagrams, 22),
    ] {
        // A build with debug assertions has one more.
        let count = numbers(thread).len() - usize::from(cfg!(debug_assertions) && is_only_checked(thread));
        assert!(count <= limit, "{thread:?} has {count} calls");
    }
}

#[test]
fn calls_with_a_rule_are_not_allowed_without_it() {
    for thread in Thread::ALL {
        let (any, ruled): (Vec<_>, Vec<_>) = calls::of(thread).partition(|call| matches!(call.rule, Rule::Any));
        let names: BTreeSet<_> = any.iter().map(|call| call.name).collect();
        assert!(ruled.iter().all(|call| !names.contains(call.name)), "{thread:?}");
        assert_eq!(names.len(), any.len(), "{thread:?} names a call twice");
        for risky in ["SYS_ioctl", "SYS_mmap", "SYS_mprotect", "SYS_fcntl", "SYS_socket", "SYS_kill", "SYS_tgkill"] {
            assert!(!names.contains(risky), "{thread:?}: {risky} without a rule");
        }
    }
}

#[test]
fn only_some_kinds_of_threads_make_sockets() {
    for thread in Thread::ALL {
        let makes = numbers(thread).contains(&libc::SYS_socket);
        let connects = matches!(thread, Thread::Vsock | Thread::NetSocket);
        let is_of_a_bridge = matches!(thread, Thread::Names | Thread::Ports | Thread::Datagrams);
        assert_eq!(makes, connects || is_of_a_bridge, "{thread:?}");
    }
}

#[test]
fn thread_of_a_read_only_share_opens_no_file_to_change_it() {
    let opens = [libc::SYS_open, libc::SYS_openat];
    let calls: Vec<_> = calls::of(Thread::ReadOnlyShare).filter(|call| opens.contains(&call.number)).collect();
    assert!(calls.iter().all(|call| matches!(call.rule, Rule::Without(_, bits) if bits == 0o1103)), "{calls:?}");
    for change in [libc::SYS_pwritev, libc::SYS_fchmodat, libc::SYS_fchownat, libc::SYS_unlinkat, libc::SYS_setxattr] {
        assert!(!numbers(Thread::ReadOnlyShare).contains(&change), "{change}");
    }
}

#[test]
fn every_thread_can_handle_a_violation() {
    for thread in Thread::ALL {
        assert!(numbers(thread).is_superset(&[libc::SYS_write, libc::SYS_rt_sigreturn].into()), "{thread:?}");
    }
}

#[test]
fn every_list_makes_a_program() {
    for thread in Thread::ALL {
        let program = program(thread, &[1, 2]).unwrap();
        // The kernel's BPF_MAXINSNS.
        assert!(program.len() < 4096, "{thread:?}: {}", program.len());
    }
}
