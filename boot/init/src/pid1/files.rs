// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whole files and chains of folders. Paths are absolute; inside the workload's root (after `chroot`) no symbolic link
//! leads out of it.

use alloc::vec::Vec;
use rustix::fs::{CWD, Mode, OFlags, mkdir, openat};
use rustix::io::{Errno, read, write};

/// The content of a small file.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Errno> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::with_capacity(1024);
    loop {
        if content.len() == content.capacity() {
            content.reserve(content.capacity());
        }
        let room = content.capacity() - content.len();
        // Neither the kernel's files nor those of an image give less than there is room for before their end.
        if read(&file, rustix::buffer::spare_capacity(&mut content))? < room {
            return Ok(content);
        }
    }
}

/// Writes `content` to `path`, which must exist (files of the kernel's file systems).
pub(crate) fn write_file(path: &str, content: &[u8]) -> Result<(), Errno> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write_all(&file, content)
}

/// Makes `path` a regular file with this content, readable by all. Whatever is there that is not a regular file, a
/// symbolic link for example, is replaced and never followed.
pub(crate) fn replace_file(path: &str, content: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let file = match openat(CWD, path, flags, mode) {
        Ok(file) if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() => file,
        Ok(_) | Err(Errno::LOOP | Errno::NXIO) => {
            rustix::fs::unlink(path)?;
            openat(CWD, path, flags | OFlags::EXCL, mode)?
        }
        Err(errno) => return Err(errno),
    };
    write_all(&file, content)
}

fn write_all(file: &rustix::fd::OwnedFd, mut content: &[u8]) -> Result<(), Errno> {
    while !content.is_empty() {
        match write(file, content)? {
            0 => return Err(Errno::IO),
            written => content = &content[written..],
        }
    }
    Ok(())
}

/// Makes the folder `path` and those above it, as far as they are missing, for root and readable by all.
pub(crate) fn make_folders(path: &str) -> Result<(), Errno> {
    match make_folder(path) {
        Err(Errno::NOENT) => {
            if let Some((above, _)) = path.trim_end_matches('/').rsplit_once('/')
                && !above.is_empty()
            {
                make_folders(above)?;
                return make_folder(path);
            }
            Err(Errno::NOENT)
        }
        outcome => outcome,
    }
}

/// Makes one folder; one that is there already is right.
pub(crate) fn make_folder(path: &str) -> Result<(), Errno> {
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}
