// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of [`guest_init::etc_files`] in the workload's root. Where an overlay or a writable root takes writes they
//! are ordinary files of it; over a root that cannot be written to they are mounted, if the image has such files.

use super::failure::{Failure, Step};
use super::files::{make_folder, replace_file};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use guest_init::etc_files;
use guest_protocol::run_spec::{RunSpec, Upper};
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

const STEP: &str = "write files of /etc";

/// The files, ready to be put into the root.
pub(crate) enum EtcFiles {
    /// Content for a root that takes writes.
    Written(Vec<(&'static str, String)>),
    /// Mounts, on nothing yet, of files in the initramfs.
    Mounted(Vec<(&'static str, OwnedFd)>),
}

impl EtcFiles {
    /// Called in the workload's mount namespace, before its root is entered.
    pub(crate) fn prepare(spec: &RunSpec) -> Result<Self, Failure> {
        let files = etc_files::of(spec);
        if spec.root.upper != Upper::None {
            return Ok(Self::Written(files));
        }
        make_folder("/etc").step(STEP, "/etc of the initramfs")?;
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
                for (path, content) in files {
                    let outcome = match replace_file(path, content.as_bytes()) {
                        Err(Errno::NOENT) => make_folder("/etc").and_then(|()| replace_file(path, content.as_bytes())),
                        outcome => outcome,
                    };
                    outcome.step(STEP, path)?;
                }
            }
            Self::Mounted(mounts) => {
                for (path, mount) in mounts {
                    match move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
                        // Nothing to mount it on, and no way to make it: the image does without.
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(errno) => return Err(Failure::surroundings(STEP, format!("mount {path}"), errno)),
                    }
                }
            }
        }
        Ok(())
    }
}
