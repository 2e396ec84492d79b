// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Complete files and chains of directories. Paths are absolute; inside the workload's root (after
//! `chroot`) no symbolic link leads out of it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdir, openat, readlink, stat, unlink};
use rustix::io::{Errno, pread, read, write};

/// Bound for files of the kernel's and of the initramfs.
const MAX_OWN_FILE_SIZE: usize = 64 << 10;
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Reads a small file of the kernel's or of the initramfs.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Errno> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_all(&file, MAX_OWN_FILE_SIZE)
}

/// Reads a regular file of the image, at most `max` bytes (else `EFBIG`).
pub(crate) fn read_image_file(path: &str, max: usize) -> Result<Vec<u8>, Errno> {
    read_all(&open_image_file(path)?, max)
}

/// Opens a file of the image, which may be anything: opening never blocks, and only a regular file is opened (else `EINVAL`).
pub(crate) fn open_image_file(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    if is_regular(&file)? { Ok(file) } else { Err(Errno::INVAL) }
}

/// Reads the first `max` bytes of a listing of the kernel's, which gives a page at most in a call.
pub(crate) fn read_listing(file: &OwnedFd, max: usize) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::with_capacity(4096);
    while content.len() < max {
        content.reserve(1024);
        let offset = content.len() as u64;
        if pread(file, rustix::buffer::spare_capacity(&mut content), offset)? == 0 {
            break;
        }
    }
    Ok(content)
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

/// Appends the lines that the file at `path` does not have. A missing file is made, for its owner alone.
pub(crate) fn append_lines(path: &str, lines: &[String]) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o600))?;
    if !is_regular(&file)? {
        return Err(Errno::INVAL);
    }
    let old = read_all(&file, MAX_OWN_FILE_SIZE)?;
    let mut added = Vec::new();
    if old.last().is_some_and(|last| *last != b'\n') {
        added.push(b'\n');
    }
    for line in lines {
        if !old.split(|byte| *byte == b'\n').any(|own| own == line.as_bytes()) {
            added.extend_from_slice(line.as_bytes());
            added.push(b'\n');
        }
    }
    write_all(&file, &added)
}

/// Writes all of `content` at the file's position.
pub(super) fn write_all(file: &OwnedFd, mut content: &[u8]) -> Result<(), Errno> {
    while !content.is_empty() {
        match write(file, content)? {
            0 => return Err(Errno::IO),
            written => content = &content[written..],
        }
    }
    Ok(())
}

/// Symbolic links followed by [`make_directories`]: the limit of Linux.
const MAX_LINKS: u32 = 40;

/// Creates the directory `path` and its missing parents, owned by root and readable by all. A
/// dangling symbolic link on the way is followed, and its target created.
pub(crate) fn make_directories(path: &str) -> Result<(), Errno> {
    make_linked_directories(path, MAX_LINKS)
}

fn make_linked_directories(path: &str, links: u32) -> Result<(), Errno> {
    let path = path.trim_end_matches('/');
    let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
    match mkdir(path, DIRECTORY_MODE) {
        Err(Errno::NOENT) if !parent.is_empty() => {
            make_linked_directories(parent, links)?;
            make_directory(path)
        }
        Err(Errno::EXIST) => match stat(path) {
            Err(Errno::NOENT) if links == 0 => Err(Errno::LOOP),
            Err(Errno::NOENT) => {
                let target = readlink(path, Vec::new())?;
                let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
                let target = if target.starts_with('/') { target.into() } else { format!("{parent}/{target}") };
                make_linked_directories(&target, links - 1)
            }
            outcome => outcome.map(drop),
        },
        outcome => outcome,
    }
}

/// Creates one directory. An existing one is not an error.
pub(crate) fn make_directory(path: &str) -> Result<(), Errno> {
    match mkdir(path, DIRECTORY_MODE) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}
