// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OCI layouts (OCI image specification, "Image Layout" and "Image Index"): selects an image of the
//! index.

use super::documents::{self, Descriptor, Document, ImageDocument, Manifest};
use super::{Image, ImageError, Location, Reference, assemble, listing, platform_name, rank};
use crate::digest::Digest;
use crate::limits;
use crate::platform::Platform;
use crate::source::Source;

/// Finds the image named `tag` (its tag, its name, or `@` and its digest) that suits `platform`
/// best. Without a tag: the only one, else `latest`.
pub(super) fn open(source: Source, tag: Option<&str>, platform: &Platform) -> Result<Image, ImageError> {
    let manifests = index(&source)?;
    let candidates = tagged(&source, &manifests, tag)?;
    let mut search = Search { source: &source, platform, documents: 0, available: Vec::new(), other: None };
    let mut best: Vec<(&Descriptor, Found)> = Vec::new();
    for candidate in candidates {
        let Some(found) = search.entry(candidate, 0)? else { continue };
        let rank = best.first().map_or(0, |(_, best)| best.rank);
        if found.rank > rank {
            best.clear();
        }
        if found.rank >= rank && !best.iter().any(|(_, other)| other.digest == found.digest) {
            best.push((candidate, found));
        }
    }
    let Search { available, other, .. } = search;
    if best.len() > 1 {
        let available = listing(best.iter().flat_map(|(entry, _)| shown(entry)).collect::<Vec<_>>());
        return Err(match tag {
            Some(tag) => ImageError::SeveralNamed { wanted: tag.into(), available },
            None => ImageError::NoTag { available },
        });
    }
    let Some((_, found)) = best.pop() else {
        return Err(match other {
            Some(error) if available.is_empty() => error,
            _ => ImageError::Platform {
                wanted: platform.clone(),
                available: listing(available.iter().map(String::as_str)),
            },
        });
    };
    let Found { digest, manifest, config, .. } = found;
    with_layers(source, digest, &manifest, config)
}

/// Opens the image with this manifest, whatever its platform is.
pub(super) fn open_manifest(source: Source, manifest: &Reference) -> Result<Image, ImageError> {
    let name = manifest.digest.to_string();
    match Document::parse(&source.read_blob(&manifest.digest, manifest.size)?, &name)? {
        Document::Index(_) => Err(ImageError::NotAManifest(name)),
        Document::Manifest(document) => {
            let Descriptor { digest, size, .. } = &document.config;
            let bytes = source.read_blob(&Digest::parse(digest)?, *size)?;
            let config = (documents::parse(&bytes, digest)?, bytes.len() as u64);
            with_layers(source, manifest.digest.clone(), &document, config)
        }
    }
}

fn with_layers(
    source: Source,
    digest: Digest,
    manifest: &Manifest,
    config: (ImageDocument, u64),
) -> Result<Image, ImageError> {
    let layers = manifest.layers.iter();
    let locations = layers.map(|layer| Ok(Location::Blob { digest: Digest::parse(&layer.digest)?, size: layer.size }));
    let locations = locations.collect::<Result<_, ImageError>>()?;
    assemble(source, digest, config, &manifest.config.digest, locations)
}

/// Reads `index.json`.
pub(super) fn index(source: &Source) -> Result<Vec<Descriptor>, ImageError> {
    match Document::parse(&source.read("index.json")?, "index.json")? {
        Document::Index(manifests) => Ok(manifests),
        Document::Manifest(_) => Err(ImageError::NotAManifest("index.json".into())),
    }
}

struct Found {
    digest: Digest,
    manifest: Manifest,
    config: (ImageDocument, u64),
    /// How well the platform suits.
    rank: u32,
}

/// The names of an entry, or its digest.
fn shown(entry: &Descriptor) -> Vec<String> {
    let names = entry.names();
    if names.is_empty() { vec![format!("@{}", entry.digest)] } else { names.full }
}

