// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Converted root disks, by image digest. One directory each, which appears complete or not at all:
//!
//! | path below the cache | what |
//! |---|---|
//! | `images/v2/sha256-HEX/root.erofs` | the root disk |
//! | `images/v2/sha256-HEX/image.json` | its digest and size |
//! | `images/v2/sha256-HEX.squashfs/` | the same with `root.squashfs`: the name of each format but EROFS is appended |
//! | `images/v2/.sha256-HEX.tmp/` | a conversion in progress; its process holds a lock on the directory |
//!
//! `v2` changes whenever the same image would give another root disk. A killed conversion leaves an
//! unlocked directory, which the next conversion of any image removes; one that is interrupted by a
//! signal removes its own. Nothing is synced to the
//! disk: after a crash of the host a root disk with the wrong size is converted again.

use crate::digest::Digest;
use crate::root_disk::RootFormat;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const FORMAT: &str = "v2";
const DESCRIPTION: &str = "image.json";

/// The directory of all root disks, as seen for one format.
pub(crate) struct Cache {
    directory: PathBuf,
    format: RootFormat,
}

/// A complete root disk.
pub(crate) struct Entry {
    pub root_disk: PathBuf,
    pub root_disk_file: File,
    pub stored: Stored,
}

/// Content of `image.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub image_digest: String,
    pub root_disk_digest: String,
    pub root_disk_bytes: u64,
    pub layer_bytes: u64,
}

/// Outcome of a claim to convert a missing root disk.
pub(crate) enum Claim {
    /// Another process converted it while this one waited.
    Found(Box<Entry>),
    Held(Workspace),
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path} in the image cache")]
pub struct CacheError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl CacheError {
    fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }
}

impl Cache {
    pub(crate) fn new(directory: &Path, format: RootFormat) -> Self {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Self { directory: directory.join("images").join(FORMAT), format }
    }

    /// Name of the directory for a digest.
    fn name(&self, digest: &Digest) -> String {
        let name = format!("{}-{}", digest.algorithm(), digest.hex());
        match self.format {
            RootFormat::Erofs => name,
            format => format!("{name}.{}", format.file_system()),
        }
    }

    fn root_disk(&self) -> String {
        format!("root.{}", self.format.file_system())
    }

    /// Returns the root disk of the image with this digest if it is complete.
    pub(crate) fn find(&self, digest: &Digest) -> Result<Option<Entry>, CacheError> {
        let path = self.directory.join(self.name(digest));
        // Opened through the directory, both files belong to one conversion, whatever happens to
        // the path.
        let directory = match open_directory(&path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(CacheError::new("open", &path, error)),
        };
        let open = |name: &str| rustix::fs::openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (Ok(disk), Ok(description)) = (open(&self.root_disk()), open(DESCRIPTION)) else { return Ok(None) };
        let disk = File::from(disk);
        let mut text = Vec::new();
        let length = disk.metadata().and_then(|metadata| {
            File::from(description).take(crate::limits::MAX_DOCUMENT_SIZE * 2).read_to_end(&mut text)?;
            Ok(metadata.len())
        });
        let length = length.map_err(|source| CacheError::new("read", &path, source))?;
        match serde_json::from_slice::<Stored>(&text) {
            Ok(stored) if stored.root_disk_bytes == length && stored.image_digest == digest.to_string() => {
                Ok(Some(Entry { root_disk: path.join(self.root_disk()), root_disk_file: disk, stored }))
            }
            _ => {
                log::warn!("{} in the image cache is damaged and will be converted again", path.display());
                Ok(None)
            }
        }
    }

    /// Waits until no other process converts this image, and calls `waiting` before.
    pub(crate) fn claim(&self, digest: &Digest, waiting: impl Fn()) -> Result<Claim, CacheError> {
        fs::create_dir_all(&self.directory).map_err(|source| CacheError::new("create", &self.directory, source))?;
        self.remove_leftovers();
        let path = self.directory.join(format!(".{}.tmp", self.name(digest)));
        loop {
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(CacheError::new("create", &path, error));
                }
                _ => {}
            }
            let directory = match open_directory(&path) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(CacheError::new("open", &path, error)),
            };
            if !try_lock(&directory).map_err(|error| CacheError::new("lock", &path, error))? {
                waiting();
                lock(&directory).map_err(|error| CacheError::new("lock", &path, error))?;
            }
            let ours = is_at(&directory, &path);
            let destination = self.directory.join(self.name(digest));
            let held =
                Workspace { _lock: directory, path: path.clone(), destination, root_disk: self.root_disk(), ours };
            if let Some(found) = self.find(digest)? {
                return Ok(Claim::Found(Box::new(found)));
            }
            // Otherwise it was published or removed while we waited for the lock.
            if ours {
                in_progress().push(path.clone());
                held.clear().map_err(|source| CacheError::new("clear", &path, source))?;
                return Ok(Claim::Held(held));
            }
        }
    }

    /// Removes the directories of killed conversions. Failures leave them for the next time.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
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
}

/// Directories of the conversions in progress in this process.
static IN_PROGRESS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn in_progress() -> MutexGuard<'static, Vec<PathBuf>> {
    IN_PROGRESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what the conversions in progress have written, for a process that ends without waiting
/// for them. Their threads may go on until then, and fail.
pub fn abandon_conversions() {
    abandon_below(Path::new("/"));
}

fn abandon_below(directory: &Path) {
    in_progress().retain(|path| {
        let below = path.starts_with(directory);
        if below {
            let _ = fs::remove_dir_all(path);
        }
        !below
    });
}

/// The directory of a conversion in progress; removed unless it is published.
pub(crate) struct Workspace {
    /// The lock ends with the descriptor.
    _lock: OwnedFd,
    path: PathBuf,
    destination: PathBuf,
    /// Name of the root disk's file.
    root_disk: String,
    ours: bool,
}

impl Workspace {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file for the root disk, read-only because it is never opened for writing again.
    pub(crate) fn create_root_disk(&self) -> Result<File, CacheError> {
        let path = self.path.join(&self.root_disk);
        let file = File::options().write(true).create_new(true).mode(0o444).open(&path);
        file.map_err(|source| CacheError::new("create", &path, source))
    }

    /// Makes the root disk visible.
    pub(crate) fn publish(mut self, stored: Stored) -> Result<Entry, CacheError> {
        let description = self.path.join(DESCRIPTION);
        let text = serde_json::to_vec(&stored).expect("every field has a JSON form");
        fs::write(&description, text).map_err(|source| CacheError::new("write", &description, source))?;
        let disk = self.path.join(&self.root_disk);
        let root_disk_file = File::open(&disk).map_err(|source| CacheError::new("open", &disk, source))?;
        let mut in_progress = in_progress();
        // An existing entry was found damaged, or it would have been used.
        match fs::remove_dir_all(&self.destination) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CacheError::new("replace", &self.destination, error));
            }
            _ => {}
        }
        fs::rename(&self.path, &self.destination)
            .map_err(|source| CacheError::new("create", &self.destination, source))?;
        in_progress.retain(|path| *path != self.path);
        self.ours = false;
        Ok(Entry { root_disk: self.destination.join(&self.root_disk), root_disk_file, stored })
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
            in_progress().retain(|path| *path != self.path);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn try_lock(directory: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock(directory: &OwnedFd) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(directory, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Whether `path` still names the open directory.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(directory), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => open.st_ino == there.ino() && open.st_dev == there.dev(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
