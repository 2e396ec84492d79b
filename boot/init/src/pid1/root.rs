// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root file system of the workload, mounted at [`PATH`]: the root disk, and an overlay over it that takes the
//! writes.

use super::disks::Disks;
use super::failure::{Failure, Step};
use super::files::make_folder;
use guest_protocol::run_spec::{Root, Upper};
use rustix::fs::{Mode, OFlags, chown, mkdir, open, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount as mount_file_system, mount_remount};

/// No thread in the background that zeroes inode tables or reads the bitmaps of all groups: the disk is new and sparse.
const SCRATCH_OPTIONS: &core::ffi::CStr = c"noinit_itable,no_prefetch_block_bitmaps";

/// Where PID 1 sees the workload's root.
pub(crate) const PATH: &str = "/root";
/// The image's file system, if an overlay lies over it.
const LOWER: &str = "/lower";
/// What takes the writes.
const SCRATCH: &str = "/scratch";
/// `redirect_dir`: folders of the image can be renamed. `volatile`: nothing of the upper layer outlives the machine, so
/// no `fsync` need wait for it. `index` and `metacopy` are of use only to layers that are mounted again.
const OVERLAY: &core::ffi::CStr =
    c"lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work,redirect_dir=on,index=off,metacopy=off,volatile";

/// Mounts what `root` describes at [`PATH`].
pub(crate) fn mount(root: &Root) -> Result<(), Failure> {
    let mut disks = Disks::default();
    make_folder(PATH).step("prepare root", PATH)?;
    match &root.upper {
        Upper::None => mount_image(root, &mut disks, PATH, MountFlags::RDONLY),
        Upper::InPlace => mount_image(root, &mut disks, PATH, MountFlags::empty()),
        Upper::Tmpfs => {
            make_folder(SCRATCH).step("prepare root", SCRATCH)?;
            mount_file_system("tmpfs", SCRATCH, "tmpfs", MountFlags::empty(), c"mode=700")
                .step("mount scratch layer", "tmpfs")?;
            mount_overlay(root, &mut disks)
        }
        Upper::Disk(serial) => {
            make_folder(SCRATCH).step("prepare root", SCRATCH)?;
            let disk = disks.find(serial, "find scratch disk")?;
            mount_file_system(&*disk, SCRATCH, "ext4", MountFlags::NOATIME, SCRATCH_OPTIONS)
                .step("mount scratch disk", &disk)?;
            mount_overlay(root, &mut disks)
        }
    }
}

/// Mounts the root disk at `path` as the first of its file systems that fits.
fn mount_image(root: &Root, disks: &mut Disks, path: &str, flags: MountFlags) -> Result<(), Failure> {
    const STEP: &str = "mount root disk";
    let disk = disks.find(&root.disk_serial, "find root disk")?;
    let mut is_known = false;
    for file_system in &root.file_systems {
        match mount_file_system(&*disk, path, &**file_system, flags, None) {
            Ok(()) => return Ok(()),
            // Not this file system, or not one that the kernel knows: the next.
            Err(Errno::INVAL) => is_known = true,
            Err(Errno::NODEV) => {}
            Err(errno) => return Err(Failure::surroundings(STEP, alloc::format!("{disk} as {file_system}"), errno)),
        }
    }
    let tried = root.file_systems.join(", ");
    if !is_known {
        return Err(Failure::refused(STEP, alloc::format!("the guest's kernel has none of: {tried}"), Errno::NODEV));
    }
    let cure =
        if root.upper == Upper::InPlace { "; to write elsewhere than to the disk itself, use --scratch" } else { "" };
    Err(Failure::refused(STEP, alloc::format!("{disk} holds none of: {tried}{cure}"), Errno::INVAL))
}

fn mount_overlay(root: &Root, disks: &mut Disks) -> Result<(), Failure> {
    const STEP: &str = "lay scratch over root disk";
    make_folder(LOWER).step("prepare root", LOWER)?;
    mount_image(root, disks, LOWER, MountFlags::RDONLY)?;
    // The upper layer's top folder is the one that the workload sees: owner and mode are the image's.
    let top = stat(LOWER).step(STEP, LOWER)?;
    mkdir("/scratch/upper", Mode::from_raw_mode(top.st_mode & 0o7777)).step(STEP, "/scratch/upper")?;
    if (top.st_uid, top.st_gid) != (0, 0) {
        let owner = rustix::process::Uid::from_raw(top.st_uid);
        let group = rustix::process::Gid::from_raw(top.st_gid);
        chown("/scratch/upper", Some(owner), Some(group)).step(STEP, "/scratch/upper")?;
    }
    mkdir("/scratch/work", Mode::RWXU).step(STEP, "/scratch/work")?;
    mount_file_system("overlay", PATH, "overlay", MountFlags::empty(), OVERLAY).step(STEP, "overlay")
}

/// Brings to the disk what must outlive the machine, after the workload and all its mounts are gone. That is a root
/// written in place only: the scratch layer ends with the machine, and other disks were unmounted or closed, and thereby
/// written, when the last process of the workload ended.
pub(crate) fn settle(root: &Root) -> Result<(), Failure> {
    match root.upper {
        Upper::InPlace => match mount_remount(PATH, MountFlags::RDONLY, c"") {
            // A mount of the workload's that the kernel still takes down, of an image on the disk for example. With
            // everything written, all that is missing is the mark that nothing is left to recover.
            Err(Errno::BUSY) => sync_root(),
            outcome => outcome,
        }
        .step("make root disk read-only", PATH),
        Upper::None | Upper::Tmpfs | Upper::Disk(_) => Ok(()),
    }
}

fn sync_root() -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::syncfs(open(PATH, flags, Mode::empty())?)
}
