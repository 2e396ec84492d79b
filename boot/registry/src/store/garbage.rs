// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes the blobs that no name leads to.

use super::{LOCK, Store, StoreError, StoredImage, flock, is_locked, lock_file, partial};
use crate::client::MAX_DOCUMENT_SIZE;
use oci_image::{Digest, MAX_INDEX_DEPTH, Reference, References, diff_ids, references};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub blobs: usize,
    pub bytes: u64,
}

impl Store {
    /// Removes all blobs without a name that no machine uses, and what interrupted downloads left. `None` if another
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
        let mut unreferenced = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let directory = self.directory.join("blobs").join(algorithm);
            for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
                let (path, size) = (entry.path(), entry.metadata().map_or(0, |metadata| metadata.len()));
                let digest = Digest::parse(&format!("{algorithm}:{}", entry.file_name().to_string_lossy())).ok();
                if digest.as_ref().is_some_and(|digest| needed.contains(digest)) {
                    continue;
                }
                if let Some(digest) = digest.clone().filter(|_| is_locked(&path)) {
                    // A machine runs an image that has lost its name.
                    needed.extend(self.blobs_of(&Reference { digest, size }).into_keys());
                }
                unreferenced.push((digest, path, size));
            }
        }
        unreferenced.retain(|(digest, ..)| digest.as_ref().is_none_or(|digest| !needed.contains(digest)));
        let mut freed = Freed::default();
        for (_, path, bytes) in unreferenced {
            fs::remove_file(&path).map_err(|source| StoreError::new("remove", &path, source))?;
            freed = Freed { blobs: freed.blobs + 1, bytes: freed.bytes + bytes };
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
        self.walk(root, &mut |_| {})
    }

    /// The same; `image` is called with the blobs of each manifest.
    fn walk(&self, root: &Reference, image: &mut dyn FnMut(&[Reference])) -> BTreeMap<Digest, u64> {
        let mut found = BTreeMap::new();
        let mut documents = vec![(root.clone(), 0)];
        while let Some((document, depth)) = documents.pop() {
            let is_new = self.has(&document) && found.insert(document.digest.clone(), document.size).is_none();
            if !is_new || depth > MAX_INDEX_DEPTH {
                continue;
            }
            let Some(bytes) = self.read_document(&document.digest, MAX_DOCUMENT_SIZE) else { continue };
            match references(&bytes, "a document", None) {
                Ok(References::Manifests(below)) => documents.extend(below.into_iter().map(|one| (one, depth + 1))),
                Ok(References::Blobs(blobs)) => {
                    image(&blobs);
                    found.extend(blobs.into_iter().filter(|blob| self.has(blob)).map(|blob| (blob.digest, blob.size)));
                }
                Err(_) => {}
            }
        }
        found
    }

    /// The diff ids of each image that a name leads to: what is converted of these is needed.
    pub fn diff_ids(&self) -> Result<Vec<Vec<Digest>>, StoreError> {
        let mut configurations = BTreeSet::new();
        for image in self.images()? {
            self.walk(&image.reference, &mut |blobs| configurations.extend(blobs.first().map(|it| it.digest.clone())));
        }
        let read = |digest: &Digest| self.read_document(digest, MAX_DOCUMENT_SIZE);
        Ok(configurations.iter().filter_map(read).map(|bytes| diff_ids(&bytes)).collect())
    }

    /// Bytes of the blobs of an image; several images may share them.
    #[must_use]
    pub fn size_of(&self, image: &StoredImage) -> u64 {
        self.blobs_of(&image.reference).values().sum()
    }
}
