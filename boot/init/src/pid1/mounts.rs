// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's file systems: the two that PID 1 needs itself, and those that a workload expects.

use super::failure::{Failure, Step};
use super::files::{make_directories, make_directory, write_all, write_file};
use crate::freestanding::open_missing_descriptors;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;
use guest_init::defaults::{READ_ONLY_MOUNTS, SYSCTLS};
use guest_init::tmpfs_options::TmpfsOptions;
use guest_protocol::run_spec::{ShareMount, TmpfsMount};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open, openat, stat, symlink};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_move, mount_remount,
    unmount,
};
use rustix::process::{chdir, chroot, umask};

/// No programs, no devices, no set-user-id bits.
pub(crate) const RESTRICTED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// A mount of a file system without a disk.
struct Mount {
    file_system: &'static str,
    path: &'static str,
    flags: MountFlags,
    data: &'static CStr,
    /// The kernel may lack it.
    optional: bool,
}

/// The mounts of every workload, in this order. `/proc` shows the PID namespace of the process that
/// mounts it, and cgroup2 its control group namespace.
const WORKLOAD_MOUNTS: [Mount; 7] = [
    Mount { file_system: "proc", path: "/proc", flags: RESTRICTED, data: c"", optional: false },
    Mount { file_system: "sysfs", path: "/sys", flags: RESTRICTED, data: c"", optional: false },
    Mount { file_system: "cgroup2", path: "/sys/fs/cgroup", flags: RESTRICTED, data: c"", optional: true },
    // All devices of the machine: the machine is the boundary.
    Mount { file_system: "devtmpfs", path: "/dev", flags: MountFlags::NOSUID, data: c"", optional: false },
    Mount {
        file_system: "devpts",
        path: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: c"gid=5,mode=620,ptmxmode=666",
        optional: false,
    },
    Mount { file_system: "tmpfs", path: "/dev/shm", flags: RESTRICTED, data: c"mode=1777", optional: false },
    Mount { file_system: "mqueue", path: "/dev/mqueue", flags: RESTRICTED, data: c"", optional: true },
];

/// Mounts `/dev` and `/sys` for PID 1 itself.
pub(crate) fn prepare_pid1() -> Result<(), Failure> {
    const STEP: &str = "prepare PID 1";
    // Modes are used as given.
    umask(Mode::empty());
    for (file_system, path) in [("devtmpfs", "/dev"), ("sysfs", "/sys")] {
        make_directory(path).step(STEP, path)?;
        let flags = RESTRICTED - MountFlags::NODEV;
        match mount(file_system, path, file_system, flags, None) {
            // Some kernels mount /dev themselves.
            Err(Errno::BUSY) => mount_remount(path, MountFlags::BIND | flags, c""),
            outcome => outcome,
        }
        .step(STEP, path)?;
    }
    open_missing_descriptors().step(STEP, "/dev/null")
}

/// Opens the kernel's tables of TCP sockets. PID 1 has no `/proc`, so it is mounted for that moment.
pub(crate) fn open_socket_tables() -> Result<Vec<OwnedFd>, Errno> {
    make_directory("/proc")?;
    mount("proc", "/proc", "proc", RESTRICTED, None)?;
    let table = |path| open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    // A kernel without IPv6 has one table.
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| table(path).ok()).collect();
    unmount("/proc", UnmountFlags::DETACH)?;
    Ok(tables)
}

/// Makes the mount point `root` the root of this process and of its mount namespace. An initramfs
/// cannot be pivoted away, so the new root is moved over it.
pub(crate) fn move_root(root: &str) -> Result<(), Failure> {
    const STEP: &str = "enter root";
    chdir(root).step(STEP, root)?;
    mount_move(".", "/").step(STEP, root)?;
    chroot(".").step(STEP, root)?;
    chdir("/").step(STEP, root)
}

/// Mounts what every workload expects. Called in its namespaces.
pub(crate) fn mount_kernel_file_systems() -> Result<(), Failure> {
    for Mount { file_system, path, mut flags, data, optional } in WORKLOAD_MOUNTS {
        flags.set(MountFlags::RDONLY, READ_ONLY_MOUNTS.contains(&path));
        match mount_on_directory(file_system, path, flags, data) {
            Ok(()) => {}
            Err(Errno::NODEV | Errno::NOENT | Errno::PERM) if optional => {}
            Err(errno) => return Err(Failure::setup("mount", path, errno)),
        }
        if path == "/dev" {
            complete_dev()?;
        }
    }
    Ok(())
}

/// Sets the kernel parameters that docker sets, where the kernel has them.
pub(crate) fn set_default_sysctls() {
    for (name, value) in SYSCTLS {
        let _ = write_file(&format!("/proc/sys/{name}"), value.as_bytes());
    }
}

