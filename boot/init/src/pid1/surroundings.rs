// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's file systems: the two that PID 1 itself needs, and all that a workload expects to find mounted.

use super::dev;
use super::failure::{Failure, Step};
use super::files::{make_folder, make_folders};
use crate::freestanding::occupy;
use core::ffi::CStr;
use guest_init::tmpfs_options::TmpfsOptions;
use guest_protocol::run_spec::TmpfsMount;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_move, mount_remount};
use rustix::process::{chdir, chroot, umask};

const CLOSED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// One mount of a file system that is no disk's.
struct Mount {
    file_system: &'static str,
    path: &'static str,
    flags: MountFlags,
    data: &'static CStr,
    /// A kernel without it is still good enough.
    optional: bool,
}

/// What every workload finds, in this order. `/proc` shows the PID namespace of the process that mounts it.
const FOR_THE_WORKLOAD: [Mount; 7] = [
    Mount { file_system: "proc", path: "/proc", flags: CLOSED, data: c"", optional: false },
    Mount { file_system: "sysfs", path: "/sys", flags: CLOSED, data: c"", optional: false },
    Mount { file_system: "cgroup2", path: "/sys/fs/cgroup", flags: CLOSED, data: c"", optional: true },
    // The devices of the machine, not a made-up choice of them: the machine is the boundary.
    Mount { file_system: "devtmpfs", path: "/dev", flags: MountFlags::NOSUID, data: c"", optional: false },
    Mount {
        file_system: "devpts",
        path: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: c"gid=5,mode=620,ptmxmode=666",
        optional: false,
    },
    Mount { file_system: "tmpfs", path: "/dev/shm", flags: CLOSED, data: c"mode=1777", optional: false },
    Mount { file_system: "mqueue", path: "/dev/mqueue", flags: CLOSED, data: c"", optional: true },
];

/// `/dev` and `/sys` for PID 1 itself.
pub(crate) fn prepare_own() -> Result<(), Failure> {
    // Modes are meant as they are written.
    umask(Mode::empty());
    for (file_system, path) in [("devtmpfs", "/dev"), ("sysfs", "/sys")] {
        make_folder(path).step("prepare PID 1", path)?;
        match mount(file_system, path, file_system, CLOSED - MountFlags::NODEV, None) {
            // Some kernels mount /dev themselves.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(errno) => return Err(Failure::surroundings("prepare PID 1", path, errno)),
        }
    }
    occupy().step("prepare PID 1", "/dev/null")
}

/// Makes the folder `root`, a mount point, the root of this process and of its mount namespace. The initramfs beneath
/// cannot be pivoted away, so the new root is moved over it.
pub(crate) fn move_root(root: &str) -> Result<(), Failure> {
    const STEP: &str = "enter root";
    chdir(root).step(STEP, root)?;
    mount_move(".", "/").step(STEP, root)?;
    chroot(".").step(STEP, root)?;
    chdir("/").step(STEP, root)
}

/// Mounts what every workload finds. Called in its namespaces, in its root.
pub(crate) fn mount_for_workload() -> Result<(), Failure> {
    for Mount { file_system, path, flags, data, optional } in FOR_THE_WORKLOAD {
        match mount_making_folder(file_system, path, flags, data) {
            Ok(()) => {}
            Err(Errno::NODEV | Errno::NOENT | Errno::PERM) if optional => {}
            Err(errno) => return Err(Failure::surroundings("mount", path, errno)),
        }
        if path == "/dev" {
            dev::complete()?;
        }
    }
    Ok(())
}

/// Mounts what an init expects of those who start it in a container, besides: a `/run` that is empty at each start.
pub(crate) fn mount_for_system() -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_making_folder("tmpfs", "/run", flags, c"mode=755").step("mount", "/run")
}

/// Lets the mounts of a system reach the mount namespaces of its services, as every init sets it outside of containers.
pub(crate) fn share_mounts() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).step("share mounts", "/")
}

/// Mounts one more tmpfs, as `--tmpfs` asks for.
pub(crate) fn mount_tmpfs(wanted: &TmpfsMount) -> Result<(), Failure> {
    const STEP: &str = "mount tmpfs";
    let options = TmpfsOptions::parse(&wanted.options);
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, options.no_suid);
    flags.set(MountFlags::NODEV, options.no_devices);
    flags.set(MountFlags::NOEXEC, options.no_execute);
    let data = alloc::ffi::CString::new(options.data).map_err(|_| Failure::configuration(STEP, &*wanted.path))?;
    // Options that the file system does not know are the request's mistake.
    mount_making_folder("tmpfs", &wanted.path, flags, &data).map_err(|errno| {
        Failure::refused(STEP, alloc::format!("{} with options \"{}\"", wanted.path, wanted.options), errno)
    })
}

/// No mount point is made where one is: the image keeps its owner and mode.
fn mount_making_folder(file_system: &str, path: &str, flags: MountFlags, data: &CStr) -> Result<(), Errno> {
    match mount(file_system, path, file_system, flags, data) {
        Err(Errno::NOENT) => {
            make_folders(path)?;
            mount(file_system, path, file_system, flags, data)
        }
        outcome => outcome,
    }
}

/// From here on the workload's root cannot be written to; what is mounted on it can.
pub(crate) fn make_root_read_only() -> Result<(), Failure> {
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").step("make root read-only", "/")
}
