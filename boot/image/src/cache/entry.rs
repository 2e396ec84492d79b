// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories that appear complete or not at all: made under another name and a lock, then renamed.

use super::CacheError;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Outcome of a claim to make a missing entry.
pub(crate) enum Claim<T> {
    /// It is there, or another process made it while this one waited.
    Found(T),
    Held(Workspace),
}

/// Claims the entry `name` of `directory`, unless `find` finds it. Waits until no other process makes it, and calls `waiting`
/// before that.
pub(super) fn claim<T>(
    directory: &Path,
    name: &str,
    find: impl Fn() -> Result<Option<T>, CacheError>,
    waiting: impl Fn(),
) -> Result<Claim<T>, CacheError> {
    fs::create_dir_all(directory).map_err(|source| CacheError::new("create", directory, source))?;
    remove_leftovers(directory);
    let path = directory.join(format!(".{name}.tmp"));
    loop {
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CacheError::new("create", &path, error));
            }
            _ => {}
        }
        let lock = match open_directory(&path) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(CacheError::new("open", &path, error)),
        };
        if !try_lock(&lock).map_err(|error| CacheError::new("lock", &path, error))? {
            waiting();
            wait_for_lock(&lock).map_err(|error| CacheError::new("lock", &path, error))?;
        }
        let ours = is_at(&lock, &path);
        let held = Workspace { _lock: lock, path: path.clone(), destination: directory.join(name), ours };
        if let Some(found) = find()? {
            return Ok(Claim::Found(found));
        }
        // Otherwise it was published or removed while we waited for the lock.
        if ours {
            let begun = in_progress().begin(&path);
            begun?;
            held.clear().map_err(|source| CacheError::new("clear", &path, source))?;
            return Ok(Claim::Held(held));
        }
    }
}

/// Removes the directories of killed conversions. Failures leave them for the next time.
pub(super) fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if !name.starts_with(b".") || !name.ends_with(b".tmp") {
            continue;
        }
        if let Ok(directory) = open_directory(&path)
            && try_lock(&directory).unwrap_or(false)
            && is_at(&directory, &path)
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The conversions of this process.
static IN_PROGRESS: Mutex<InProgress> = Mutex::new(InProgress { paths: Vec::new(), abandoned: Vec::new() });

struct InProgress {
    /// The directories that they write to.
    paths: Vec<PathBuf>,
    /// No conversion begins below these.
    abandoned: Vec<PathBuf>,
}

impl InProgress {
    fn begin(&mut self, path: &Path) -> Result<(), CacheError> {
        if self.abandoned.iter().any(|directory| path.starts_with(directory)) {
            return Err(CacheError::new("create", path, io::ErrorKind::Interrupted));
        }
        self.paths.push(path.to_owned());
        Ok(())
    }

    fn end(&mut self, path: &Path) {
        self.paths.retain(|other| other != path);
    }
}

fn in_progress() -> MutexGuard<'static, InProgress> {
    IN_PROGRESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what the conversions in progress have written, for a process that ends without waiting
/// for them. Their threads may go on until then, and fail.
pub fn abandon_conversions() {
    abandon_below(Path::new("/"));
}

pub(super) fn abandon_below(directory: &Path) {
    let mut in_progress = in_progress();
    in_progress.abandoned.push(directory.to_owned());
    in_progress.paths.retain(|path| {
        let below = path.starts_with(directory);
        if below {
            let _ = fs::remove_dir_all(path);
        }
        !below
    });
}

/// The directory of an entry in progress; removed unless it is published.
pub(crate) struct Workspace {
    /// The lock ends with the descriptor.
    _lock: OwnedFd,
    path: PathBuf,
    destination: PathBuf,
    ours: bool,
}

impl Workspace {
    /// Creates a file, read-only for others because it is never opened for writing again.
    pub(crate) fn create(&self, name: &str) -> Result<File, CacheError> {
        let path = self.path.join(name);
        let file = File::options().read(true).write(true).create_new(true).mode(0o444).open(&path);
        file.map_err(|source| CacheError::new("create", &path, source))
    }

    /// Opens a file that was made, for reading only.
    pub(super) fn open(&self, name: &str) -> Result<File, CacheError> {
        let path = self.path.join(name);
        File::open(&path).map_err(|source| CacheError::new("open", &path, source))
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), CacheError> {
        let path = self.path.join(name);
        fs::write(&path, content).map_err(|source| CacheError::new("write", &path, source))
    }

    /// Makes the entry visible, in place of an older one, which was found damaged, or it would have been used.
    pub(crate) fn publish(mut self) -> Result<(), CacheError> {
        let mut in_progress = in_progress();
        remove(&self.destination).map_err(|source| CacheError::new("replace", &self.destination, source))?;
        fs::rename(&self.path, &self.destination)
            .map_err(|source| CacheError::new("create", &self.destination, source))?;
        in_progress.end(&self.path);
        self.ours = false;
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.ours {
            in_progress().end(&self.path);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes an entry, if it is there.
pub(super) fn remove(entry: &Path) -> io::Result<()> {
    match fs::remove_dir_all(entry) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens an entry, if it is there. Files that are opened through it belong to one conversion, whatever happens to the path.
pub(super) fn open(entry: &Path) -> Result<Option<OwnedFd>, CacheError> {
    match open_directory(entry) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(CacheError::new("open", entry, error)),
    }
}

/// Opens a file of an entry; `None` if there is none that can be read.
pub(super) fn open_file(entry: &OwnedFd, name: &str) -> Option<File> {
    rustix::fs::openat(entry, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok().map(File::from)
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

pub(super) fn try_lock(directory: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

fn wait_for_lock(directory: &OwnedFd) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(directory, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Whether `path` still names the open directory.
pub(super) fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(directory), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => open.st_ino == there.ino() && open.st_dev == there.dev(),
        _ => false,
    }
}