/// Sets a kernel parameter of the user's. `directory` is `/proc/sys`.
pub(crate) fn write_sysctl(directory: &OwnedFd, name: &str, value: &str) -> Result<(), Failure> {
    // Relative, whatever the name begins with.
    let file =
        openat(directory, format!("./{}", name.replace('.', "/")), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let rejected = || Failure::configuration("set kernel parameter", format!("{name}={value}"));
    file.and_then(|file| write_all(&file, value.as_bytes())).map_err(|errno| rejected().with_errno(errno))
}

/// Adds the links and mount points that programs expect in `/dev`. The machine has one devtmpfs,
/// and this is the only time that it is mounted for a workload.
fn complete_dev() -> Result<(), Failure> {
    const STEP: &str = "prepare /dev";
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link).step(STEP, link)?;
    }
    for directory in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        make_directory(directory).step(STEP, directory)?;
    }
    Ok(())
}

/// Hides or write-protects files of `/proc` and `/sys`, as far as the kernel has them. Returns their paths, in the order of the
/// mounts.
pub(crate) fn restrict_kernel_files<'a, P: AsRef<str>>(
    masked: &'a [P],
    read_only: &'a [P],
) -> Result<Vec<&'a str>, Failure> {
    const STEP: &str = "restrict /proc and /sys";
    let mut restricted = Vec::with_capacity(masked.len() + read_only.len());
    for path in read_only.iter().map(AsRef::as_ref) {
        match mount_bind(path, path) {
            Err(Errno::NOENT) => continue,
            outcome => outcome
                .and_then(|()| mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | RESTRICTED, c""))
                .step(STEP, path)?,
        }
        restricted.push(path);
    }
    for path in masked.iter().map(AsRef::as_ref) {
        match mount_bind("/dev/null", path) {
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR) => {
                mount("tmpfs", path, "tmpfs", MountFlags::RDONLY | RESTRICTED, c"").step(STEP, path)?;
            }
            outcome => outcome.step(STEP, path)?,
        }
        restricted.push(path);
    }
    Ok(restricted)
}

/// Mounts an empty `/run`, which an init expects in a container.
pub(crate) fn mount_for_system() -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_on_directory("tmpfs", "/run", flags, c"mode=755").step("mount", "/run")
}

/// Lets the mounts of a system reach the mount namespaces of its services, as inits set it outside
/// of containers.
pub(crate) fn share_mounts() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).step("share mounts", "/")
}

/// Mounts a share. One file of it is bound from a directory that is then unmounted.
pub(crate) fn mount_share(share: &ShareMount) -> Result<(), Failure> {
    const STEP: &str = "mount share";
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, share.read_only);
    let Some(file) = &share.file else {
        return mount_device(&share.tag, "virtiofs", &share.path, flags, c"").step(STEP, &share.path);
    };
    let directory = "/dev/shm";
    mount(&*share.tag, directory, "virtiofs", flags, None).step(STEP, &share.path)?;
    let bound = make_mount_file(&share.path).and_then(|()| mount_bind(format!("{directory}/{file}"), &*share.path));
    unmount(directory, UnmountFlags::DETACH).step(STEP, directory)?;
    bound.step(STEP, &share.path)
}

/// Creates an empty file to mount on, unless there is something.
fn make_mount_file(path: &str) -> Result<(), Errno> {
    if stat(path).is_ok() {
        return Ok(());
    }
    if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        make_directories(parent)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    open(path, flags, Mode::from_raw_mode(0o644)).map(drop)
}

/// Mounts a tmpfs of `--tmpfs`.
pub(crate) fn mount_tmpfs(tmpfs: &TmpfsMount) -> Result<(), Failure> {
    const STEP: &str = "mount tmpfs";
    let options = TmpfsOptions::parse(&tmpfs.options);
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, options.no_suid);
    flags.set(MountFlags::NODEV, options.no_devices);
    flags.set(MountFlags::NOEXEC, options.no_execute);
    let data = alloc::ffi::CString::new(options.data).map_err(|_| Failure::configuration(STEP, &*tmpfs.path))?;
    mount_on_directory("tmpfs", &tmpfs.path, flags, &data).map_err(|errno| {
        let detail = format!("{} with options \"{}\"", tmpfs.path, tmpfs.options);
        Failure::configuration(STEP, detail).with_errno(errno)
    })
}

/// Creates the mount point if it is missing. An existing one keeps the image's owner and mode.
fn mount_on_directory(file_system: &str, path: &str, flags: MountFlags, data: &CStr) -> Result<(), Errno> {
    mount_device(file_system, file_system, path, flags, data)
}

/// Like [`mount_on_directory`], for a file system with a source.
fn mount_device(source: &str, file_system: &str, path: &str, flags: MountFlags, data: &CStr) -> Result<(), Errno> {
    match mount(source, path, file_system, flags, data) {
        Err(Errno::NOENT) => {
            make_directories(path)?;
            mount(source, path, file_system, flags, data)
        }
        outcome => outcome,
    }
}

/// Makes the workload's root read-only, but not the mounts on it.
pub(crate) fn make_root_read_only() -> Result<(), Failure> {
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").step("make root read-only", "/")
}
