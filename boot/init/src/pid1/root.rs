// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root file system of the workload, mounted at [`PATH`]: the root disk, and an overlay on it
//! that takes the writes.
//!
//! Programs that the kernel starts itself (`core_pattern`, `modprobe`, `uevent_helper`) run in PID
//! 1's mount namespace. So nothing in it can be executed: every mount is `noexec`, the initramfs
//! and the root included, and the root is detached once the workload has its own mount of it.

use super::etc;
use super::failure::{Failure, Step};
use super::files::{make_directory, read_file, write_file};
use super::mounts::RESTRICTED;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use guest_protocol::run_spec::{Root, RunSpec, Upper, VolumeMount, VolumeSource};
use rustix::fd::{AsFd, IntoRawFd as _, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, chmod, chown, lstat, mkdir, open, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsPickFlags, MountFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick, mount as mount_file_system,
    mount_remount, unmount,
};
use rustix::process::{Gid, Uid};

/// Where PID 1 sees the workload's root.
pub(crate) const PATH: &str = "/root";
/// The image's file system beneath an overlay.
const LOWER: &str = "/lower";
/// Where PID 1 sees the file system that takes the writes.
pub(crate) const SCRATCH: &str = "/scratch";
/// No background thread that zeroes inode tables or reads the bitmaps of all groups: the disk is
/// new and sparse.
const LAYER_OPTIONS: &core::ffi::CStr = c"noinit_itable,no_prefetch_block_bitmaps";
/// For a disk that ends with the machine. `noblock_validity`: without the list of all metadata, which is made at the mount and finds
/// damage that such a disk cannot have. `noauto_da_alloc`: a file that was emptied and written again is not written to the disk when it
/// is closed, which is for crashes.
const SCRATCH_OPTIONS: &core::ffi::CStr = c"noinit_itable,no_prefetch_block_bitmaps,noblock_validity,noauto_da_alloc";
/// Parent of the overlay's two directories. ext4 puts each directory of the file system's root into
/// a block group of its own, and setting up a group costs 0.3 s where the host emulates guest
/// kernel mode; directories further down share one.
pub(crate) const LAYERS: &str = "/scratch/overlay";
const UPPER: &str = "/scratch/overlay/upper";
const WORK: &str = "/scratch/overlay/work";
/// `redirect_dir`: directories of the image can be renamed. `volatile`: nothing of the upper layer
/// outlives the machine, so `fsync` need not wait for it.
const OVERLAY_OPTIONS: &core::ffi::CStr = c"lowerdir=/lower,upperdir=/scratch/overlay/upper,\
    workdir=/scratch/overlay/work,redirect_dir=on,index=off,metacopy=off,volatile";
/// For an upper layer that outlives the machine. Its lower layer is always the same disk. The layer has no redirects, so that each
/// directory of it lies on the image's directory of the same path; a directory of the image cannot be renamed (`EXDEV`), as in docker.
const KEPT_OPTIONS: &core::ffi::CStr = c"lowerdir=/lower,upperdir=/scratch/overlay/upper,\
    workdir=/scratch/overlay/work,redirect_dir=off,index=off,metacopy=off";

/// Mounts what `root` describes at [`PATH`].
pub(crate) fn mount(root: &Root, disks: &mut Disks) -> Result<(), Failure> {
    const STEP: &str = "prepare root";
    make_directory(PATH).step(STEP, PATH)?;
    match &root.upper {
        Upper::None => mount_image(root, disks, PATH, MountFlags::RDONLY | MountFlags::NOEXEC),
        Upper::InPlace => mount_image(root, disks, PATH, MountFlags::NOEXEC),
        Upper::Tmpfs => {
            make_directory(SCRATCH).step(STEP, SCRATCH)?;
            mount_file_system("tmpfs", SCRATCH, "tmpfs", RESTRICTED, c"mode=700")
                .step("mount scratch layer", "tmpfs")?;
            mount_overlay(root, disks, OVERLAY_OPTIONS)
        }
        Upper::Disk(serial) | Upper::Kept(serial) => {
            make_directory(SCRATCH).step(STEP, SCRATCH)?;
            let disk = disks.find(serial, "find scratch disk")?;
            let is_kept = matches!(root.upper, Upper::Kept(_));
            let options = if is_kept { LAYER_OPTIONS } else { SCRATCH_OPTIONS };
            mount_file_system(&*disk, SCRATCH, "ext4", RESTRICTED | MountFlags::NOATIME, options)
                .step("mount scratch disk", &disk)?;
            if !is_kept {
                read_no_bitmaps_ahead(&disk);
            }
            mount_overlay(root, disks, if is_kept { KEPT_OPTIONS } else { OVERLAY_OPTIONS })
        }
    }
}

