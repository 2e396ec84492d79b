// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From a reference to its image: digest, configuration, layers in order. Everything read here is
//! small and checked against its digest; layers are not read.

mod commit;
mod contents;
mod docker;
mod documents;
mod import;
mod names;
mod oci;
mod references;

pub use commit::{Commit, CommitError};
pub use contents::{ContainedImage, Contents};
pub use import::ImportedConfig;
pub use references::{Reference, References, check_platform, diff_ids, references};

use crate::budget::{Budget, OverBudget};
use crate::config::{ConfigError, ImageConfig};
use crate::decompress::UnpackError;
use crate::digest::{Digest, DigestError};
use crate::limits;
use crate::platform::Platform;
use crate::reference::ImageReference;
use crate::source::{Blob, Source, SourceError};
use documents::ImageDocument;
use std::borrow::Cow;
use std::path::Path;

/// An image whose documents have been read and are consistent.
pub(crate) struct Image {
    /// Of the manifest, or of the configuration in docker archives, which have no manifest with a
    /// digest.
    pub digest: Digest,
    pub config: ImageConfig,
    /// The lowest layer comes first.
    pub layers: Vec<Layer>,
    source: Source,
    /// Size of the configuration.
    document_bytes: u64,
}

/// One layer, not read.
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
    /// A member of a docker archive, which only its diff id covers.
    Member(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{name} is malformed")]
    Json { name: String, source: serde_json::Error },
    #[error("{0} is neither an image index nor an image manifest")]
    NotAManifest(String),
    #[error("{0} is ambiguous: it has `manifests` and `layers`")]
    Ambiguous(String),
    /// Docker's first image format.
    #[error("{0} is a manifest of schema version 1, which is not supported")]
    SchemaOne(String),
    #[error("{name} lists {count} layers, and {} are accepted", crate::limits::MAX_LAYERS)]
    Layers { name: String, count: usize },
    #[error("{0} is not a container image's configuration: it lists no diff ids")]
    NotAnImage(String),
    #[error("the manifest has {layers} layers and the configuration {diff_ids} diff ids")]
    DiffIds { layers: usize, diff_ids: usize },
    #[error("the image index is nested too deeply or refers to too many documents")]
    IndexTooDeep,
    #[error("no image for {wanted} (there is: {available})")]
    Platform { wanted: Platform, available: String },
    #[error("no image tagged `{wanted}` (there is: {available})")]
    Tag { wanted: String, available: String },
    #[error("several images and no tag given (there is: {available})")]
    NoTag { available: String },
    #[error("several images are named `{wanted}`: {available}")]
    SeveralNamed { wanted: String, available: String },
    /// The caller has to find or pull it first.
    #[error("{0}: not in the local store; `coracle pull {0}` fetches it")]
    NotStored(String),
    #[error("{0} holds no image")]
    Empty(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error(transparent)]
    Memory(#[from] OverBudget),
}

impl ImageError {
    /// Whether the cause is the host rather than the image.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Source(SourceError::Unpack { source: UnpackError::Write(_), .. }))
    }

    /// Whether a document is not one of a container image, or not in this place at all: where there
    /// are others, it is passed over.
    fn is_other_content(&self) -> bool {
        match self {
            Self::Json { .. } | Self::NotAManifest(_) | Self::NotAnImage(_) | Self::SchemaOne(_) => true,
            Self::Source(error) => matches!(error, SourceError::Missing { .. } | SourceError::TooLarge { .. }),
            _ => false,
        }
    }
}

