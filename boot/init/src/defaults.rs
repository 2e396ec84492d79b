// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Defaults of docker's that a workload gets unless it is privileged: kernel parameters, limits,
//! and the parts of `/proc` and `/sys` that are hidden or read-only.

/// Hidden from an unprivileged workload (`MaskedPaths` of docker): a directory is empty, a file
/// reads as `/dev/null`.
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only for an unprivileged workload (`ReadonlyPaths` of docker). `/proc/sys` holds
/// `core_pattern`, `modprobe` and `binfmt_misc`, which would run a program in PID 1's namespaces;
/// the like in `/sys` is covered by its read-only mount.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Mounts that an unprivileged workload cannot write to.
pub const READ_ONLY_MOUNTS: [&str; 2] = ["/sys", "/sys/fs/cgroup"];

/// Path below `/proc/sys` and value. A kernel that lacks one goes without.
///
/// The first two are docker's: every user binds every port and sends echo requests. The others are
/// bounds that a host sets from its own memory, and a small machine too low: with 128 MiB the
/// kernel allows 11,443 open files, 8,192 watches of inotify and 20,000 of epoll. As in a
/// container, memory and the control group, to which the kernel charges all of them, are the bound.
pub const SYSCTLS: [(&str, &str); 7] = [
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("kernel/threads-max", "4194304"),
    ("kernel/pid_max", "4194304"),
    ("fs/file-max", "9223372036854775807"),
    ("fs/inotify/max_user_watches", "1048576"),
    ("fs/epoll/max_user_watches", "4194304"),
];

/// Soft limit of open files.
pub const OPEN_FILES: u64 = 1024;
/// Hard limit of open files.
pub const MAX_OPEN_FILES: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn paths_are_absolute_and_below_proc_or_sys() {
        for path in MASKED_PATHS.iter().chain(&READ_ONLY_PATHS) {
            assert!(path.starts_with("/proc/") || path.starts_with("/sys/"), "{path}");
            assert!(!path.ends_with('/') && !path.contains("//"), "{path}");
        }
    }

    #[test]
    fn every_sysctl_lies_in_a_read_only_path() {
        for (name, _) in SYSCTLS {
            let path = format!("/proc/sys/{name}");
            assert!(READ_ONLY_PATHS.iter().any(|prefix| path.starts_with(prefix)), "{path}");
        }
    }
}
