// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The run directory's entry of one run. Used by `main`.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked (flock) by the process that runs, for as long as it lives; holds its number |
//! | `config.json` | the request |
//! | `status.json`, `events.jsonl` | the status, and all of its changes |
//! | `control.sock` | where a running machine is asked |
//! | `console.log` | what the guest's kernel and init said |
//! | `stdout.log`, `stderr.log`, `coracle.log` | of a detached run: what the workload wrote, and what coracle said |
//! | `result.json` | the result document, from the end on |
//!
//! The lock decides, not the folder: an entry that nobody has locked is left from before and is taken over. Whoever gets the
//! lock looks whether its path still leads to it, because a run that ends takes its entry away while it holds the lock.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
/// Only the user who runs it has to do with a run.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The entry cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDirectoryError {
    /// A live process has it.
    #[error("the name {id} is in use by process {pid}")]
    InUse {
        /// Of the run.
        id: String,
        /// As the lock file says.
        pid: String,
    },
    /// Somebody else could meddle with what is in it.
    #[error("the run directory {0} belongs to another user; name one with --run-dir")]
    Foreign(PathBuf),
    /// The host refused.
    #[error("cannot {action} {path}")]
    Host {
        /// What failed.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The entry of this process. Without `keep` it vanishes when dropped.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    keep: bool,
    /// Ends with the process, however that ends.
    _lock: File,
}

impl RunDirectory {
    /// Makes the entry `id` (a checked name) below `base`, which is made if missing, or takes a stale one over.
    ///
    /// # Errors
    /// A live process has the name, or the host refused.
    pub(crate) fn claim(base: &Path, id: &str, keep: bool) -> Result<Self, RunDirectoryError> {
        let host = |action, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| RunDirectoryError::Host { action, path, source }
        };
        let mut builder = DirBuilder::new();
        builder.mode(FOLDER_MODE);
        builder.recursive(true).create(base).map_err(host("make the run directory", base))?;
        if !is_trusted(base).map_err(host("examine", base))? {
            return Err(RunDirectoryError::Foreign(base.to_owned()));
        }
        let path = base.join(id);
        loop {
            match builder.recursive(false).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(host("make the run directory", &path)(error));
                }
                _ => {}
            }
            let lock_path = path.join(LOCK);
            let mut lock = match options().open(&lock_path) {
                Ok(lock) => lock,
                // Its owner took the entry away between the two calls, and another start may have made it again since. A
                // link to nowhere would look the same for ever.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => continue,
                Err(error) => return Err(host("open", &lock_path)(error)),
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Somebody who only looks ([`is_locked`]) lets others look, too, and is gone at once.
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
            clear(&path).map_err(host("clear", &path))?;
            let own_number = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            own_number.map_err(host("write", &lock_path))?;
            return Ok(Self { path, keep, _lock: lock });
        }
    }

    /// The folder of this run.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an empty file in it, for this user only.
    ///
    /// # Errors
    /// The host refused.
    pub(crate) fn create(&self, name: &str) -> Result<File, RunDirectoryError> {
        let path = self.path.join(name);
        let created = options().truncate(true).open(&path);
        created.map_err(|source| RunDirectoryError::Host { action: "make", path, source })
    }
}

/// Whether somebody has the entry at `path`.
///
/// # Errors
/// There is no entry, or it is not ours to look at.
pub(crate) fn is_locked(path: &Path) -> io::Result<bool> {
    let lock = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path.join(LOCK))?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Removes the entry `id` below `base`, unless somebody has it.
///
/// # Errors
/// Somebody has, or the host refused.
pub(crate) fn remove(base: &Path, id: &str) -> Result<(), RunDirectoryError> {
    RunDirectory::claim(base, id, false).map(drop)
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if !self.keep {
            // The lock file goes last of all, and the lock itself after that.
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

/// Whether the folder is ours or root's, and so is the link that may lead to it: the default one may be in `/tmp`.
fn is_trusted(folder: &Path) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let trusted = |metadata: fs::Metadata| [own, 0].contains(&metadata.uid());
    Ok(trusted(fs::symlink_metadata(folder)?) && trusted(fs::metadata(folder)?))
}

/// Removes everything but the lock file.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
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
