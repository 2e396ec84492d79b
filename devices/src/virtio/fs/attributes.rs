// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attributes of files: GETATTR, SETATTR, STATFS.

use super::host_file::{self, Owners, own_path};
use super::request::Body;
use super::server::{Answer, Server};
use super::wire::{Attr, AttrOut, GetattrIn, SetattrIn, StatfsOut, setattr};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat, chownat,
    fstatvfs, ftruncate, makedev, open, utimensat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Seconds for which the guest may use attributes and names without asking.
pub(super) const VALID_SECONDS: u64 = 1;
const GETATTR_FH: u32 = 1;

/// Of a directory that the guest cannot enter: nothing of the host's is shown.
pub(super) fn closed_attributes() -> Attr {
    Attr { mode: libc::S_IFDIR | 0o555, nlink: 2, blksize: 4096, ..Attr::default() }
}

impl Server {
    pub(super) fn attributes(&self, status: &Statx) -> Attr {
        let (uid, gid) = self.export.owners.to_guest(status.stx_uid, status.stx_gid);
        Attr {
            ino: status.stx_ino,
            size: status.stx_size,
            blocks: status.stx_blocks,
            atime: status.stx_atime.tv_sec as u64,
            mtime: status.stx_mtime.tv_sec as u64,
            ctime: status.stx_ctime.tv_sec as u64,
            atimensec: status.stx_atime.tv_nsec,
            mtimensec: status.stx_mtime.tv_nsec,
            ctimensec: status.stx_ctime.tv_nsec,
            mode: status.stx_mode.into(),
            nlink: status.stx_nlink,
            uid,
            gid,
            // FUSE has 32 bits, in the form of the kernel's `new_encode_dev`, which are the low ones of ours.
            rdev: makedev(status.stx_rdev_major, status.stx_rdev_minor) as u32,
            blksize: status.stx_blksize,
            flags: 0,
        }
    }

    fn answer_attributes(&self, status: &Statx) -> Answer {
        Answer::of(&AttrOut { attr_valid: VALID_SECONDS, attr: self.attributes(status), ..AttrOut::default() })
    }

    pub(super) fn get_attributes(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let request: GetattrIn = body.take()?;
        if self.inodes.is_closed(node) {
            let attr = closed_attributes();
            return Ok(Answer::of(&AttrOut { attr_valid: VALID_SECONDS, attr, ..AttrOut::default() }));
        }
        let status = if request.flags & GETATTR_FH != 0 {
            host_file::status(self.handles.file(request.fh)?)?
        } else {
            host_file::status(self.open_path(node)?)?
        };
        Ok(self.answer_attributes(&status))
    }

    pub(super) fn set_attributes(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let request: SetattrIn = body.take()?;
        self.export.check_writable()?;
        let has = |bit| request.valid & bit != 0;
        let key = self.inodes.key(node)?;
        let path = self.open_path(node)?;
        if has(setattr::SIZE) {
            if !key.is(libc::S_IFREG) {
                return Err(Errno::INVAL);
            }
            let file = if has(setattr::FH) {
                self.handles.file(request.fh)?
            } else {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
                Arc::new(open(own_path(&path), flags, Mode::empty())?)
            };
            ftruncate(&file, request.size)?;
            if has(setattr::KILL_SUIDGID) {
                host_file::clear_set_id(&file)?;
            }
        }
        if has(setattr::UID | setattr::GID) {
            let user = has(setattr::UID).then_some(request.uid);
            let group = has(setattr::GID).then_some(request.gid);
            self.export.owners.change(&path, user, group)?;
        }
        if has(setattr::MODE) {
            if key.is(libc::S_IFLNK) {
                return Err(Errno::OPNOTSUPP);
            }
            chmodat(CWD, own_path(&path), Mode::from_raw_mode(request.mode & 0o7777), AtFlags::empty())?;
        }
        if has(setattr::ATIME | setattr::MTIME) {
            let time = |set, now, seconds: u64, nanoseconds: u32| Timespec {
                tv_sec: seconds as i64,
                tv_nsec: match (has(set), has(now)) {
                    (false, _) => UTIME_OMIT,
                    (true, true) => UTIME_NOW,
                    // A larger value could mean one of the two above.
                    (true, false) => i64::from(nanoseconds.min(999_999_999)),
                },
            };
            let times = Timestamps {
                last_access: time(setattr::ATIME, setattr::ATIME_NOW, request.atime, request.atimensec),
                last_modification: time(setattr::MTIME, setattr::MTIME_NOW, request.mtime, request.mtimensec),
            };
            if key.is(libc::S_IFLNK) {
                utimensat(&path, c"", &times, AtFlags::EMPTY_PATH)?;
            } else {
                utimensat(CWD, own_path(&path), &times, AtFlags::empty())?;
            }
        }
        Ok(self.answer_attributes(&host_file::status(&path)?))
    }

    pub(super) fn statistics(&mut self) -> Result<Answer, Errno> {
        let status = fstatvfs(&self.export.directory)?;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Answer::of(&StatfsOut {
            blocks: status.f_blocks,
            bfree: status.f_bfree,
            bavail: status.f_bavail,
            files: status.f_files,
            ffree: status.f_ffree,
            bsize: narrow(status.f_bsize),
            namelen: narrow(status.f_namemax),
            frsize: narrow(status.f_frsize),
            ..StatfsOut::default()
        }))
    }
}

impl Owners {
    /// Gives `file`, which may be a symbolic link, to users as the guest names them.
    pub(super) fn change(self, file: &OwnedFd, user: Option<u32>, group: Option<u32>) -> Result<(), Errno> {
        let is_invalid = |id: Option<u32>| id == Some(u32::MAX);
        if is_invalid(user) || is_invalid(group) {
            return Err(Errno::INVAL);
        }
        match self {
            Self::Kept => chownat(file, c"", user.map(Uid::from_raw), group.map(Gid::from_raw), AtFlags::EMPTY_PATH),
            // Nothing changes where the owner stays the caller.
            Self::Caller { .. } => {
                let status = host_file::status(file)?;
                let (now_user, now_group) = self.to_guest(status.stx_uid, status.stx_gid);
                let stays = user.is_none_or(|user| user == now_user) && group.is_none_or(|group| group == now_group);
                if stays { Ok(()) } else { Err(Errno::PERM) }
            }
        }
    }
}
