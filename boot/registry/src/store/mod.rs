// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The images of this host: an OCI layout (OCI image specification, "Image Layout"), which other
//! tools read in place.
//!
//! | path | what |
//! |---|---|
//! | `oci-layout`, `index.json`, `blobs/ALGORITHM/HEX` | the layout; names in `org.opencontainers.image.ref.name` |
//! | `coracle.partial/ALGORITHM-HEX` | a blob that is being downloaded, locked by its process; kept for the next attempt |
//! | `coracle.lock` | shared while a process uses blobs, exclusive while unreferenced ones are removed |
//! | a manifest's or index's blob | shared while a machine runs the image |
//! | `coracle.index.lock` | exclusive while `index.json` is replaced |
//!
//! Files appear complete, by a rename, and after their content is on the disk: a crash at any moment
//! leaves a store that the next command uses.

mod check;
mod describe;
mod garbage;
mod index;
mod partial;

pub use check::{Checked, Problem};
pub use describe::{DescribeError, Description, Usage};
pub use garbage::Freed;
pub(crate) use partial::{Claim, Partial};

use index::{Entry, Index};
use oci_image::{Digest, ImageName, Reference};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const LOCK: &str = "coracle.lock";
const INDEX_LOCK: &str = "coracle.index.lock";

/// Makes the names of temporary files of this process different.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} {path} in the image store")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} in the image store is malformed")]
    Index { path: PathBuf, source: serde_json::Error },
    #[error("{path} in the image store has {length} bytes, and at most {} are accepted", index::MAX_INDEX_SIZE)]
    IndexTooLarge { path: PathBuf, length: u64 },
}

impl StoreError {
    fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }
}

/// A name, and the manifest or index that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// As it is in `index.json`; complete unless another tool wrote it.
    pub name: String,
    pub reference: Reference,
    pub media_type: String,
}

/// While it lives, no blob is removed, or none of one image.
#[derive(Debug)]
pub struct InUse(#[allow(dead_code, reason = "the lock ends with the descriptor")] File);

#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the store in `directory`, which need not exist: it is then empty.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates what is missing of the layout.
    pub fn create(&self) -> Result<(), StoreError> {
        for directory in ["blobs/sha256", partial::DIRECTORY] {
            let path = self.directory.join(directory);
            fs::create_dir_all(&path).map_err(|source| StoreError::new("create", &path, source))?;
        }
        let _lock = self.lock_index()?;
        let layout = self.directory.join("oci-layout");
        if !layout.exists() {
            self.replace(&layout, LAYOUT.as_bytes())?;
        }
        let index = self.directory.join("index.json");
        if !index.exists() {
            self.replace(&index, &Index::default().to_bytes())?;
        }
        Ok(())
    }

    /// All names, in the order of the index.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        Ok(self.read_index()?.entries().filter_map(Entry::image).collect())
    }

    pub fn find(&self, name: &ImageName) -> Result<Option<StoredImage>, StoreError> {
        let full = name.to_string();
        Ok(self.images()?.into_iter().find(|image| image.name == full))
    }

    /// Gives `image` another name, or a first one. What had the name loses it.
    pub fn set_name(&self, name: &ImageName, image: &Reference, media_type: &str) -> Result<(), StoreError> {
        self.change_index(|index| {
            index.remove(&name.to_string());
            index.add(Entry::new(&name.to_string(), image, media_type));
            true
        })?;
        Ok(())
    }

    /// Keeps an image that has no name, if it has none.
    pub fn keep(&self, image: &Reference, media_type: &str) -> Result<(), StoreError> {
        self.change_index(|index| {
            let is_new = index.entries().filter_map(Entry::image).all(|known| known.reference != *image);
            if is_new {
                index.add(Entry::unnamed(image, media_type));
            }
            is_new
        })?;
        Ok(())
    }

    /// A directory on the file system of the store, for files without a name.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.directory.join(partial::DIRECTORY)
    }

    /// Removes a name; false if there is none like it. The blobs stay until [`Self::collect`].
    pub fn remove_name(&self, name: &str) -> Result<bool, StoreError> {
        self.change_index(|index| index.remove(name))
    }

    /// Keeps an image while a machine runs it: [`Self::collect`] leaves what it leads to. Does not keep
    /// others. `None` if its manifest is not here.
    #[must_use]
    pub fn image_in_use(&self, image: &Reference) -> Option<InUse> {
        let file = File::open(self.blob_path(&image.digest)).ok()?;
        flock(&file, FlockOperation::LockShared).ok()?;
        Some(InUse(file))
    }

    /// Whether a running machine keeps the image.
    #[must_use]
    pub fn is_in_use(&self, image: &Reference) -> bool {
        is_locked(&self.blob_path(&image.digest))
    }

    /// Keeps all blobs where they are. Waits for a process that removes some.
    pub fn in_use(&self) -> Result<InUse, StoreError> {
        let path = self.directory.join(LOCK);
        let file = lock_file(&path)?;
        flock(&file, FlockOperation::LockShared).map_err(|error| StoreError::new("lock", &path, error))?;
        Ok(InUse(file))
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Whether the blob is complete: its digest was checked before it got its name.
    pub(crate) fn has(&self, blob: &Reference) -> bool {
        fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|file| file.is_file() && file.len() == blob.size)
    }

    /// Reads a small blob of at most `limit` bytes; `None` if it is missing, larger or damaged.
    pub(crate) fn read_document(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.blob_path(digest)).ok()?.take(limit + 1).read_to_end(&mut bytes).ok()?;
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        (bytes.len() as u64 <= limit && hasher.finish() == *digest).then_some(bytes)
    }

    /// Stores a small blob, whose digest has been checked.
    pub(crate) fn put_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let blob = Reference { digest: digest.clone(), size: bytes.len() as u64 };
        if self.has(&blob) && self.read_document(digest, blob.size).is_some() {
            return Ok(());
        }
        let path = self.blob_path(digest);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|source| StoreError::new("create", directory, source))?;
        }
        self.replace(&path, bytes)
    }

    fn read_index(&self) -> Result<Index, StoreError> {
        Index::read(&self.directory.join("index.json"))
    }

    /// Replaces the index if `change` returns true; returns what it returned.
    fn change_index(&self, change: impl FnOnce(&mut Index) -> bool) -> Result<bool, StoreError> {
        if !self.directory.exists() {
            return Ok(false);
        }
        let _lock = self.lock_index()?;
        let mut index = self.read_index()?;
        let changed = change(&mut index);
        if changed {
            self.replace(&self.directory.join("index.json"), &index.to_bytes())?;
        }
        Ok(changed)
    }

    fn lock_index(&self) -> Result<File, StoreError> {
        let path = self.directory.join(INDEX_LOCK);
        let file = lock_file(&path)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| StoreError::new("lock", &path, error))?;
        Ok(file)
    }

    /// Writes a file that appears complete. The caller holds a lock that keeps [`Self::collect`] away.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{name}.{}.{number}.new", std::process::id());
        let temporary = self.directory.join(partial::DIRECTORY).join(temporary);
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(content)?;
            file.sync_data()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            StoreError::new("write", path, source)
        })
    }
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).or_else(|error| {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        // A store of others can be read.
        if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) { File::open(path) } else { Err(error) }
    });
    file.map_err(|source| StoreError::new("open", path, source))
}

/// Whether another process holds a lock on a file.
fn is_locked(path: &Path) -> bool {
    let lock = |file: File| flock(&file, FlockOperation::NonBlockingLockExclusive);
    matches!(File::open(path).map(lock), Ok(Err(Errno::WOULDBLOCK)))
}

fn flock(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