/// The first allocation would read the bitmaps of a whole flexible group ahead, and make those that the new disk does not have
/// yet: a tenth of a start from a template where the host emulates guest kernel mode.
fn read_no_bitmaps_ahead(disk: &str) {
    let name = disk.trim_start_matches("/dev/");
    // Without the file it only takes longer.
    let _ = write_file(&format!("/sys/fs/ext4/{name}/mb_prefetch"), b"0");
}

/// Mounts the root disk at `path` as the first of its file systems that fits, or the directory of the host.
fn mount_image(root: &Root, disks: &mut Disks, path: &str, flags: MountFlags) -> Result<(), Failure> {
    if let Some(tag) = &root.share {
        return mount_file_system(&**tag, path, "virtiofs", flags, None).step("mount root directory", tag);
    }
    const STEP: &str = "mount root disk";
    let disk = disks.find(&root.disk_serial, "find root disk")?;
    let mut is_supported = false;
    for file_system in &root.file_systems {
        match mount_file_system(&*disk, path, &**file_system, flags, None) {
            Ok(()) => return Ok(()),
            // The disk holds another file system.
            Err(Errno::INVAL) => is_supported = true,
            // The kernel does not have this one.
            Err(Errno::NODEV) => {}
            Err(errno) => return Err(Failure::setup(STEP, format!("{disk} as {file_system}"), errno)),
        }
    }
    let tried = root.file_systems.join(", ");
    if !is_supported {
        let detail = format!("the guest's kernel has none of: {tried}");
        return Err(Failure::configuration(STEP, detail).with_errno(Errno::NODEV));
    }
    let hint = if root.upper == Upper::InPlace { "; --scratch writes elsewhere than to the disk itself" } else { "" };
    Err(Failure::configuration(STEP, format!("{disk} holds none of: {tried}{hint}")).with_errno(Errno::INVAL))
}

fn mount_overlay(root: &Root, disks: &mut Disks, options: &core::ffi::CStr) -> Result<(), Failure> {
    const STEP: &str = "mount overlay";
    make_directory(LOWER).step(STEP, LOWER)?;
    make_directory(LAYERS).step(STEP, LAYERS)?;
    mount_image(root, disks, LOWER, MountFlags::RDONLY | RESTRICTED)?;
    // The work directory is made last: where it exists, an earlier machine has completed the upper one.
    if stat(WORK).is_err() {
        make_upper()?;
        mkdir(WORK, Mode::RWXU).step(STEP, WORK)?;
    }
    mount_file_system("overlay", PATH, "overlay", MountFlags::NOEXEC, options).step(STEP, "overlay")
}

/// Makes the upper layer's top directory. The workload sees it, so owner and mode are those of the
/// image's.
fn make_upper() -> Result<(), Failure> {
    const STEP: &str = "mount overlay";
    let top = stat(LOWER).step(STEP, LOWER)?;
    let mode = Mode::from_raw_mode(top.st_mode & 0o7777);
    match mkdir(UPPER, mode) {
        // A machine was killed before it made the work directory.
        Err(Errno::EXIST) => chmod(UPPER, mode),
        outcome => outcome,
    }
    .step(STEP, UPPER)?;
    if (top.st_uid, top.st_gid) != (0, 0) {
        let (owner, group) = (Uid::from_raw(top.st_uid), Gid::from_raw(top.st_gid));
        chown(UPPER, Some(owner), Some(group)).step(STEP, UPPER)?;
    }
    Ok(())
}

/// Prepares the directory `/etc` in an upper layer: every start writes files there.
pub(crate) fn prepare_etc(root: &Root) -> Result<(), Failure> {
    let has_overlay = matches!(root.upper, Upper::Tmpfs | Upper::Disk(_) | Upper::Kept(_));
    let path = format!("{PATH}/etc");
    match lstat(&*path) {
        Ok(found) if has_overlay && FileType::from_raw_mode(found.st_mode).is_dir() => etc::prepare_files(&path),
        // The start makes it, or leaves it alone.
        _ => Ok(()),
    }
}

/// Forbids the execution of files of the initramfs in this mount namespace. `/init` is one: by
/// `binfmt_misc` its execution could start a program of the workload.
pub(crate) fn forbid_execution() -> Result<(), Failure> {
    mount_remount("/", MountFlags::BIND | MountFlags::NOEXEC, c"").step("forbid execution", "/")
}

/// Allows the execution of files of the root in this mount namespace, which is the workload's.
pub(crate) fn allow_execution(root: &Root) -> Result<(), Failure> {
    let mut flags = MountFlags::BIND;
    flags.set(MountFlags::RDONLY, root.upper == Upper::None);
    mount_remount(PATH, flags, c"").step("allow execution", PATH)
}

