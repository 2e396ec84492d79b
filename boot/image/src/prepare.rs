// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From an image reference to a root disk, step by step.

use crate::budget::Budget;
use crate::cache::{CacheError, Claim, DataOf, FoundDisk, LayerCache, RootDiskCache, Stored};
use crate::config::ImageConfig;
use crate::convert::{ConvertError, Converted, convert};
use crate::digest::{Digest, DigestError};
use crate::image::{Image, ImageError};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::ImageReference;
use crate::root_disk::{RootDisk, RootFormat};
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
    pub root_disk: RootDisk,
    /// `sha256:...` of the image manifest, or for docker archives of the configuration (docker's
    /// image id).
    pub image_digest: String,
    /// `sha256:...` of the diff ids of all layers (OCI image specification, "Layer ChainID"): images of equal content have equal
    /// ones, whatever the compression of their layers.
    pub chain_id: String,
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
    let cache = RootDiskCache::new(request.cache, request.format);

    // Until all files of the root disk are open.
    let _in_use = cache.in_use();
    let chain_id = image.chain_id();
    let prepared = |found: FoundDisk, cached| PreparedImage {
        root_disk: found.root_disk,
        image_digest: image.digest.to_string(),
        chain_id: chain_id.to_string(),
        root_disk_digest: found.stored.root_disk_digest,
        config: image.config.clone(),
        cached,
        layer_bytes: found.stored.layer_bytes,
    };
    if let Some(found) = cache.find(&chain_id)? {
        return Ok(prepared(found, true));
    }
    let workspace = match cache.claim(&chain_id, || report(Progress::Waiting))? {
        Claim::Found(found) => return Ok(prepared(found, true)),
        Claim::Held(workspace) => workspace,
    };
    let disk = cache.create(&workspace)?;
    let layers = LayerCache::new(request.cache);
    let converted = convert(&image, &chain_id, request.format, &layers, &budget, &disk, &report).map_err(|source| {
        let reference = reference();
        if source.is_host() {
            Error::Host { reference, cache: request.cache.to_owned(), source: Box::new(source) }
        } else {
            Error::Convert { reference, source }
        }
    })?;
    let Converted { written, layers } = converted;
    let needed = || written.layers.iter().map(|number| &layers.files[*number]);
    let data = needed().map(|files| DataOf { diff_id: files.diff_id.to_string(), bytes: files.data_bytes() });
    let stored = Stored {
        chain_id: chain_id.to_string(),
        root_disk_digest: written.digest.to_string(),
        bytes: written.bytes,
        layer_bytes: layers.uncompressed,
        data: data.collect(),
    };
    Ok(prepared(cache.publish(workspace, &chain_id, stored, needed())?, false))
}

/// Opens the root disk of the image with this [chain id](PreparedImage::chain_id), if the directory `cache` has it with the digest
/// `root_disk`.
///
/// # Errors
/// `chain_id` is no digest, or the cache cannot be read.
pub fn find_root_disk(
    cache: &Path,
    format: RootFormat,
    chain_id: &str,
    root_disk: &str,
) -> Result<Option<RootDisk>, FindRootDiskError> {
    let found = RootDiskCache::new(cache, format).find(&Digest::parse(chain_id)?)?;
    Ok(found.filter(|found| found.stored.root_disk_digest == root_disk).map(|found| found.root_disk))
}
