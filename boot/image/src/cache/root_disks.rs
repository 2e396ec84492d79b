// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Root disks, by the chain of their layers' diff ids.

use super::entry::{self, Claim, Workspace};
use super::layers::LayerCache;
use super::{CacheError, below};
use crate::digest::Digest;
use crate::layer_files::LayerFiles;
use crate::limits;
use crate::root_disk::{RootDisk, RootDiskPart, RootFormat};
use rustix::fs::{FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(super) const DIRECTORY: &str = "images/v3";
pub(super) const DESCRIPTION: &str = "disk.json";
const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

/// The directory of all root disks, as seen for one format.
pub(crate) struct RootDiskCache {
    directory: PathBuf,
    layers: LayerCache,
    format: RootFormat,
}

/// A complete root disk.
pub(crate) struct FoundDisk {
    pub root_disk: RootDisk,
    pub stored: Stored,
}

/// Content of `disk.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub chain_id: String,
    pub root_disk_digest: String,
    /// Size of the root disk's own file.
    pub bytes: u64,
    /// Uncompressed bytes of all layers.
    pub layer_bytes: u64,
    /// What follows that file.
    pub data: Vec<DataOf>,
}

/// The data of a layer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DataOf {
    pub diff_id: String,
    pub bytes: u64,
}

/// What the cache has of a root disk.
enum Found {
    Absent,
    Damaged(PathBuf),
    Complete(Box<FoundDisk>),
}

impl Found {
    fn complete(self) -> Option<FoundDisk> {
        if let Self::Complete(found) = self { Some(*found) } else { None }
    }
}

impl RootDiskCache {
    pub(crate) fn new(cache: &Path, format: RootFormat) -> Self {
        Self { directory: below(cache, DIRECTORY), layers: LayerCache::new(cache), format }
    }

    /// Keeps all entries where they are, as far as the cache can be locked.
    pub(crate) fn in_use(&self) -> Option<OwnedFd> {
        // What is wrong with the cache, the conversion reports.
        let _ = std::fs::create_dir_all(&self.directory);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.directory, flags, Mode::empty()).ok()?;
        let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockShared));
        locked.ok().map(|()| directory)
    }

    /// Name of the directory for a chain of layers.
    fn name(&self, chain_id: &Digest) -> String {
        let name = format!("{}-{}", chain_id.algorithm(), chain_id.hex());
        match self.format {
            RootFormat::Erofs => name,
            format => format!("{name}.{}", format.file_system()),
        }
    }

    fn file_name(&self) -> String {
        format!("root.{}", self.format.file_system())
    }

    /// Returns the root disk if it is complete, with the data of all its layers. Warns if it is damaged.
    pub(crate) fn find(&self, chain_id: &Digest) -> Result<Option<FoundDisk>, CacheError> {
        let found = self.look(chain_id)?;
        if let Found::Damaged(path) = &found {
            log::warn!("{} in the image cache is damaged and will be converted again", path.display());
        }
        Ok(found.complete())
    }

    fn look(&self, chain_id: &Digest) -> Result<Found, CacheError> {
        let path = self.directory.join(self.name(chain_id));
        let Some(directory) = entry::open(&path)? else { return Ok(Found::Absent) };
        let file_name = self.file_name();
        let [disk, description] = [&file_name, DESCRIPTION].map(|name| entry::open_file(&directory, name));
        let (Some(disk), Some(description)) = (disk, description) else { return Ok(Found::Absent) };
        keep(&disk);
        let found = self.examine(chain_id, path.join(&file_name), disk, description);
        let found = found.map_err(|source| CacheError::new("read", &path, source))?;
        if let Found::Complete(_) = &found {
            // When it was used last; a cache that cannot be written is not pruned either.
            let _ = rustix::fs::futimens(&directory, &NOW);
        }
        Ok(found)
    }

    fn examine(&self, chain_id: &Digest, path: PathBuf, disk: File, description: File) -> io::Result<Found> {
        let mut text = Vec::new();
        description.take(limits::MAX_DOCUMENT_SIZE * 2).read_to_end(&mut text)?;
        let first = RootDiskPart::new(path.clone(), disk)?;
        let damaged = |path| Ok(Found::Damaged(path));
        let Ok(stored) = serde_json::from_slice::<Stored>(&text) else { return damaged(path) };
        if stored.bytes != first.bytes() || stored.chain_id != chain_id.to_string() {
            return damaged(path);
        }
        let data = |of: &DataOf| self.layers.find_data(&Digest::parse(&of.diff_id).ok()?, of.bytes);
        // A layer that is gone or damaged is converted again, and this disk made again with it.
        let Some(others) = stored.data.iter().map(data).collect::<Option<Vec<_>>>() else { return Ok(Found::Absent) };
        Ok(Found::Complete(Box::new(FoundDisk { root_disk: RootDisk::new(first, others), stored })))
    }

    /// See [`entry::claim`].
    pub(crate) fn claim(&self, chain_id: &Digest, waiting: impl Fn()) -> Result<Claim<FoundDisk>, CacheError> {
        entry::claim(&self.directory, &self.name(chain_id), || Ok(self.look(chain_id)?.complete()), waiting)
    }

    /// Creates the root disk's own file.
    pub(crate) fn create(&self, workspace: &Workspace) -> Result<File, CacheError> {
        workspace.create(&self.file_name())
    }

    /// Makes a root disk visible, which has the data of `layers`, and opens it.
    pub(crate) fn publish<'a>(
        &self,
        workspace: Workspace,
        chain_id: &Digest,
        stored: Stored,
        layers: impl Iterator<Item = &'a LayerFiles>,
    ) -> Result<FoundDisk, CacheError> {
        let text = serde_json::to_vec(&stored).expect("every field has a JSON form");
        workspace.write(DESCRIPTION, &text)?;
        let path = self.directory.join(self.name(chain_id));
        let failed = |source| CacheError::new("read", &path, source);
        // Opened before: another process may remove them at once.
        let file = workspace.open(&self.file_name())?;
        keep(&file);
        let first = RootDiskPart::new(path.join(self.file_name()), file);
        let parts = layers.map(|files| self.layers.part(files)).collect::<io::Result<Vec<_>>>();
        let root_disk = RootDisk::new(first.map_err(failed)?, parts.map_err(failed)?);
        workspace.publish()?;
        Ok(FoundDisk { root_disk, stored })
    }
}

/// While the file of a root disk is open, `prune_cache` leaves the disk. A file system without locks has no protection.
fn keep(disk: &File) {
    let _ = rustix::fs::flock(disk, FlockOperation::NonBlockingLockShared);
}
