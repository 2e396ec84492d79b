// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Complete files and chains of directories. Paths are absolute; inside the workload's root (after
//! `chroot`) no symbolic link leads out of it.

use alloc::vec::Vec;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdir, openat, unlink};
use rustix::io::{Errno, read, write};

/// Bound for files of the kernel's and of the initramfs.
const MAX_OWN_FILE_SIZE: usize = 64 << 10;

/// Reads a small file of the kernel's or of the initramfs.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Errno> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_all(&file, MAX_OWN_FILE_SIZE)
}

/// Reads a file of the image, which may be anything: opening never blocks, only a regular file is
/// read (else `EINVAL`), and at most `max` bytes (else `EFBIG`).
pub(crate) fn read_image_file(path: &str, max: usize) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    if !is_regular(&file)? {
        return Err(Errno::INVAL);
    }
    read_all(&file, max)
}

fn read_all(file: &OwnedFd, max: usize) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::with_capacity(1024);
    loop {
        if content.len() == content.capacity() {
            content.reserve(content.capacity());
        }
        let free = content.capacity() - content.len();
        let length = read(file, rustix::buffer::spare_capacity(&mut content))?;
        if content.len() > max {
            return Err(Errno::FBIG);
        }
        // A regular file and the kernel's files return less than was asked for only at their end.
        if length < free {
            return Ok(content);
        }
    }
}

fn is_regular(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode).is_file())
}

/// Writes `content` to `path`, which must exist (files of the kernel's file systems).
pub(crate) fn write_file(path: &str, content: &[u8]) -> Result<(), Errno> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write_all(&file, content)
}

/// Makes `path` a regular file with this content, readable by all. An existing file of another
/// type, such as a symbolic link, is replaced and never followed.
pub(crate) fn replace_file(path: &str, content: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let file = match openat(CWD, path, flags, mode) {
        Ok(file) if is_regular(&file)? => file,
        Ok(_) | Err(Errno::LOOP | Errno::NXIO) => {
            unlink(path)?;
            openat(CWD, path, flags | OFlags::EXCL, mode)?
        }
        Err(errno) => return Err(errno),
    };
    write_all(&file, content)
}

fn write_all(file: &OwnedFd, mut content: &[u8]) -> Result<(), Errno> {
    while !content.is_empty() {
        match write(file, content)? {
            0 => return Err(Errno::IO),
            written => content = &content[written..],
        }
    }
    Ok(())
}

/// Creates the directory `path` and its missing parents, owned by root and readable by all.
pub(crate) fn make_directories(path: &str) -> Result<(), Errno> {
    match make_directory(path) {
        Err(Errno::NOENT) => {
            if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/')
                && !parent.is_empty()
            {
                make_directories(parent)?;
                return make_directory(path);
            }
            Err(Errno::NOENT)
        }
        outcome => outcome,
    }
}

/// Creates one directory. An existing one is not an error.
pub(crate) fn make_directory(path: &str) -> Result<(), Errno> {
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}
