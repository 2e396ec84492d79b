// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes the blobs that no name leads to.

use super::{LOCK, Store, StoreError, StoredImage, flock, lock_file, partial};
use crate::client::MAX_DOCUMENT_SIZE;
use oci_image::{Digest, Reference, References, references};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Indexes in indexes.
const MAX_DEPTH: usize = 4;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub blobs: usize,
    pub bytes: u64,
}

impl Store {
    /// Removes all blobs without a name, and what interrupted downloads left. `None` if another
    /// process uses the store: what is unreferenced then stays for the next time.
    pub fn collect(&self) -> Result<Option<Freed>, StoreError> {
        if !self.directory.exists() {
            return Ok(Some(Freed::default()));
        }
        let path = self.directory.join(LOCK);
        let lock = lock_file(&path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            other => other.map_err(|error| StoreError::new("lock", &path, error))?,
        }
        // A name that is given now keeps its blobs.
        let _index = self.lock_index()?;
        let mut needed = BTreeSet::new();
        for image in self.images()? {
            needed.extend(self.blobs_of(&image.reference).into_keys());
        }
        let mut freed = Freed::default();
        for algorithm in ["sha256", "sha512"] {
            let directory = self.directory.join("blobs").join(algorithm);
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let digest = Digest::parse(&format!("{algorithm}:{}", entry.file_name().to_string_lossy()));
                if digest.is_ok_and(|digest| needed.contains(&digest)) {
                    continue;
                }
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| StoreError::new("remove", &path, source))?;
                freed = Freed { blobs: freed.blobs + 1, bytes: freed.bytes + bytes };
            }
        }
        let partials = fs::read_dir(self.directory.join(partial::DIRECTORY)).into_iter().flatten();
        for entry in partials.filter_map(Result::ok) {
            freed.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            let _ = fs::remove_file(entry.path());
        }
        Ok(Some(freed))
    }

    /// The blobs that are here of a manifest or index, itself included, with their sizes.
    #[must_use]
    pub(crate) fn blobs_of(&self, root: &Reference) -> BTreeMap<Digest, u64> {
        let mut found = BTreeMap::new();
        let mut documents = vec![(root.clone(), 0)];
        while let Some((document, depth)) = documents.pop() {
            let is_new = self.has(&document) && found.insert(document.digest.clone(), document.size).is_none();
            if !is_new || depth > MAX_DEPTH {
                continue;
            }
            let Some(bytes) = self.read_document(&document.digest, MAX_DOCUMENT_SIZE) else { continue };
            match references(&bytes, "a document", None) {
                Ok(References::Manifests(below)) => documents.extend(below.into_iter().map(|one| (one, depth + 1))),
                Ok(References::Blobs(blobs)) => {
                    found.extend(blobs.into_iter().filter(|blob| self.has(blob)).map(|blob| (blob.digest, blob.size)));
                }
                Err(_) => {}
            }
        }
        found
    }

    /// Bytes of the blobs of an image; several images may share them.
    #[must_use]
    pub fn size_of(&self, image: &StoredImage) -> u64 {
        self.blobs_of(&image.reference).values().sum()
    }
}
