// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory with everything in it, from one file system to another: owners, modes, times,
//! extended attributes and hard links. No other process changes either side meanwhile.

use super::files::write_all;
use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, Stat, Timespec, Timestamps, XattrFlags, chmodat, chownat,
    fgetxattr, flistxattr, fsetxattr, ftruncate, linkat, mkdirat, mknodat, openat, readlinkat, seek, statat, symlinkat,
    tell, unlinkat, utimensat,
};
use rustix::io::{Errno, read};
use rustix::process::{Gid, Uid};

/// The largest list and the largest value of extended attributes (xattr(7)), and one read of a file.
const BUFFER_SIZE: usize = 64 << 10;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The path that failed, below the directory, and why.
pub(crate) type Failed = (CString, Errno);

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// The copy of each file with several names, by device and inode.
    links: BTreeMap<(u64, u64), CString>,
    buffer: Vec<u8>,
    /// Lists of extended attributes.
    names: Vec<u8>,
}

/// Copies what is in `from` into the empty directory `to`, which also gets its owner, mode, times and
/// attributes. Runs of zeroes become holes.
pub(crate) fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> Result<(), Failed> {
    let buffers = (vec![0; BUFFER_SIZE], vec![0; BUFFER_SIZE]);
    let (from, to) = (from.as_fd(), to.as_fd());
    let mut copy = Copy { from, to, links: BTreeMap::new(), buffer: buffers.0, names: buffers.1 };
    let mut directories = vec![CString::from(c".")];
    let mut next = 0;
    while let Some(directory) = directories.get(next).cloned() {
        next += 1;
        let names = list(from, &directory).map_err(|errno| (directory.clone(), errno))?;
        for name in names {
            let path = join(&directory, &name);
            match copy.entry(&path) {
                Ok(FileType::Directory) => directories.push(path),
                Ok(_) => {}
                Err(errno) => return Err((path, errno)),
            }
        }
    }
    // A directory's times change with its entries, so each comes after those in it.
    for directory in directories.iter().rev() {
        copy.finish_directory(directory).map_err(|errno| (directory.clone(), errno))?;
    }
    Ok(())
}

impl Copy<'_> {
    /// Copies one entry; a directory is only made.
    fn entry(&mut self, path: &CStr) -> Result<FileType, Errno> {
        let stat = statat(self.from, path, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            mkdirat(self.to, path, Mode::RWXU)?;
            return Ok(kind);
        }
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                linkat(self.to, first, self.to, path, AtFlags::empty())?;
                return Ok(kind);
            }
            self.links.insert(identity, path.into());
        }
        match kind {
            FileType::RegularFile => self.file(path, &stat)?,
            FileType::Symlink => {
                symlinkat(&*readlinkat(self.from, path, Vec::new())?, self.to, path)?;
                self.set_owner(path, &stat)?;
            }
            _ => {
                mknodat(self.to, path, kind, Mode::RWXU, stat.st_rdev)?;
                self.set_owner(path, &stat)?;
                chmodat(self.to, path, mode(&stat), AtFlags::empty())?;
            }
        }
        self.set_times(path, &stat)?;
        Ok(kind)
    }

    fn file(&mut self, path: &CStr, stat: &Stat) -> Result<(), Errno> {
        let source = openat(self.from, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let copy = openat(self.to, path, flags, Mode::RWXU)?;
        loop {
            let length = read(&source, &mut self.buffer)?;
            let bytes = &self.buffer[..length];
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                write_all(&copy, bytes)?;
            } else {
                seek(&copy, SeekFrom::Current(length as i64))?;
            }
        }
        ftruncate(&copy, tell(&copy)?)?;
        self.set_owner(path, stat)?;
        chmodat(self.to, path, mode(stat), AtFlags::empty())?;
        self.attributes(&source, &copy)
    }

    fn finish_directory(&mut self, path: &CStr) -> Result<(), Errno> {
        let stat = statat(self.from, path, AtFlags::empty())?;
        let source = openat(self.from, path, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
        let copy = openat(self.to, path, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
        self.set_owner(path, &stat)?;
        chmodat(self.to, path, mode(&stat), AtFlags::empty())?;
        self.attributes(&source, &copy)?;
        self.set_times(path, &stat)
    }

    /// Before the mode and the attributes: a change of the owner clears set-user-id bits and
    /// capabilities.
    fn set_owner(&self, path: &CStr, stat: &Stat) -> Result<(), Errno> {
        let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(self.to, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_times(&self, path: &CStr, stat: &Stat) -> Result<(), Errno> {
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec as _),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
        };
        utimensat(self.to, path, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn attributes(&mut self, source: &OwnedFd, copy: &OwnedFd) -> Result<(), Errno> {
        let length = match flistxattr(source, &mut self.names[..]) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            length => length?,
        };
        for name in self.names[..length].split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
            let length = fgetxattr(source, name, &mut self.buffer[..])?;
            match fsetxattr(copy, name, &self.buffer[..length], XattrFlags::empty()) {
                // A tmpfs has no attributes of the user's.
                Err(Errno::OPNOTSUPP) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// Whether `directory` below `base` has no entries. One that is missing has none.
pub(crate) fn is_empty(base: &OwnedFd, directory: &CStr) -> Result<bool, Errno> {
    match list(base.as_fd(), directory) {
        Err(Errno::NOENT) => Ok(true),
        names => Ok(names?.is_empty()),
    }
}

/// Removes `directory` below `base` with everything in it, if it is there.
pub(crate) fn remove_directory(base: &OwnedFd, directory: &CStr) -> Result<(), Errno> {
    let mut directories = vec![CString::from(directory)];
    let mut next = 0;
    while let Some(parent) = directories.get(next).cloned() {
        next += 1;
        let names = match list(base.as_fd(), &parent) {
            Err(Errno::NOENT) => return Ok(()),
            names => names?,
        };
        for name in names {
            let path = join(&parent, &name);
            match unlinkat(base, &path, AtFlags::empty()) {
                Err(Errno::ISDIR) => directories.push(path),
                outcome => outcome?,
            }
        }
    }
    directories.iter().rev().try_for_each(|directory| unlinkat(base, directory, AtFlags::REMOVEDIR))
}

/// The names in `directory` below `base`, which is opened only meanwhile.
fn list(base: BorrowedFd<'_>, directory: &CStr) -> Result<Vec<CString>, Errno> {
    let directory = openat(base, directory, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(8 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().into());
        }
    }
    Ok(names)
}

fn join(directory: &CStr, name: &CStr) -> CString {
    let path = [directory.to_bytes(), b"/", name.to_bytes()].concat();
    CString::new(path).unwrap_or_default()
}