/// PID 1's reference to the root after the workload has its own mount of it.
pub(crate) struct DetachedRoot {
    root: OwnedFd,
    /// The workload's mount namespace, if its mounts need not be unmounted.
    mounts: Option<OwnedFd>,
}

/// Removes the root from PID 1's mount namespace. The reference keeps the file systems mounted, so
/// that the end of the workload does not wait for their unmounting.
pub(crate) fn detach() -> Result<DetachedRoot, Failure> {
    const STEP: &str = "detach root";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(PATH, flags, Mode::empty()).step(STEP, PATH)?;
    unmount(PATH, UnmountFlags::DETACH).step(STEP, PATH)?;
    Ok(DetachedRoot { root, mounts: None })
}

/// Whether no mount of the workload can write to what outlives the machine: there is no disk but the root's, and no directory of the
/// host.
fn mounts_end_with_machine(spec: &RunSpec) -> bool {
    let is_of_machine = |volume: &VolumeMount| volume.source == VolumeSource::Scratch;
    let is_scratch = match spec.root.upper {
        Upper::None | Upper::Tmpfs => 0,
        Upper::Disk(_) => 1,
        Upper::Kept(_) | Upper::InPlace => return false,
    };
    let next_disk = format!("/dev/vd{}", char::from(b'b' + is_scratch));
    spec.system.is_none()
        && spec.root.share.is_none()
        && spec.shares.is_empty()
        && spec.volumes.iter().all(is_of_machine)
        && matches!(stat(&*next_disk), Err(Errno::NOENT))
}

impl DetachedRoot {
    /// Keeps the workload's mount namespace, `mounts`, if its mounts need not be unmounted: the end of the workload's first process
    /// would wait for that.
    pub(crate) fn keeping(self, spec: &RunSpec, mounts: Option<OwnedFd>) -> Self {
        Self { mounts: mounts.filter(|_| mounts_end_with_machine(spec)), ..self }
    }

    /// Writes to the disk what outlives the machine, after the workload and all its mounts are
    /// gone. That is a root written in place or a kept layer: a scratch layer ends with the machine, volumes
    /// have their own `finish`, and other disks were unmounted or closed, and thereby written, when
    /// the last process of the workload ended. The root stays mounted: the machine ends with it.
    pub(crate) fn finish(self, root: &Root) -> Result<(), Failure> {
        let finished = self.settle(root);
        // Closing them would unmount an overlay, and the workload's mounts.
        let _ = self.root.into_raw_fd();
        self.mounts.map(OwnedFd::into_raw_fd);
        finished
    }

    fn settle(&self, root: &Root) -> Result<(), Failure> {
        match root.upper {
            // A file is at the host when its last descriptor is closed.
            Upper::InPlace if root.share.is_some() => Ok(()),
            Upper::InPlace => settle(&self.root).step("make root disk read-only", PATH),
            Upper::Kept(_) => {
                const STEP: &str = "make kept layer read-only";
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let layer = open(SCRATCH, flags, Mode::empty()).step(STEP, SCRATCH)?;
                settle(&layer).step(STEP, SCRATCH)
            }
            Upper::None | Upper::Tmpfs | Upper::Disk(_) => Ok(()),
        }
    }
}

/// Makes the file system of the directory `top` read-only, which writes everything and marks it as
/// clean.
pub(crate) fn settle(top: &OwnedFd) -> Result<(), Errno> {
    match make_read_only(top) {
        // The kernel is still removing a mount of the workload's, such as an image on the disk.
        // Everything is written, only the mark for a clean file system is missing.
        Err(Errno::BUSY) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::syncfs(rustix::fs::openat(top, ".", flags, Mode::empty())?)
        }
        outcome => outcome,
    }
}

fn make_read_only(top: &OwnedFd) -> Result<(), Errno> {
    let file_system = fspick(top, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    fsconfig_set_flag(file_system.as_fd(), "ro")?;
    fsconfig_reconfigure(file_system.as_fd())
}

/// Virtio disks by serial. Reading a serial is a request to the device, so each disk is read once.
#[derive(Default)]
pub(crate) struct Disks {
    /// Serials read so far, in the order of the disks' names.
    serials: Vec<Vec<u8>>,
}

impl Disks {
    /// Returns the path of the disk with `serial`; `step` is what it is needed for.
    pub(crate) fn find(&mut self, serial: &str, step: &'static str) -> Result<String, Failure> {
        for (index, letter) in ('a'..='z').enumerate() {
            if index == self.serials.len() {
                let Ok(found) = read_file(&format!("/sys/block/vd{letter}/serial")) else { break };
                self.serials.push(found);
            }
            if self.serials[index].trim_ascii() == serial.as_bytes() {
                return Ok(format!("/dev/vd{letter}"));
            }
        }
        Err(Failure::configuration(step, format!("no disk has the serial {serial}")))
    }
}
