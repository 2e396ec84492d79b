// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Converted layers, by diff id.

use super::entry::{self, Claim, Workspace};
use super::{CacheError, below};
use crate::digest::Digest;
use crate::layer_files::{DATA, ENTRIES, LayerFiles};
use crate::root_disk::RootDiskPart;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub(super) const DIRECTORY: &str = "layers/v1";

/// The directory of all layers.
pub(crate) struct LayerCache(PathBuf);

impl LayerCache {
    pub(crate) fn new(cache: &Path) -> Self {
        Self(below(cache, DIRECTORY))
    }

    fn path(&self, diff_id: &Digest) -> PathBuf {
        self.0.join(name(diff_id))
    }

    /// Opens a layer that is complete.
    pub(crate) fn find(&self, diff_id: &Digest) -> Result<Option<LayerFiles>, CacheError> {
        let path = self.path(diff_id);
        let Some(directory) = entry::open(&path)? else { return Ok(None) };
        let [data, entries] = [DATA, ENTRIES].map(|name| entry::open_file(&directory, name));
        let (Some(data), Some(entries)) = (data, entries) else { return Ok(None) };
        let found = LayerFiles::open(diff_id.clone(), data, entries)
            .map_err(|source| CacheError::new("read", &path, source))?;
        if found.is_none() {
            log::warn!("{} in the image cache is damaged and will be converted again", path.display());
        }
        Ok(found)
    }

    /// The data of an open layer, as a part of a disk.
    pub(super) fn part(&self, files: &LayerFiles) -> io::Result<RootDiskPart> {
        RootDiskPart::new(self.path(&files.diff_id).join(DATA), files.data()?)
    }

    /// Opens the data of a layer, if it has this size.
    pub(crate) fn find_data(&self, diff_id: &Digest, bytes: u64) -> Option<RootDiskPart> {
        let path = self.path(diff_id).join(DATA);
        let file = File::open(&path).ok()?;
        RootDiskPart::new(path, file).ok().filter(|part| part.bytes() == bytes)
    }

    /// See [`entry::claim`].
    pub(crate) fn claim(&self, diff_id: &Digest, waiting: impl Fn()) -> Result<Claim<LayerFiles>, CacheError> {
        entry::claim(&self.0, &name(diff_id), || self.find(diff_id), waiting)
    }

    /// Makes a layer visible, and opens it.
    pub(crate) fn publish(&self, workspace: Workspace, diff_id: &Digest) -> Result<LayerFiles, CacheError> {
        let path = self.path(diff_id);
        // Opened before: another process may remove it at once.
        let files = LayerFiles::open(diff_id.clone(), workspace.open(DATA)?, workspace.open(ENTRIES)?);
        let files = files.map_err(|source| CacheError::new("read", &path, source))?;
        let files = files.ok_or_else(|| CacheError::new("write", &path, ErrorKind::InvalidData))?;
        workspace.publish()?;
        Ok(files)
    }

    /// Removes a layer of an image that cannot be used.
    pub(crate) fn remove(&self, diff_id: &Digest) {
        // What stays is found complete by the next image that has it.
        let _ = entry::remove(&self.path(diff_id));
    }
}

pub(super) fn name(diff_id: &Digest) -> String {
    format!("{}-{}", diff_id.algorithm(), diff_id.hex())
}
