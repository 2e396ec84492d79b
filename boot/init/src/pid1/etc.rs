// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of [`guest_init::etc_files`] in the workload's root, and the SSH keys of root. On an overlay or a writable root
//! they are ordinary files; on a root that takes no writes, and on a directory of the host, they are mounted
//! over the root's files, where it has them.

use super::failure::{Failure, Step};
use super::files::{append_lines, make_directory, replace_file};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use guest_init::etc_files;
use guest_protocol::run_spec::{RunSpec, Upper};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, mkdir, open, symlink};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

const STEP: &str = "write files of /etc";

pub(crate) enum EtcFiles {
    /// Contents, for a root that takes writes.
    Written(Vec<(&'static str, String)>),
    /// Detached mounts of files in the initramfs.
    Mounted(Vec<(&'static str, OwnedFd)>),
}

impl EtcFiles {
    /// Called in the workload's mount namespace, before its root is entered.
    pub(crate) fn prepare(spec: &RunSpec) -> Result<Self, Failure> {
        if spec.keep_etc {
            return Ok(Self::Written(Vec::new()));
        }
        let files = etc_files::contents(spec);
        if are_written(spec) {
            return Ok(Self::Written(files));
        }
        make_directory("/etc").step(STEP, "/etc of the initramfs")?;
        let mut mounts = Vec::with_capacity(files.len());
        for (path, content) in files {
            replace_file(path, content.as_bytes()).step(STEP, path)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            mounts.push((path, open_tree(CWD, path, flags).step(STEP, path)?));
        }
        Ok(Self::Mounted(mounts))
    }

    /// Called in the workload's root.
    pub(crate) fn place(self) -> Result<(), Failure> {
        match self {
            Self::Written(files) => {
                link_mtab(&files);
                for (path, content) in files {
                    let outcome = match replace_file(path, content.as_bytes()) {
                        Err(Errno::NOENT) => {
                            make_directory("/etc").and_then(|()| replace_file(path, content.as_bytes()))
                        }
                        outcome => outcome,
                    };
                    outcome.step(STEP, path)?;
                }
            }
            Self::Mounted(mounts) => {
                for (path, mount) in mounts {
                    match move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
                        // The image has no such file, and none can be created.
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(errno) => return Err(Failure::setup(STEP, format!("mount {path}"), errno)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Appends the keys that `authorized_keys` of root does not have yet. Called in the workload's root.
pub(crate) fn add_authorized_keys(keys: &[String]) -> Result<(), Failure> {
    const STEP: &str = "write SSH keys";
    const FILE: &str = "/root/.ssh/authorized_keys";
    if keys.is_empty() {
        return Ok(());
    }
    for (path, mode) in [("/root", 0o700), ("/root/.ssh", 0o700)] {
        match mkdir(path, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Failure::setup(STEP, path, errno)),
        }
    }
    append_lines(FILE, keys).step(STEP, FILE)
}

/// Does in advance what costs most in [`EtcFiles::place`], in the directory `etc` of an overlay: the files are in its upper layer. Those
/// that every workload gets are empty, others are as they were.
pub(crate) fn prepare_files(etc: &str) -> Result<(), Failure> {
    let _ = symlink("/proc/mounts", format!("{etc}/mtab"));
    for path in ["hosts", "hostname"].map(|name| format!("{etc}/{name}")) {
        replace_file(&path, b"").step(STEP, &path)?;
    }
    // The image need not have it, and without a name server it stays.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let _ = open(format!("{etc}/resolv.conf"), flags, Mode::empty());
    Ok(())
}

/// The root takes writes that stay in the machine.
fn are_written(spec: &RunSpec) -> bool {
    let is_of_the_host = spec.root.share.is_some() && spec.root.upper == Upper::InPlace;
    spec.root.upper != Upper::None && !is_of_the_host
}

/// The files whose content differs from that of `old`.
fn changed(new: &RunSpec, old: &RunSpec) -> Vec<(&'static str, String)> {
    let before = etc_files::contents(old);
    etc_files::contents(new).into_iter().filter(|file| !new.keep_etc && !before.contains(file)).collect()
}

/// Writes what differs from `old`, in the workload's root.
pub(crate) fn rewrite(new: &RunSpec, old: &RunSpec) -> Result<(), Errno> {
    let files = if are_written(new) { changed(new, old) } else { Vec::new() };
    files.iter().try_for_each(|(path, content)| match replace_file(path, content.as_bytes()) {
        // The workload has removed the directory, or made its root read-only.
        Err(Errno::NOENT | Errno::ROFS) => Ok(()),
        written => written,
    })
}

/// Writes what differs from `old` to the files of the initramfs that are mounted in the workload's root.
pub(crate) fn rewrite_mounted(new: &RunSpec, old: &RunSpec) -> Result<(), Errno> {
    let files = if are_written(new) { Vec::new() } else { changed(new, old) };
    files.iter().try_for_each(|(path, content)| replace_file(path, content.as_bytes()))
}

/// As docker does: programs of old images look for the mounts there. An image has its own, or goes
/// without. Not for a system, whose `/etc` is its own.
fn link_mtab(files: &[(&str, String)]) {
    if files.iter().any(|(path, _)| *path == "/etc/hosts") {
        let _ = symlink("/proc/mounts", "/etc/mtab");
    }
}
