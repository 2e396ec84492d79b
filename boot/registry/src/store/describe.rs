// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the documents of an image in the store say, and which blobs it has in common with others.

use super::{Store, StoreError, StoredImage};
use crate::client::MAX_DOCUMENT_SIZE;
use oci_image::{Digest, ImageError, MAX_INDEX_DEPTH, Platform, Reference, References, references};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One image, for one platform.
#[derive(Clone, Debug)]
pub struct Description {
    pub manifest: Digest,
    pub config: Reference,
    pub document: Value,
    pub layers: Vec<Reference>,
}

/// Bytes of an image's blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of those that other images have, too.
    pub shared: u64,
    pub own: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{0} is missing or damaged in the image store")]
    Missing(Digest),
    #[error("the image index is nested too deeply")]
    TooDeep,
    #[error("configuration {digest} is malformed")]
    Config { digest: Digest, source: serde_json::Error },
}

impl Store {
    /// Reads the documents of an image: of several the one that suits `platform` best, else the first
    /// that is here.
    pub fn describe(&self, image: &StoredImage, platform: &Platform) -> Result<Description, DescribeError> {
        self.describe_document(&image.reference.digest, platform, 0)
    }

    fn describe_document(
        &self,
        digest: &Digest,
        platform: &Platform,
        depth: usize,
    ) -> Result<Description, DescribeError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(DescribeError::TooDeep);
        }
        let missing = || DescribeError::Missing(digest.clone());
        let bytes = self.read_document(digest, MAX_DOCUMENT_SIZE).ok_or_else(missing)?;
        let name = digest.to_string();
        let found = references(&bytes, &name, Some(platform)).or_else(|_| references(&bytes, &name, None))?;
        match found {
            References::Manifests(images) => {
                let mut failure = None;
                for image in images {
                    match self.describe_document(&image.digest, platform, depth + 1) {
                        Ok(found) => return Ok(found),
                        Err(error) => drop(failure.get_or_insert(error)),
                    }
                }
                Err(failure.unwrap_or_else(missing))
            }
            References::Blobs(blobs) => {
                if let Some(blob) = blobs.iter().find(|blob| !self.has(blob)) {
                    return Err(DescribeError::Missing(blob.digest.clone()));
                }
                let (config, layers) = blobs.split_first().expect("a manifest has a configuration");
                let missing = || DescribeError::Missing(config.digest.clone());
                let bytes = self.read_document(&config.digest, MAX_DOCUMENT_SIZE).ok_or_else(missing)?;
                let document = serde_json::from_slice(&bytes)
                    .map_err(|source| DescribeError::Config { digest: config.digest.clone(), source })?;
                Ok(Description { manifest: digest.clone(), config: config.clone(), document, layers: layers.to_vec() })
            }
        }
    }

    /// What each image takes, by its digest. Several names of one image share nothing by that.
    pub fn usage(&self) -> Result<BTreeMap<Digest, Usage>, StoreError> {
        let roots: BTreeSet<(Digest, u64)> =
            self.images()?.into_iter().map(|image| (image.reference.digest, image.reference.size)).collect();
        let images: Vec<_> = roots
            .into_iter()
            .map(|(digest, size)| (digest.clone(), self.blobs_of(&Reference { digest, size })))
            .collect();
        let mut users: BTreeMap<&Digest, usize> = BTreeMap::new();
        for digest in images.iter().flat_map(|(_, blobs)| blobs.keys()) {
            *users.entry(digest).or_default() += 1;
        }
        let usage = |blobs: &BTreeMap<Digest, u64>| {
            blobs.iter().fold(Usage::default(), |usage, (digest, size)| match users[digest] {
                1 => Usage { own: usage.own + size, ..usage },
                _ => Usage { shared: usage.shared + size, ..usage },
            })
        };
        Ok(images.iter().map(|(digest, blobs)| (digest.clone(), usage(blobs))).collect())
    }
}
