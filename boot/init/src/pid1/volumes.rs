// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Volumes: directories that are no part of the root file system. A volume's disk is mounted where only PID 1 sees it, and the
//! workload gets a mount of one directory of it: what a file system has in its own top directory (`lost+found`) is no data of
//! the workload's.
//!
//! A volume that is empty gets what the image has in its place. The copy becomes the data by a rename once it is complete, so a
//! machine that was killed meanwhile leaves an empty volume.

use super::copy_tree::{copy_directory, is_empty, remove_directory};
use super::failure::{Failure, Step};
use super::files::make_directories;
use super::mounts::RESTRICTED;
use super::root::{Disks, LAYERS, settle};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use guest_protocol::run_spec::{VolumeMount, VolumeSource};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat, renameat, syncfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_remount, move_mount, open_tree};

const STEP: &str = "mount volume";
/// Where PID 1 sees the disks of volumes.
const DISKS: &str = "/volumes";
/// What the workload sees of a volume; docker's name.
const DATA: &CStr = c"_data";
/// A copy that is not complete.
const NEW: &CStr = c"_new";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Where PID 1 sees the volume at this position.
fn place(volume: &VolumeMount, index: usize) -> String {
    match volume.source {
        VolumeSource::Disk(_) => format!("{DISKS}/{index}"),
        VolumeSource::Scratch => format!("{LAYERS}/volumes/{index}"),
    }
}

/// Mounts the disks of `volumes`, and makes their directories on the scratch layer, which is mounted.
pub(crate) fn mount_disks(volumes: &[VolumeMount], disks: &mut Disks) -> Result<(), Failure> {
    for (index, volume) in volumes.iter().enumerate() {
        let place = place(volume, index);
        make_directories(&place).step(STEP, &place)?;
        if let VolumeSource::Disk(serial) = &volume.source {
            let disk = disks.find(serial, STEP)?;
            mount_disk(&disk, &place, volume.read_only)
                .map_err(|errno| Failure::setup(STEP, format!("{} ({disk})", volume.path), errno))?;
        }
    }
    Ok(())
}

fn mount_disk(disk: &str, directory: &str, read_only: bool) -> Result<(), Errno> {
    if !read_only {
        return mount(disk, directory, "ext4", RESTRICTED, None);
    }
    match mount(disk, directory, "ext4", RESTRICTED | MountFlags::RDONLY, None) {
        // A machine was killed while it wrote, and its journal cannot be carried out on this disk.
        Err(Errno::ROFS | Errno::ACCESS) => mount(disk, directory, "ext4", RESTRICTED | MountFlags::RDONLY, c"noload"),
        outcome => outcome,
    }
}

/// A volume that the workload's process holds while it changes its root.
pub(crate) struct OpenVolume<'a> {
    volume: &'a VolumeMount,
    top: OwnedFd,
}

/// Opens `volumes` in PID 1's root.
pub(crate) fn open_all(volumes: &[VolumeMount]) -> Result<Vec<OpenVolume<'_>>, Failure> {
    let open_one = |(index, volume)| {
        let place = place(volume, index);
        let top = open(&*place, OFlags::RDONLY | DIRECTORY, Mode::empty()).step(STEP, &place)?;
        Ok(OpenVolume { volume, top })
    };
    volumes.iter().enumerate().map(open_one).collect()
}

impl OpenVolume<'_> {
    pub(crate) fn path(&self) -> &str {
        &self.volume.path
    }

    /// Mounts the volume in the workload's root.
    pub(crate) fn mount(&self) -> Result<(), Failure> {
        let VolumeMount { path, read_only, copy, .. } = self.volume;
        let of_path = |errno| Failure::configuration(STEP, &**path).with_errno(errno);
        make_directories(path).map_err(of_path)?;
        if !read_only {
            if *copy && is_empty(&self.top, DATA).step(STEP, path)? {
                self.fill()?;
            } else {
                make_directory_at(&self.top, DATA).step(STEP, path)?;
            }
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        match open_tree(&self.top, DATA, flags) {
            // Nothing has been written to it yet.
            Err(Errno::NOENT) if *read_only => mount("tmpfs", &**path, "tmpfs", RESTRICTED | MountFlags::RDONLY, None),
            tree => tree.and_then(|tree| {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                move_mount(tree, c"", CWD, &**path, flags)?;
                let mut flags = MountFlags::BIND;
                flags.set(MountFlags::RDONLY, *read_only);
                mount_remount(&**path, flags, c"")
            }),
        }
        .map_err(of_path)
    }

    /// Copies what the image has at the volume's path.
    fn fill(&self) -> Result<(), Failure> {
        let VolumeMount { path, source, .. } = self.volume;
        let image = open(&**path, OFlags::RDONLY | DIRECTORY, Mode::empty()).step(STEP, path)?;
        remove_directory(&self.top, NEW).step(STEP, path)?;
        make_directory_at(&self.top, NEW).step(STEP, path)?;
        let new = openat(&self.top, NEW, OFlags::RDONLY | DIRECTORY, Mode::empty()).step(STEP, path)?;
        copy_directory(&image, &new).map_err(|(below, errno)| {
            let below = String::from_utf8_lossy(below.to_bytes()).into_owned();
            Failure::setup("copy to volume", format!("{path}/{}", below.trim_start_matches("./")), errno)
        })?;
        if let VolumeSource::Disk(_) = source {
            syncfs(&self.top).step(STEP, path)?;
        }
        renameat(&self.top, NEW, &self.top, DATA).step(STEP, path)
    }
}

fn make_directory_at(base: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    match mkdirat(base, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}

/// Writes the disks of `volumes`, and marks them as clean, after the workload and its mounts are gone.
pub(crate) fn finish(volumes: &[VolumeMount]) -> Result<(), Failure> {
    let is_written = |volume: &VolumeMount| matches!(volume.source, VolumeSource::Disk(_)) && !volume.read_only;
    for (index, volume) in volumes.iter().enumerate().filter(|(_, volume)| is_written(volume)) {
        let top = open(&*place(volume, index), OFlags::RDONLY | DIRECTORY, Mode::empty());
        top.and_then(|top| settle(&top)).step("write volume", &volume.path)?;
    }
    Ok(())
}
