// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From an image reference to a root disk, step by step.

use crate::budget::Budget;
use crate::cache::{Cache, CacheError, Claim, Entry, Stored};
use crate::config::ImageConfig;
use crate::convert::{ConvertError, convert};
use crate::digest::{Digest, DigestError};
use crate::image::{Image, ImageError};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::ImageReference;
use crate::root_disk::RootFormat;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone)]
pub struct Prepare<'a> {
    pub reference: &'a ImageReference,
    /// Directory of the cache; created if missing.
    pub cache: &'a Path,
    /// Selects one of the images in an index.
    pub platform: Platform,
    /// Each format has its own entry in the cache.
    pub format: RootFormat,
    /// Called with the progress of a conversion.
    pub progress: Option<&'a dyn Fn(Progress)>,
}

/// An image, ready to start from.
#[derive(Debug)]
pub struct PreparedImage {
    pub root_disk: PathBuf,
    /// The same file, open for reading: it stays valid when the cache is cleared.
    pub root_disk_file: File,
    /// `sha256:...` of the image manifest, or for docker archives of the configuration (docker's
    /// image id).
    pub image_digest: String,
    /// `sha256:...` of the root disk.
    pub root_disk_digest: String,
    pub config: ImageConfig,
    /// Whether the root disk was in the cache.
    pub cached: bool,
    /// Uncompressed bytes of all layers.
    pub layer_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("image {reference}")]
    Image { reference: String, source: ImageError },
    #[error("image {reference}")]
    Convert { reference: String, source: ConvertError },
    /// The host cannot store the data of the layers.
    #[error("image {reference}, converted in {}", cache.display())]
    Host { reference: String, cache: PathBuf, source: Box<ConvertError> },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A root disk cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FindRootDiskError {
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Error {
    /// Whether the cause is the host (no space, no permission in the cache) rather than the image.
    #[must_use]
    pub fn is_host(&self) -> bool {
        match self {
            Self::Image { source, .. } => source.is_host(),
            Self::Convert { .. } => false,
            Self::Host { .. } | Self::Cache(_) => true,
        }
    }
}

/// What the small documents of an image say.
#[derive(Debug)]
pub struct ImageDescription {
    /// As in [`PreparedImage`].
    pub image_digest: String,
    pub config: ImageConfig,
    pub layers: usize,
    /// Of the files of all layers, or `None` if one of them is missing.
    pub layer_file_bytes: Option<u64>,
}

/// Finds the image and reads its documents, without its layers. A compressed archive is unpacked to
/// a file without a name in `scratch`.
pub fn describe(reference: &ImageReference, platform: &Platform, scratch: &Path) -> Result<ImageDescription, Error> {
    let image = Image::open(reference, platform, scratch, &Budget::default())
        .map_err(|source| Error::Image { reference: reference.to_string(), source })?;
    Ok(ImageDescription {
        image_digest: image.digest.to_string(),
        layers: image.layers.len(),
        layer_file_bytes: image.file_bytes(),
        config: image.config,
    })
}

/// Finds the image and its root disk, converting the image if the cache has no root disk.
///
/// A start from the cache reads the image's index, manifest and configuration, but neither layers
/// nor the root disk. Of several processes that need the same conversion one does it and the others
/// wait. A conversion that fails or is killed leaves nothing that looks complete. The sources of an
/// error name the image, the layer and the entry.
pub fn prepare(request: &Prepare<'_>) -> Result<PreparedImage, Error> {
    let report = |progress| request.progress.map_or((), |callback| callback(progress));
    let reference = || request.reference.to_string();
    let budget = Arc::new(Budget::default());
    let image = Image::open(request.reference, &request.platform, request.cache, &budget)
        .map_err(|source| Error::Image { reference: reference(), source })?;
    let cache = Cache::new(request.cache, request.format);

    if let Some(found) = cache.find(&image.digest)? {
        return Ok(prepared(found, image.config, true));
    }
    let directory = match cache.claim(&image.digest, || report(Progress::Waiting))? {
        Claim::Found(found) => return Ok(prepared(*found, image.config, true)),
        Claim::Held(directory) => directory,
    };
    let mut disk = directory.create_root_disk()?;
    let converted =
        convert(&image, request.format, directory.path(), &budget, &mut disk, &report).map_err(|source| {
            let reference = reference();
            if source.is_host() {
                Error::Host { reference, cache: request.cache.to_owned(), source: Box::new(source) }
            } else {
                Error::Convert { reference, source }
            }
        })?;
    drop(disk);
    let stored = Stored {
        image_digest: image.digest.to_string(),
        root_disk_digest: converted.root_disk_digest.to_string(),
        root_disk_bytes: converted.root_disk_bytes,
        layer_bytes: converted.layer_bytes,
    };
    Ok(prepared(directory.publish(stored)?, image.config, false))
}

/// Opens the root disk of the image with the digest `image`, if the directory `cache` has it.
///
/// # Errors
/// `image` is no digest, or the cache cannot be read.
pub fn find_root_disk(cache: &Path, format: RootFormat, image: &str) -> Result<Option<File>, FindRootDiskError> {
    let found = Cache::new(cache, format).find(&Digest::parse(image)?)?;
    Ok(found.map(|entry| entry.root_disk_file))
}

fn prepared(entry: Entry, config: ImageConfig, cached: bool) -> PreparedImage {
    let Entry { root_disk, root_disk_file, stored } = entry;
    PreparedImage {
        root_disk,
        root_disk_file,
        image_digest: stored.image_digest,
        root_disk_digest: stored.root_disk_digest,
        config,
        cached,
        layer_bytes: stored.layer_bytes,
    }
}
