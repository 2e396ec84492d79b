// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's file systems of the workload. The process that becomes the workload mounts them before anything is known about
//! it, in a directory of the initramfs that is its root meanwhile, and moves them into the workload's root once PID 1 has mounted
//! that. So a machine from a template has them already.

use super::failure::{Failure, Step};
use super::files::{make_directories, make_directory};
use super::mounts::{
    RESTRICTED, mount_kernel_file_systems, move_root, restrict_kernel_files, set_default_sysctls, write_sysctl,
};
use super::root;
use crate::freestanding::system_call::unshare_cgroup_namespace;
use alloc::string::String;
use alloc::vec::Vec;
use guest_init::defaults::{MASKED_PATHS, READ_ONLY_MOUNTS, READ_ONLY_PATHS};
use guest_protocol::run_spec::{Root, RunSpec};
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

/// Lets mounts of PID 1 reach the mount namespaces that are made from now on, until they call
/// [`PlacedMounts::leave_pid1`].
pub(crate) fn share_new_mounts() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::SHARED).step(STEP, "/")
}

/// Ends the propagation of mounts from PID 1 into this mount namespace.
fn keep_to_itself() -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step(STEP, "/")
}

/// The mounts before they are in the workload's root.
pub(crate) struct StagedMounts {
    tops: Vec<(&'static str, OwnedFd)>,
    rest: Rest,
}

/// What is needed of the mounts wherever they are.
struct Rest {
    /// The root directory of PID 1.
    initramfs: OwnedFd,
    /// `/proc/sys`, without the mount that makes it read-only.
    sysctls: OwnedFd,
    /// Paths with a mount that hides or write-protects them, in their order.
    restricted: Vec<&'static str>,
}

/// The mounts in the workload's root, which this process has entered.
pub(crate) struct PlacedMounts {
    root: OwnedFd,
    rest: Rest,
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
        change_root(&initramfs)?;
        Ok(Self { tops, rest: Rest { initramfs, sysctls, restricted } })
    }

    /// Enters the workload's root, which PID 1 has mounted, and moves the mounts there.
    pub(crate) fn enter_root(self, root: &Root) -> Result<PlacedMounts, Failure> {
        root::allow_execution(root)?;
        move_root(root::PATH)?;
        let root = open("/", DIRECTORY, Mode::empty()).step(STEP, "/")?;
        for (path, top) in &self.tops {
            match move_top(top, path) {
                Err(Errno::NOENT) => make_directories(path).and_then(|()| move_top(top, path)),
                outcome => outcome,
            }
            .step("mount", path)?;
        }
        Ok(PlacedMounts { root, rest: self.rest })
    }
}

impl PlacedMounts {
    /// Runs `step` in PID 1's root directory, then returns to the workload's root. From then on mounts of PID 1 do not propagate here.
    pub(crate) fn leave_pid1<T>(&self, step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        change_root(&self.rest.initramfs)?;
        keep_to_itself()?;
        let done = step()?;
        change_root(&self.root)?;
        Ok(done)
    }

    /// Gives the mounts the restrictions and kernel parameters of `spec`.
    pub(crate) fn adapt(self, spec: &RunSpec) -> Result<(), Failure> {
        let Rest { sysctls, restricted, .. } = self.rest;
        for (name, value) in &spec.sysctls {
            write_sysctl(&sysctls, name, value)?;
        }
        if spec.privileged || spec.restricted_paths.is_some() {
            for path in restricted.into_iter().rev() {
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

fn change_root(directory: &OwnedFd) -> Result<(), Failure> {
    fchdir(directory).and_then(|()| chroot(".")).step(STEP, "/")
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
