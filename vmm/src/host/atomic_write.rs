// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Replaces a file atomically: a reader sees the old content or the new one, never a part. The content is written to a file
//! beside it and renamed. It is not synced: a power failure ends the machine as well.

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, access, linkat, open};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Replaces the file at `path` by one that holds `content`.
///
/// # Errors
/// The file is unchanged.
pub(crate) fn atomic_write(path: &Path, content: &[u8]) -> io::Result<()> {
    // A device or FIFO (`/dev/stderr`) is written to, not replaced.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return File::options().write(true).open(path)?.write_all(content);
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A file that appears at its path once it is complete, in place of what was there. Until then it has no name, where the file
/// system can do that: what is killed leaves nothing.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: File,
    /// Not for a device or FIFO, which is written to.
    target: Option<Target>,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    temporary: PathBuf,
    has_name: bool,
}

impl AtomicFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Ok(Self { file: File::options().write(true).open(path)?, target: None });
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::TMPFILE;
        let (file, has_name) = match open(path.with_file_name("."), flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => (File::from(file), false),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => (File::create(&temporary)?, true),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file, target: Some(Target { path: path.to_owned(), temporary, has_name }) })
    }

    /// For helpers that write to the file themselves.
    #[must_use]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn publish(mut self) -> io::Result<()> {
        let Some(target) = &mut self.target else { return Ok(()) };
        if !target.has_name {
            let open_file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, open_file, CWD, &target.temporary, AtFlags::SYMLINK_FOLLOW)?;
            target.has_name = true;
        }
        fs::rename(&target.temporary, &target.path)?;
        target.has_name = false;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(target) = self.target.as_ref().filter(|target| target.has_name) {
            let _ = fs::remove_file(&target.temporary);
        }
    }
}

/// Whether [`atomic_write`] to `path` would succeed now, without doing it.
///
/// # Errors
/// The error that it would return.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(there) if !there.is_file() => Ok(access(path, Access::WRITE_OK)?),
        _ if path.file_name().is_none() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Ok(access(path.with_file_name("."), Access::WRITE_OK | Access::EXEC_OK)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_file_replaces_only_when_it_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        fs::write(&path, "before").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"after").unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        AtomicFile::create(Path::new("/dev/null")).unwrap().publish().unwrap();
        assert!(AtomicFile::create(&directory.path().join("none/archive")).is_err());
    }
}
