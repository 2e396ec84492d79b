// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From a reference to the image it names: its digest, its configuration, its layers in order. Everything read here is
//! small and checked against its digest; layers are only named.

mod docker;
mod documents;
mod oci;

use crate::config::{ConfigError, ImageConfig};
use crate::digest::{Digest, DigestError};
use crate::platform::Platform;
use crate::reference::ImageReference;
use crate::source::{Blob, Source, SourceError};
use documents::ImageDocument;

/// An image whose documents have been read and agree with each other.
pub(crate) struct Image {
    /// Of the manifest; of the configuration where there is no manifest with a digest (docker archives).
    pub digest: Digest,
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<Layer>,
    source: Source,
}

/// One layer, not read yet.
pub(crate) struct Layer {
    location: Location,
    /// Of the uncompressed archive.
    pub diff_id: Digest,
}

enum Location {
    Blob {
        digest: Digest,
        size: u64,
    },
    /// A member of a docker archive: only its diff id vouches for it.
    Member(String),
}

/// The documents of an image are missing, malformed or contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file is missing or not what its descriptor says.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Not JSON, or not of the right shape.
    #[error("{name} is malformed")]
    Json { name: String, source: serde_json::Error },
    /// Neither an index nor a manifest.
    #[error("{0} is neither an image index nor an image manifest")]
    NotAManifest(String),
    #[error("{0} has `manifests` and `layers`: it is ambiguous")]
    Ambiguous(String),
    /// Docker's first image format.
    #[error("{0} is a manifest of schema version 1, which is not supported")]
    SchemaOne(String),
    #[error("{name} lists {count} layers, and {} are accepted", crate::limits::LAYERS)]
    Layers { name: String, count: usize },
    /// A manifest of something else, or a configuration without layers.
    #[error("{0} is not a container image's configuration: it lists no diff ids")]
    NotAnImage(String),
    /// Layers and diff ids do not pair.
    #[error("the manifest has {layers} layers and the configuration {diff_ids} diff ids")]
    DiffIds { layers: usize, diff_ids: usize },
    /// An index in an index in an index.
    #[error("the image index is nested too deeply or refers to too many documents")]
    IndexTooDeep,
    /// For another processor or system.
    #[error("no image for {wanted} (there is: {available})")]
    Platform {
        /// What was asked for.
        wanted: Platform,
        available: String,
    },
    /// The tag is not there.
    #[error("no image tagged `{wanted}` (there is: {available})")]
    Tag {
        /// What was asked for.
        wanted: String,
        available: String,
    },
    /// Several images, and none is named.
    #[error("several images and no tag given (there is: {available})")]
    NoTag { available: String },
    /// An archive or directory without an image.
    #[error("{0} holds no image")]
    Empty(String),
    /// A string of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A digest in a document.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Image {
    /// Finds the image that `reference` names.
    pub(crate) fn open(reference: &ImageReference, platform: &Platform) -> Result<Self, ImageError> {
        match reference {
            ImageReference::OciLayout { path, tag } => oci::open(Source::directory(path)?, tag.as_deref(), platform),
            ImageReference::OciArchive { path, tag } => oci::open(Source::archive(path)?, tag.as_deref(), platform),
            ImageReference::DockerArchive { path, tag } => {
                docker::open(Source::archive(path)?, tag.as_deref(), platform)
            }
        }
    }

    /// Bytes of the files of all layers, unless one cannot be opened: reading it then fails.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        self.layers.iter().map(|layer| Some(self.open_layer(layer).ok()?.length)).sum()
    }

    /// Opens the file of a layer.
    pub(crate) fn open_layer(&self, layer: &Layer) -> Result<Blob, SourceError> {
        match &layer.location {
            Location::Blob { digest, size } => self.source.open_blob(digest, *size),
            Location::Member(name) => self.source.open(name),
        }
    }
}

impl Layer {
    /// Digest of the file, if the manifest vouches for it.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        match &self.location {
            Location::Blob { digest, .. } => Some(digest),
            Location::Member(_) => None,
        }
    }

    pub(crate) fn name(&self) -> String {
        match &self.location {
            Location::Blob { digest, .. } => digest.to_string(),
            Location::Member(name) => name.clone(),
        }
    }
}

/// Joins the configuration with the layers that a manifest lists.
fn assemble(
    source: Source,
    digest: Digest,
    document: ImageDocument,
    name: &str,
    locations: Vec<Location>,
) -> Result<Image, ImageError> {
    let diff_ids = document.rootfs.and_then(|rootfs| rootfs.diff_ids);
    let diff_ids = diff_ids.ok_or_else(|| ImageError::NotAnImage(name.into()))?;
    if diff_ids.len() != locations.len() {
        return Err(ImageError::DiffIds { layers: locations.len(), diff_ids: diff_ids.len() });
    }
    let layers = locations.into_iter().zip(&diff_ids);
    let layers = layers.map(|(location, id)| Ok(Layer { location, diff_id: Digest::parse(id)? }));
    Ok(Image {
        digest,
        config: document.config.unwrap_or_default().try_into()?,
        layers: layers.collect::<Result<_, DigestError>>()?,
        source,
    })
}

/// The platform that a configuration declares, as text, unless it is the wanted one.
fn other_platform(document: &ImageDocument, wanted: &Platform) -> Option<String> {
    // Both are required; what leaves them out is taken at its word, like the container tools do.
    let os = document.os.as_deref().filter(|os| !os.is_empty()).unwrap_or(&wanted.os);
    let given = document.architecture.as_deref().filter(|architecture| !architecture.is_empty());
    let architecture = given.unwrap_or(&wanted.architecture);
    let variant = document.variant.as_deref().unwrap_or_default();
    (!wanted.accepts(os, architecture, variant)).then(|| platform_name(os, architecture, variant))
}

fn platform_name(os: &str, architecture: &str, variant: &str) -> String {
    let variant = if variant.is_empty() { String::new() } else { format!("/{variant}") };
    listing([format!("{os}/{architecture}{variant}").as_str()])
}

/// Names out of an image for one line of a message.
fn listing<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<String> = names.into_iter().map(|name| crate::tar::printable(name.as_bytes())).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    match (names.is_empty(), more) {
        (true, _) => "nothing with a name".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