impl Image {
    /// Finds the image that `reference` names. A compressed archive is unpacked to a file without a
    /// name in `scratch`.
    pub(crate) fn open(
        reference: &ImageReference,
        platform: &Platform,
        scratch: &Path,
        budget: &Budget,
    ) -> Result<Self, ImageError> {
        let (source, tag) = match reference {
            ImageReference::OciLayout { path, tag } => (Source::directory(path)?, tag.as_deref().map(Cow::Borrowed)),
            ImageReference::Stored { store, name } => (Source::directory(store)?, Some(Cow::Owned(name.to_string()))),
            ImageReference::Name(name) => return Err(ImageError::NotStored(name.short())),
            ImageReference::OciArchive { path, tag } | ImageReference::DockerArchive { path, tag } => {
                (Source::archive(path, scratch, budget)?, tag.as_deref().map(Cow::Borrowed))
            }
        };
        let tag = tag.as_deref();
        let image = match reference {
            ImageReference::DockerArchive { .. } => docker::open(source, tag, platform),
            _ if docker::lists_more(&source) => docker::open(source, tag, platform),
            _ => oci::open(source, tag, platform),
        }?;
        budget.charge(image.document_bytes.saturating_mul(limits::MEMORY_PER_DOCUMENT_BYTE))?;
        Ok(image)
    }

    /// The image with this manifest in an OCI layout; `index.json` need not list it.
    pub(crate) fn of_manifest(layout: &Path, manifest: &Reference, budget: &Budget) -> Result<Self, ImageError> {
        let image = oci::open_manifest(Source::directory(layout)?, manifest)?;
        budget.charge(image.document_bytes.saturating_mul(limits::MEMORY_PER_DOCUMENT_BYTE))?;
        Ok(image)
    }

    /// Size of the files of all layers, or `None` if one cannot be opened: reading it fails later.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        self.layers.iter().map(|layer| Some(self.open_layer(layer).ok()?.length)).sum()
    }

    /// Size of a layer's file, or 0 if it cannot be opened.
    pub(crate) fn layer_bytes(&self, layer: &Layer) -> u64 {
        self.open_layer(layer).map_or(0, |blob| blob.length)
    }

    /// Digest of the chain of its layers' diff ids.
    pub(crate) fn chain_id(&self) -> Digest {
        chain_id(self.layers.iter().map(|layer| &layer.diff_id))
    }

    pub(crate) fn open_layer(&self, layer: &Layer) -> Result<Blob, SourceError> {
        match &layer.location {
            Location::Blob { digest, size } => self.source.open_blob(digest, *size),
            Location::Member(name) => self.source.open(name),
        }
    }
}

impl Layer {
    /// Digest of the file, if the manifest has it.
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

/// Digest of the chain of `diff_ids` (OCI image specification, "Layer ChainID").
pub(crate) fn chain_id<'a>(diff_ids: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let mut diff_ids = diff_ids.into_iter();
    let Some(lowest) = diff_ids.next() else { return Digest::of(b"") };
    diff_ids.fold(lowest.clone(), |chain, diff_id| Digest::of(format!("{chain} {diff_id}").as_bytes()))
}

/// Combines the configuration with the layers of a manifest.
fn assemble(
    source: Source,
    digest: Digest,
    (document, document_bytes): (ImageDocument, u64),
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
        document_bytes,
    })
}

/// Returns how well the platform of a configuration suits, or that platform as text.
fn rank(document: &ImageDocument, wanted: &Platform) -> Result<u32, String> {
    // Both are required. If they are missing, any platform is assumed, as in the container tools.
    let os = document.os.as_deref().filter(|os| !os.is_empty()).unwrap_or("linux");
    let given = document.architecture.as_deref().filter(|architecture| !architecture.is_empty());
    let architecture = given.unwrap_or("amd64");
    let variant = document.variant.as_deref().unwrap_or_default();
    wanted.rank(os, architecture, variant).ok_or_else(|| platform_name(os, architecture, variant))
}

fn platform_name(os: &str, architecture: &str, variant: &str) -> String {
    let variant = if variant.is_empty() { String::new() } else { format!("/{variant}") };
    listing([format!("{os}/{architecture}{variant}").as_str()])
}

/// Formats names from an image for one line of a message.
fn listing(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const MAX_NAMES: usize = 12;
    let mut names: Vec<String> =
        names.into_iter().map(|name| crate::tar::printable(name.as_ref().as_bytes())).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    match (names.is_empty(), more) {
        (true, _) => "nothing with a name".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
