// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Archives of `docker save`: `manifest.json` lists images by the names of archive members. The
//! image is identified by the digest of its configuration (docker's image id), which covers the
//! layers through their diff ids.

use super::documents::{self, DockerImage, ImageDocument};
use super::{Image, ImageError, Location, assemble, listing, other_platform};
use crate::digest::Digest;
use crate::platform::Platform;
use crate::source::{Source, SourceError};

/// Finds the image named `tag` (a name with its tag, or the tag alone). Without `tag`: the only
/// one, else `latest`.
pub(super) fn open(source: Source, tag: Option<&str>, platform: &Platform) -> Result<Image, ImageError> {
    let images: Vec<DockerImage> = documents::parse(&source.read("manifest.json")?, "manifest.json")?;
    let image = choose(&source, images, tag)?;
    let layers = image.layers.unwrap_or_default();
    if layers.len() > crate::limits::MAX_LAYERS {
        return Err(ImageError::Layers { name: "manifest.json".into(), count: layers.len() });
    }
    let bytes = source.read(&image.config)?;
    let digest = Digest::of(&bytes);
    // The member is named by its digest: `HEX.json`, or `blobs/sha256/HEX` since docker 25.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if stem.len() == 64 && stem != digest.hex() {
        return Err(SourceError::Digest { name: image.config, actual: digest.to_string() }.into());
    }
    let document: ImageDocument = documents::parse(&bytes, &image.config)?;
    if let Some(available) = other_platform(&document, platform) {
        return Err(ImageError::Platform { wanted: platform.clone(), available });
    }
    assemble(source, digest, document, &image.config, layers.into_iter().map(Location::Member).collect())
}

fn choose(source: &Source, images: Vec<DockerImage>, tag: Option<&str>) -> Result<DockerImage, ImageError> {
    let empty = || ImageError::Empty(source.place().display().to_string());
    let names = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    let available = listing(images.iter().flat_map(|image| image.repo_tags.iter().flatten()).map(String::as_str));
    let position = match tag {
        Some(tag) => Some(
            images
                .iter()
                .position(|image| names(image).iter().any(|name| is_named(name, tag)))
                .ok_or(ImageError::Tag { wanted: tag.into(), available })?,
        ),
        None if images.iter().all(|image| image.config == images[0].config) => (!images.is_empty()).then_some(0),
        None => Some(
            images
                .iter()
                .position(|image| names(image).iter().any(|name| is_named(name, "latest")))
                .ok_or(ImageError::NoTag { available })?,
        ),
    };
    position.and_then(|position| images.into_iter().nth(position)).ok_or_else(empty)
}

/// Whether `wanted` is `name`, its tag, or its short form without docker's own registry.
fn is_named(name: &str, wanted: &str) -> bool {
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
    let short = |name: &str| {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        let name = name.strip_prefix("library/").unwrap_or(name);
        if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            name.to_owned()
        } else {
            format!("{name}:latest")
        }
    };
    name == wanted || tag == Some(wanted) || short(name) == short(wanted)
}
