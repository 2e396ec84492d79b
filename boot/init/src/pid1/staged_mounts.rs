// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's file systems of the workload. The process that becomes the workload mounts them before anything is known about
//! it, in a directory of the initramfs that is its root meanwhile, and moves them into the workload's root later. So a machine
//! from a template has them already.

use super::failure::{Failure, Step};
use super::files::{make_directories, make_directory};
use super::mounts::{RESTRICTED, mount_kernel_file_systems, restrict_kernel_files, set_default_sysctls, write_sysctl};
use crate::freestanding::system_call::unshare_cgroup_namespace;
use alloc::string::String;
use alloc::vec::Vec;
use guest_init::defaults::{MASKED_PATHS, READ_ONLY_MOUNTS, READ_ONLY_PATHS};
use guest_protocol::run_spec::RunSpec;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{chdir, chroot, fchdir};

const STEP: &str = "prepare mounts";
const STAGE: &str = "/stage";
/// Mounts that are moved, with what is mounted on them.
const TOPS: [&str; 3] = ["/proc", "/sys", "/dev"];
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Lets mounts of PID 1 reach the mount namespaces that are made from now on, until they call [`keep_to_itself`].
pub(crate) fn share_new_mounts() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::SHARED).step(STEP, "/")
}

/// Ends the propagation of mounts from PID 1 into this mount namespace.
pub(crate) fn keep_to_itself() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step(STEP, "/")
}

/// The mounts before they are in the workload's root.
pub(crate) struct StagedMounts {
    tops: Vec<(&'static str, OwnedFd)>,
    /// `/proc/sys`, without the mount that makes it read-only.
    sysctls: OwnedFd,
    /// Paths with a mount that hides or write-protects them, in their order.
    restricted: Vec<&'static str>,
}

impl StagedMounts {
    /// Mounts everything with the restrictions of an unprivileged workload. Called in the workload's namespaces.
    pub(crate) fn prepare() -> Result<Self, Failure> {
        // Mounts of PID 1 arrive here, and none of these there.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).step(STEP, "/")?;
        unshare_cgroup_namespace();
        let initramfs = open("/", DIRECTORY, Mode::empty()).step(STEP, "/")?;
        make_directory(STAGE).step(STEP, STAGE)?;
        chdir(STAGE).and_then(|()| chroot(".")).step(STEP, STAGE)?;
        mount_kernel_file_systems()?;
        set_default_sysctls();
        let sysctls = open("/proc/sys", DIRECTORY, Mode::empty()).step(STEP, "/proc/sys")?;
        let restricted = restrict_kernel_files(&MASKED_PATHS, &READ_ONLY_PATHS)?;
        let open_top = |path| Ok((path, open(path, DIRECTORY, Mode::empty()).step(STEP, path)?));
        let tops = TOPS.into_iter().map(open_top).collect::<Result<_, Failure>>()?;
        fchdir(&initramfs).and_then(|()| chroot(".")).step(STEP, "/")?;
        Ok(Self { tops, sysctls, restricted })
    }

    /// Moves the mounts into the workload's root, where the process is, with the restrictions and kernel parameters of `spec`.
    pub(crate) fn place(self, spec: &RunSpec) -> Result<(), Failure> {
        for (name, value) in &spec.sysctls {
            write_sysctl(&self.sysctls, name, value)?;
        }
        for (path, top) in &self.tops {
            match move_top(top, path) {
                Err(Errno::NOENT) => make_directories(path).and_then(|()| move_top(top, path)),
                outcome => outcome,
            }
            .step("mount", path)?;
        }
        if spec.privileged || spec.restricted_paths.is_some() {
            for path in self.restricted.into_iter().rev() {
                unmount(path, UnmountFlags::DETACH).step(STEP, path)?;
            }
        }
        match &spec.restricted_paths {
            _ if spec.privileged => READ_ONLY_MOUNTS.into_iter().try_for_each(allow_writing),
            Some(given) => restrict_kernel_files::<String>(&given.masked, &given.read_only).map(drop),
            None => Ok(()),
        }
    }
}

fn move_top(top: &OwnedFd, path: &str) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(top, c"", CWD, path, flags)
}

fn allow_writing(path: &str) -> Result<(), Failure> {
    match mount_remount(path, MountFlags::BIND | RESTRICTED, c"") {
        // The kernel has no control groups, so the directory is no mount.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        outcome => outcome.step("mount", path),
    }
}
