// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Takes all images of an archive into the store. A name is given after everything that it leads to
//! is there; what the store has already is not read.

use crate::store::{Claim, Store, StoreError};
use oci_image::{Contents, Digest, ImageError, ImageName, Reference, SourceError};
use std::io::{self, Read as _};

const READ_BUF_SIZE: usize = 256 << 10;

/// An image that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Empty if it has none; then it is found by its digest.
    pub names: Vec<ImageName>,
    pub digest: Digest,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {digest}")]
    Read { digest: String, source: io::Error },
    #[error("{digest} has digest {actual}: it is damaged or was changed")]
    Digest { digest: String, actual: String },
}

impl LoadError {
    /// Whether the cause is this host (no space, no permission in the store).
    #[must_use]
    pub fn is_host(&self) -> bool {
        match self {
            Self::Image(error) => error.is_host(),
            other => matches!(other, Self::Store(_)),
        }
    }
}

/// Loads the images of `contents`. `progress` is called with the bytes that are here and all bytes.
pub fn load(store: &Store, contents: &Contents, progress: &dyn Fn(u64, u64)) -> Result<Vec<Loaded>, LoadError> {
    store.create()?;
    let _in_use = store.in_use()?;
    let blobs = || contents.images().iter().flat_map(|image| &image.blobs);
    let total = blobs().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    let mut done = 0_u64;
    let mut loaded = Vec::new();
    for image in contents.images() {
        for blob in &image.blobs {
            load_blob(store, contents, blob, &|of_blob| progress(done.saturating_add(of_blob), total))?;
            done = done.saturating_add(blob.size);
        }
        for name in &image.names {
            store.set_name(name, &image.image, &image.media_type)?;
        }
        if image.names.is_empty() {
            store.keep(&image.image, &image.media_type)?;
        }
        loaded.push(Loaded { names: image.names.clone(), digest: image.image.digest.clone() });
    }
    Ok(loaded)
}

fn load_blob(store: &Store, contents: &Contents, blob: &Reference, progress: &dyn Fn(u64)) -> Result<(), LoadError> {
    loop {
        let mut partial = match store.claim(blob)? {
            Claim::Complete => return Ok(()),
            Claim::Held(partial) => partial,
        };
        let start = partial.length();
        let mut reader = contents.blob(blob, start)?;
        let mut buffer = vec![0; READ_BUF_SIZE];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => partial.append(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LoadError::Read { digest: blob.digest.to_string(), source }),
            }
            progress(partial.length());
        }
        match partial.publish()? {
            Ok(()) => return Ok(()),
            // What an interrupted download left can be the wrong bytes.
            Err(_) if start > 0 => {}
            Err(actual) => {
                return Err(LoadError::Digest { digest: blob.digest.to_string(), actual: actual.to_string() });
            }
        }
    }
}
