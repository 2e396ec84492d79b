// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The run directory of a machine: claimed by its process, removed at the end or kept. Used by `main`. Its files are in `README.md`.
//!
//! The lock file decides, not the directory: a directory whose lock is free is stale and taken over. A process that gets the lock
//! checks that its path still leads to it, because a machine that ends removes its directory while it holds the lock.

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
/// Logs and control socket are for the machine's user alone.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDirectoryError {
    /// With the process ID in the lock file.
    #[error("the name {id} is in use by process {pid}")]
    InUse { id: String, pid: String },
    /// Its owner could change the files in it.
    #[error("the run directory {0} belongs to another user; name one with --run-dir")]
    Foreign(PathBuf),
    #[error("cannot {action} {path}")]
    Host { action: &'static str, path: PathBuf, source: io::Error },
}

/// The run directory of this process. Without `keep`, `drop` removes it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    keep: bool,
    /// The kernel releases it with the process.
    _lock: File,
}

impl RunDirectory {
    /// Creates the directory `id` (a valid name) below `base`, which is created if it is missing, or takes over a stale one.
    ///
    /// # Errors
    /// A live process has the name, `base` is not trusted, or a system call failed.
    pub(crate) fn claim(base: &Path, id: &str, keep: bool) -> Result<Self, RunDirectoryError> {
        let mut claimed = Self::take(base, id, clear)?;
        claimed.keep = keep;
        Ok(claimed)
    }

    /// Keeps every start of `id` away and leaves what is in the directory. One that is new is removed by `drop`.
    ///
    /// # Errors
    /// As of [`claim`](Self::claim).
    pub(crate) fn hold(base: &Path, id: &str) -> Result<Self, RunDirectoryError> {
        Self::take(base, id, |_| Ok(()))
    }

    fn take(base: &Path, id: &str, empty: fn(&Path) -> io::Result<()>) -> Result<Self, RunDirectoryError> {
        let host = |action, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| RunDirectoryError::Host { action, path, source }
        };
        let mut builder = DirBuilder::new();
        builder.mode(DIRECTORY_MODE);
        builder.recursive(true).create(base).map_err(host("create the run directory", base))?;
        if !is_trusted(base).map_err(host("examine", base))? {
            return Err(RunDirectoryError::Foreign(base.to_owned()));
        }
        let path = base.join(id);
        loop {
            let is_new = match builder.recursive(false).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(host("create the run directory", &path)(error));
                }
                created => created.is_ok(),
            };
            let lock_path = path.join(LOCK);
            let mut lock = match options().open(&lock_path) {
                Ok(lock) => lock,
                // Its process removed the directory between the two calls. Another start may have created it again. A dangling
                // link would look the same for ever.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => continue,
                Err(error) => {
                    if is_new {
                        // Another process may have it now; then it is not empty.
                        let _ = fs::remove_dir(&path);
                    }
                    return Err(host("open", &lock_path)(error));
                }
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Only [`is_locked`] holds a shared lock, and only for a moment.
                Err(Errno::WOULDBLOCK) if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() => continue,
                Err(Errno::WOULDBLOCK) => {
                    let pid = fs::read_to_string(&lock_path).unwrap_or_default();
                    return Err(RunDirectoryError::InUse { id: id.to_owned(), pid: pid.trim().to_owned() });
                }
                Err(error) => return Err(host("lock", &lock_path)(error.into())),
            }
            if !is_at(&lock, &lock_path) {
                continue;
            }
            let cleared = empty(&path).map_err(host("clear", &path)).and_then(|()| {
                let pid_written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
                pid_written.map_err(host("write", &lock_path))
            });
            if let Err(error) = cleared {
                if is_new {
                    // Not by `clear`, which needs a descriptor.
                    let _ = fs::remove_file(&lock_path).and_then(|()| fs::remove_dir(&path));
                }
                return Err(error);
            }
            return Ok(Self { path, keep: !is_new, _lock: lock });
        }
    }

    /// Whether [`claim`](Self::claim) would succeed now, without doing it.
    ///
    /// # Errors
    /// The error that it would return.
    pub(crate) fn check(base: &Path, id: &str) -> Result<(), RunDirectoryError> {
        let host = |action, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| RunDirectoryError::Host { action, path, source }
        };
        let missing = |action, path: &Path, parent: &Path| {
            let writable = access(parent.join("."), Access::WRITE_OK | Access::EXEC_OK);
            writable.map_err(|error| host(action, path)(error.into()))
        };
        match fs::metadata(base) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err(host("create the run directory", base)(Errno::EXIST.into())),
            Err(_) => {
                let parent = base.ancestors().skip(1).find(|parent| parent.symlink_metadata().is_ok());
                return missing("create the run directory", base, parent.unwrap_or(Path::new(".")));
            }
        }
        if !is_trusted(base).map_err(host("examine", base))? {
            return Err(RunDirectoryError::Foreign(base.to_owned()));
        }
        let path = base.join(id);
        match is_locked(&path) {
            Ok(true) => {
                let pid = fs::read_to_string(path.join(LOCK)).unwrap_or_default();
                Err(RunDirectoryError::InUse { id: id.to_owned(), pid: pid.trim().to_owned() })
            }
            Ok(false) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(host("open", &path.join(LOCK))(error)),
            Err(_) if path.is_dir() => missing("open", &path.join(LOCK), &path),
            Err(_) => missing("create the run directory", &path, base),
        }
    }

    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates an empty file in it, for this user only.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(crate) fn create(&self, name: &str) -> Result<File, RunDirectoryError> {
        let path = self.path.join(name);
        let created = options().truncate(true).open(&path);
        created.map_err(|source| RunDirectoryError::Host { action: "create", path, source })
    }
}

/// Whether a process holds the lock of the run directory at `path`.
///
/// # Errors
/// It has no lock file, or the lock file cannot be opened.
pub(crate) fn is_locked(path: &Path) -> io::Result<bool> {
    let lock = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path.join(LOCK))?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if !self.keep {
            // The lock file is removed last; the lock is released after that.
            let _ = clear(&self.path);
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Whether the directory, and a link that leads to it, belong to this user or root: the default may be in `/tmp`.
fn is_trusted(directory: &Path) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let trusted = |metadata: fs::Metadata| [own, 0].contains(&metadata.uid());
    Ok(trusted(fs::symlink_metadata(directory)?) && trusted(fs::metadata(directory)?))
}

/// Removes everything in it but the lock file.
fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Whether `path` still leads to the open file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => open.ino() == there.ino() && open.dev() == there.dev(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "run_dir_tests.rs"]
mod tests;
