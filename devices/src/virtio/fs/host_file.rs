// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of the host: their identity, how a name is resolved, how owners are shown. Pure but for system
//! calls.

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, fchmod, fstatfs, openat2, statx};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// File systems through which a process reaches the kernel or other processes (`linux/magic.h`).
const KERNEL_FILE_SYSTEMS: [u64; 17] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6e73_6673, // nsfs
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinux
    0x6165_676c, // pstore
    0x4249_4e4d, // binfmt_misc
    0x6573_5543, // fusectl
];

/// What a file is, as long as it exists. The time of birth tells it from a later file with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) device: (u32, u32),
    inode: u64,
    born: (i64, u32),
    kind: u16,
}

impl Key {
    pub(super) fn of(status: &Statx) -> Self {
        let has_birth = status.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = if has_birth { (status.stx_btime.tv_sec, status.stx_btime.tv_nsec) } else { (0, 0) };
        let kind = status.stx_mode & libc::S_IFMT as u16;
        Self { device: (status.stx_dev_major, status.stx_dev_minor), inode: status.stx_ino, born, kind }
    }

    /// Whether its type is `S_IFREG`, `S_IFDIR`, ...
    pub(super) fn is(&self, kind: libc::mode_t) -> bool {
        u32::from(self.kind) == kind
    }
}

/// Owners on both sides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owners {
    /// As they are: this process is root.
    Kept,
    /// The caller's files belong to root in the guest, and what the guest creates belongs to the caller.
    Caller { user: u32, group: u32 },
}

impl Owners {
    pub(super) fn of_this_process() -> Self {
        if geteuid().is_root() {
            return Self::Kept;
        }
        Self::Caller { user: geteuid().as_raw(), group: getegid().as_raw() }
    }

    /// User and group as the guest sees them.
    pub(super) fn to_guest(self, user: u32, group: u32) -> (u32, u32) {
        match self {
            Self::Kept => (user, group),
            Self::Caller { user: own_user, group: own_group } => {
                (if user == own_user { 0 } else { user }, if group == own_group { 0 } else { group })
            }
        }
    }
}

pub(super) fn status(file: impl AsFd) -> Result<Statx, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

pub(super) fn is_kernel_file_system(file: impl AsFd) -> Result<bool, Errno> {
    Ok(KERNEL_FILE_SYSTEMS.contains(&(fstatfs(file)?.f_type as u64 & 0xffff_ffff)))
}

/// Opens the one component `name` of `directory`. A symbolic link is never followed.
pub(super) fn open_at(directory: impl AsFd, name: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, resolve)
}

/// Takes from `file` what a write of a process without `CAP_FSETID` takes from it: the rights that executing it would give.
/// Where this process is not root the host's kernel has done so itself.
pub(super) fn clear_set_id(file: &OwnedFd) -> Result<(), Errno> {
    let mode = libc::mode_t::from(status(file)?.stx_mode);
    let is_group = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    let cleared = if is_group { mode & !(libc::S_ISUID | libc::S_ISGID) } else { mode & !libc::S_ISUID };
    if cleared == mode { Ok(()) } else { fchmod(file, Mode::from_raw_mode(cleared & 0o7777)) }
}

/// The name of an open file of this process, for calls that take no `O_PATH` descriptor. The file
/// itself must not be a symbolic link.
pub(super) fn own_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
