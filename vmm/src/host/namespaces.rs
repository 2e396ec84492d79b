// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Namespaces of this process, and of some of its threads: each thread of Linux has its own. Root only.
#![allow(unsafe_code, reason = "unshare(2) has no safe wrapper")]

use rustix::fs::{CWD, Mode, OFlags, mkdirat, open};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::os::fd::{AsFd as _, OwnedFd};

/// Where a thread finds the open files of this process.
const OPEN_FILES: &str = "proc/self/fd";

/// Gives the calling thread, and those that it starts, IPC objects and a host name of their own.
pub(crate) fn leave_ipc_and_names() -> Result<()> {
    // SAFETY: descriptors and the directory stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS) }
}

/// A network without interfaces, and a root directory in which there is nothing but the open files of this process.
#[derive(Debug)]
pub(crate) struct Namespaces {
    network: OwnedFd,
    mounts: OwnedFd,
}

impl Namespaces {
    /// Makes both. The calling thread is in them then, and of no use for anything else.
    pub(crate) fn make() -> Result<Self> {
        // SAFETY: descriptors stay shared; the directories are this thread's from now on.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
        let link = |name: &str| open(format!("/proc/thread-self/ns/{name}"), OFlags::CLOEXEC, Mode::empty());
        let made = Self { network: link("net")?, mounts: link("mnt")? };
        empty_root()?;
        Ok(made)
    }

    /// Moves the calling thread to the network.
    pub(crate) fn enter_network(&self) -> Result<()> {
        move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
    }

    /// Moves the calling thread to the root directory.
    pub(crate) fn enter_root(&self) -> Result<()> {
        // SAFETY: the directories and the file mode creation mask are this thread's from now on.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))
    }
}

/// Replaces all mounts of the calling thread's namespace by one file system that cannot be changed.
fn empty_root() -> Result<()> {
    // The host's mounts stay as they are.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let files =
        open_tree(CWD, format!("/{OPEN_FILES}"), OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let system = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(system.as_fd(), "mode", "0755")?;
    fsconfig_create(system.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(system.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for (end, _) in OPEN_FILES.match_indices('/').chain([(OPEN_FILES.len(), "")]) {
        mkdirat(&root, &OPEN_FILES[..end], Mode::from_raw_mode(0o755))?;
    }
    // It has to be mounted somewhere first.
    move_mount(root.as_fd(), "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(&root)?;
    move_mount(files.as_fd(), "", CWD, OPEN_FILES, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // The old root is mounted on the new one, and unmounted.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_remount("/", flags | MountFlags::BIND, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::readlink;
    use std::fs::{self, File};
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;

    fn namespace(name: &str) -> std::ffi::CString {
        readlink(format!("/proc/thread-self/ns/{name}"), Vec::new()).unwrap()
    }

    #[test]
    fn thread_in_namespaces_reaches_open_files_only() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let before = (namespace("net"), namespace("mnt"));
        let namespaces = std::thread::spawn(Namespaces::make).join().unwrap().unwrap();
        let (directory, mut file) = (tempfile::tempdir().unwrap(), tempfile::tempfile().unwrap());
        let opened = File::open(&directory).unwrap();
        fs::write(directory.path().join("f"), "text").unwrap();
        file.write_all(b"open").unwrap();
        let of_host = fs::read_to_string("/proc/self/net/dev").unwrap();
        std::thread::spawn(move || {
            namespaces.enter_network().unwrap();
            let interfaces = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert_eq!(interfaces.lines().filter(|line| line.contains(':')).count(), 1, "{interfaces}\n{of_host}");
            namespaces.enter_root().unwrap();
            for path in ["/etc/passwd", "/proc/self/status", "/../etc", "/dev/null"] {
                assert!(fs::metadata(path).is_err(), "{path}");
            }
            let names: Vec<_> = fs::read_dir("/").unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["proc"]);
            assert!(fs::write("/new", "").is_err());
            let mut text = String::new();
            let path = format!("/{OPEN_FILES}/{}", file.as_raw_fd());
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "open");
            let within = rustix::fs::openat(&opened, "f", OFlags::RDONLY, Mode::empty());
            assert!(within.is_ok());
        })
        .join()
        .unwrap();
        assert_eq!((namespace("net"), namespace("mnt")), before);
    }

    #[test]
    fn process_has_ipc_and_names_of_its_own() {
        let left = std::thread::spawn(|| leave_ipc_and_names().map(|()| [namespace("ipc"), namespace("uts")]));
        match left.join().unwrap() {
            Ok(own) => assert!(own != [namespace("ipc"), namespace("uts")]),
            Err(error) => assert_eq!(error, rustix::io::Errno::PERM),
        }
    }
}
