// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OCI layouts (OCI image specification, "Image Layout" and "Image Index"): selects an image of the
//! index.

use super::documents::{self, Descriptor, Document, ImageDocument, Manifest};
use super::{Image, ImageError, Location, assemble, listing, other_platform, platform_name};
use crate::digest::Digest;
use crate::limits;
use crate::platform::Platform;
use crate::source::Source;

/// Finds the image with `tag` for `platform`. Without a tag: the only one, else `latest`.
pub(super) fn open(source: Source, tag: Option<&str>, platform: &Platform) -> Result<Image, ImageError> {
    let bytes = source.read("index.json")?;
    let manifests = match Document::parse(&bytes, "index.json")? {
        Document::Index(manifests) => manifests,
        Document::Manifest(_) => return Err(ImageError::NotAManifest("index.json".into())),
    };
    let mut search = Search { source: &source, platform, documents: 0, available: Vec::new() };
    let found = search.pick(&tagged(&source, &manifests, tag)?, 0)?;
    let Search { available, .. } = search;
    let Some(found) = found else {
        let available = listing(available.iter().map(String::as_str));
        return Err(ImageError::Platform { wanted: platform.clone(), available });
    };
    let locations = found
        .manifest
        .layers
        .iter()
        .map(|layer| Ok(Location::Blob { digest: Digest::parse(&layer.digest)?, size: layer.size }));
    let locations = locations.collect::<Result<_, ImageError>>()?;
    assemble(source, found.digest, found.config, &found.manifest.config.digest, locations)
}

struct Found {
    digest: Digest,
    manifest: Manifest,
    config: ImageDocument,
}

/// Returns the descriptors that match the tag; the platform selects among them.
fn tagged<'a>(
    source: &Source,
    manifests: &'a [Descriptor],
    tag: Option<&str>,
) -> Result<Vec<&'a Descriptor>, ImageError> {
    let with = |tag: &str| manifests.iter().filter(|image| image.tag() == Some(tag)).collect::<Vec<_>>();
    let available = || listing(manifests.iter().filter_map(Descriptor::tag));
    if let Some(tag) = tag {
        let found = with(tag);
        return match found.is_empty() {
            true => Err(ImageError::Tag { wanted: tag.into(), available: available() }),
            false => Ok(found),
        };
    }
    let Some(first) = manifests.first() else {
        return Err(ImageError::Empty(source.place().display().to_string()));
    };
    // One image may have several tags, and images without tags are one image for several platforms.
    let same = |image: &Descriptor| image.digest == first.digest || (image.tag().is_none() && first.tag().is_none());
    if manifests.iter().all(same) {
        return Ok(manifests.iter().collect());
    }
    let latest = with("latest");
    if latest.is_empty() { Err(ImageError::NoTag { available: available() }) } else { Ok(latest) }
}

/// A search through nested indexes. Digests make cycles impossible; depth and number are bounded
/// nevertheless.
struct Search<'a> {
    source: &'a Source,
    platform: &'a Platform,
    documents: usize,
    /// Platforms that did not match.
    available: Vec<String>,
}

impl Search<'_> {
    /// Returns the first image for the platform.
    fn pick(&mut self, images: &[&Descriptor], depth: usize) -> Result<Option<Found>, ImageError> {
        if depth > limits::MAX_INDEX_DEPTH {
            return Err(ImageError::IndexTooDeep);
        }
        for image in images {
            if let Some(platform) = &image.platform {
                let variant = platform.variant.as_deref().unwrap_or_default();
                if !self.platform.accepts(&platform.os, &platform.architecture, variant) {
                    // Build records are listed with this platform.
                    if platform.os != "unknown" {
                        self.available.push(platform_name(&platform.os, &platform.architecture, variant));
                    }
                    continue;
                }
            }
            self.documents += 1;
            if self.documents > limits::MAX_INDEX_DOCUMENTS {
                return Err(ImageError::IndexTooDeep);
            }
            let digest = Digest::parse(&image.digest)?;
            let bytes = self.source.read_blob(&digest, image.size)?;
            let found = match Document::parse(&bytes, &image.digest)? {
                Document::Index(images) => self.pick(&images.iter().collect::<Vec<_>>(), depth + 1)?,
                Document::Manifest(manifest) => self.with_config(digest, manifest)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Adds the configuration to a manifest; `None` if it declares another platform.
    fn with_config(&mut self, digest: Digest, manifest: Manifest) -> Result<Option<Found>, ImageError> {
        let name = &manifest.config.digest;
        let bytes = self.source.read_blob(&Digest::parse(name)?, manifest.config.size)?;
        let config: ImageDocument = documents::parse(&bytes, name)?;
        if config.rootfs.is_none() {
            return Err(ImageError::NotAnImage(name.clone()));
        }
        if let Some(other) = other_platform(&config, self.platform) {
            self.available.push(other);
            return Ok(None);
        }
        Ok(Some(Found { digest, manifest, config }))
    }
}
