// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The JSON documents of an image: OCI image specification (index, manifest, configuration) and
//! docker's `manifest.json`. Only the necessary fields are declared. The fields of a document
//! decide its type, not the media type.

use super::ImageError;
use crate::config::ConfigObject;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;

/// An index or a manifest.
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub digest: String,
    pub size: u64,
    pub platform: Option<DescriptorPlatform>,
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DescriptorPlatform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ImageDocument {
    pub architecture: Option<String>,
    pub os: Option<String>,
    pub variant: Option<String>,
    pub config: Option<ConfigObject>,
    pub rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    pub diff_ids: Option<Vec<String>>,
}

/// One image in docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    pub layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyDocument {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
}

/// Parses JSON; `name` is for the message.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Json { name: name.into(), source })
}

impl Document {
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let document: AnyDocument = parse(bytes, name)?;
        match document {
            AnyDocument { manifests: Some(_), layers: Some(_), .. } => Err(ImageError::Ambiguous(name.into())),
            AnyDocument { manifests: Some(manifests), .. } => Ok(Self::Index(manifests)),
            AnyDocument { config: Some(config), layers: Some(layers), .. } => {
                if layers.len() > crate::limits::MAX_LAYERS {
                    return Err(ImageError::Layers { name: name.into(), count: layers.len() });
                }
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            AnyDocument { fs_layers: Some(_), .. } => Err(ImageError::SchemaOne(name.into())),
            _ => Err(ImageError::NotAManifest(name.into())),
        }
    }
}

impl Descriptor {
    /// The tag of an entry of an index.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.annotations.as_ref()?.get("org.opencontainers.image.ref.name").map(String::as_str)
    }
}