/// Returns the descriptors that match the tag; the platform selects among them.
fn tagged<'a>(
    source: &Source,
    manifests: &'a [Descriptor],
    tag: Option<&str>,
) -> Result<Vec<&'a Descriptor>, ImageError> {
    let images = || manifests.iter().filter(|entry| !entry.is_record());
    let with = |tag: &str| {
        let digest = tag.rsplit_once('@').map(|(_, digest)| digest);
        images().filter(|entry| entry.names().matches(tag) || digest == Some(&*entry.digest)).collect::<Vec<_>>()
    };
    let available = || listing(images().flat_map(|entry| entry.names().full).collect::<Vec<_>>());
    if let Some(tag) = tag {
        let found = with(tag);
        return match found.is_empty() {
            true => Err(ImageError::Tag { wanted: tag.into(), available: available() }),
            false => Ok(found),
        };
    }
    let Some(first) = images().next() else {
        return Err(ImageError::Empty(source.place().display().to_string()));
    };
    // One image may have several names, and images without names are one image for several
    // platforms.
    let same =
        |entry: &Descriptor| entry.digest == first.digest || entry.names() == first.names() || entry.names().is_empty();
    if images().all(same) {
        return Ok(images().collect());
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
    /// Why the first entry that is not an image was passed over.
    other: Option<ImageError>,
}

impl Search<'_> {
    /// Returns the best image for the platform in an entry: the image itself, or one in an index.
    fn entry(&mut self, entry: &Descriptor, depth: usize) -> Result<Option<Found>, ImageError> {
        if entry.is_record() {
            return Ok(None);
        }
        if let Some(platform) = &entry.platform {
            let variant = platform.variant.as_deref().unwrap_or_default();
            if self.platform.rank(&platform.os, &platform.architecture, variant).is_none() {
                self.available.push(platform_name(&platform.os, &platform.architecture, variant));
                return Ok(None);
            }
        }
        self.documents += 1;
        if depth > limits::MAX_INDEX_DEPTH || self.documents > limits::MAX_INDEX_DOCUMENTS {
            return Err(ImageError::IndexTooDeep);
        }
        let digest = Digest::parse(&entry.digest)?;
        let found = self.document(&digest, entry).and_then(|document| match document {
            Document::Index(images) => self.best(&images, depth + 1),
            Document::Manifest(manifest) => self.with_config(digest, *manifest, entry),
        });
        match found {
            Err(error) if error.is_other_content() => {
                self.other.get_or_insert(error);
                Ok(None)
            }
            found => found,
        }
    }

    fn document(&self, digest: &Digest, entry: &Descriptor) -> Result<Document, ImageError> {
        Document::parse(&self.source.read_blob(digest, entry.size)?, &entry.digest)
    }

    /// Returns the best image of an index; of equal ones the first.
    fn best(&mut self, images: &[Descriptor], depth: usize) -> Result<Option<Found>, ImageError> {
        let mut best: Option<Found> = None;
        for image in images {
            if let Some(found) = self.entry(image, depth)?
                && best.as_ref().is_none_or(|best| found.rank > best.rank)
            {
                best = Some(found);
            }
        }
        Ok(best)
    }

    /// Adds the configuration to a manifest; `None` if it declares another platform.
    fn with_config(
        &mut self,
        digest: Digest,
        manifest: Manifest,
        entry: &Descriptor,
    ) -> Result<Option<Found>, ImageError> {
        let name = &manifest.config.digest;
        if manifest.is_artifact() {
            return Err(ImageError::NotAnImage(digest.to_string()));
        }
        let bytes = self.source.read_blob(&Digest::parse(name)?, manifest.config.size)?;
        let config: ImageDocument = documents::parse(&bytes, name)?;
        if config.rootfs.as_ref().is_none_or(|rootfs| rootfs.diff_ids.is_none()) {
            return Err(ImageError::NotAnImage(name.clone()));
        }
        let rank = match rank(&config, self.platform) {
            Ok(rank) => rank,
            Err(other) => {
                self.available.push(other);
                return Ok(None);
            }
        };
        // The index may name a variant that the configuration leaves out.
        let of_entry = entry.platform.as_ref().and_then(|platform| {
            let variant = platform.variant.as_deref().unwrap_or_default();
            self.platform.rank(&platform.os, &platform.architecture, variant)
        });
        let rank = rank.max(of_entry.unwrap_or(0));
        Ok(Some(Found { digest, manifest, config: (config, bytes.len() as u64), rank }))
    }
}
