// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Archives of `docker save`: `manifest.json` lists images by the names of archive members. The
//! image is identified by the digest of its configuration (docker's image id), which covers the
//! layers through their diff ids.

use super::documents::{self, DockerImage, ImageDocument};
use super::names::Names;
use super::{Image, ImageError, Location, assemble, listing, oci, rank};
use crate::digest::Digest;
use crate::platform::Platform;
use crate::source::{Source, SourceError};
use std::collections::BTreeSet;

/// Finds the image named `tag` (a name with its tag, or the tag alone). Without `tag`: the only
/// one, else `latest`.
pub(super) fn open(source: Source, tag: Option<&str>, platform: &Platform) -> Result<Image, ImageError> {
    let image = choose(&source, read(&source)?, tag)?;
    let layers = image.layers.unwrap_or_default();
    if layers.len() > crate::limits::MAX_LAYERS {
        return Err(ImageError::Layers { name: "manifest.json".into(), count: layers.len() });
    }
    let bytes = source.read(&image.config)?;
    let digest = config_digest(&image.config, &bytes)?;
    let document: ImageDocument = documents::parse(&bytes, &image.config)?;
    rank(&document, platform).map_err(|available| ImageError::Platform { wanted: platform.clone(), available })?;
    let document = (document, bytes.len() as u64);
    assemble(source, digest, document, &image.config, layers.into_iter().map(Location::Member).collect())
}

/// Whether `manifest.json` has images that `index.json` does not list. Some versions of docker
/// write an index of one image, or of none, beside it.
pub(super) fn lists_more(source: &Source) -> bool {
    if !source.is_archive() || !source.has("manifest.json") {
        return false;
    }
    let Ok(listed) = oci::index(source) else { return true };
    let listed: BTreeSet<&str> =
        listed.iter().filter(|entry| !entry.is_record()).map(|entry| entry.digest.as_str()).collect();
    let Ok(images) = read(source) else { return listed.is_empty() };
    images.iter().map(|image| image.config.as_str()).collect::<BTreeSet<_>>().len() > listed.len()
}

/// The digest of a configuration, which the member's name has: `HEX.json`, or `blobs/sha256/HEX` since
/// docker 25.
pub(super) fn config_digest(name: &str, bytes: &[u8]) -> Result<Digest, SourceError> {
    let digest = Digest::of(bytes);
    let stem = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if stem.len() == 64 && stem != digest.hex() {
        return Err(SourceError::Digest { name: name.into(), actual: digest.to_string() });
    }
    Ok(digest)
}

pub(super) fn read(source: &Source) -> Result<Vec<DockerImage>, ImageError> {
    documents::parse(&source.read("manifest.json")?, "manifest.json")
}

fn choose(source: &Source, images: Vec<DockerImage>, tag: Option<&str>) -> Result<DockerImage, ImageError> {
    let names = |image: &DockerImage| Names { full: image.repo_tags.clone().unwrap_or_default(), tag: None };
    let available = |images: &[&DockerImage]| {
        let shown =
            |image: &&DockerImage| if names(image).is_empty() { vec![image.config.clone()] } else { names(image).full };
        listing(images.iter().flat_map(shown).collect::<Vec<_>>())
    };
    let all: Vec<&DockerImage> = images.iter().collect();
    let named = |tag: &str| all.iter().copied().filter(|image| names(image).matches(tag)).collect::<Vec<_>>();
    let is_one = |found: &[&DockerImage]| found.iter().all(|image| image.config == found[0].config);
    let found = match tag {
        Some(tag) => named(tag),
        None if is_one(&all) => all.clone(),
        None => named("latest"),
    };
    match (found.first(), tag) {
        (Some(image), _) if is_one(&found) => {
            let config = image.config.clone();
            Ok(images.into_iter().find(|image| image.config == config).expect("it was found among them"))
        }
        (Some(_), Some(tag)) => Err(ImageError::SeveralNamed { wanted: tag.into(), available: available(&found) }),
        (None, Some(tag)) => Err(ImageError::Tag { wanted: tag.into(), available: available(&all) }),
        (None, None) if all.is_empty() => Err(ImageError::Empty(source.place().display().to_string())),
        (_, None) => Err(ImageError::NoTag { available: available(&all) }),
    }
}
