// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The JSON documents of an image: OCI image specification (index, manifest, configuration) and
//! docker's `manifest.json`. Only the necessary fields are declared. The fields of a document
//! decide its type, not the media type.

use super::ImageError;
use super::names::Names;
use crate::config::ConfigObject;
use crate::limits;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// An index or a manifest.
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Box<Manifest>),
}

pub(crate) struct Manifest {
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: Option<String>,
    #[serde(default)]
    pub artifact_type: Option<String>,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<DescriptorPlatform>,
    #[serde(default)]
    pub annotations: Option<Annotations>,
}

/// The annotations of an index entry that matter.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    containerd_name: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    reference_name: Option<String>,
    /// Set on the records that buildkit adds to an index.
    #[serde(rename = "vnd.docker.reference.type")]
    reference_type: Option<String>,
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
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    manifests: Field<Descriptors>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Field<Descriptors>,
    fs_layers: Option<IgnoredAny>,
}

/// Distinguishes a field that is null from one that is absent.
#[derive(Default)]
enum Field<T> {
    #[default]
    Absent,
    Null,
    Present(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Present))
    }
}

/// A list whose length is bounded while it is read: three bytes of JSON can be a hundred bytes of
/// memory.
#[derive(Debug)]
struct Descriptors(Vec<Descriptor>);

impl<'de> Deserialize<'de> for Descriptors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded(PhantomData<Descriptors>);
        impl<'de> Visitor<'de> for Bounded {
            type Value = Descriptors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of descriptors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Descriptors, A::Error> {
                let mut found = Vec::new();
                while let Some(descriptor) = list.next_element()? {
                    if found.len() == limits::MAX_DESCRIPTORS {
                        return Err(A::Error::custom(format_args!("more than {} entries", limits::MAX_DESCRIPTORS)));
                    }
                    found.push(descriptor);
                }
                Ok(Descriptors(found))
            }
        }
        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

/// Parses JSON; `name` is for the message.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Json { name: name.into(), source })
}

impl Document {
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let document: AnyDocument = parse(bytes, name)?;
        let AnyDocument { artifact_type, manifests, config, layers, fs_layers } = document;
        match (manifests, config, layers) {
            (Field::Present(_), _, Field::Present(_)) => Err(ImageError::Ambiguous(name.into())),
            (Field::Present(Descriptors(manifests)), ..) => Ok(Self::Index(manifests)),
            (_, Some(config), Field::Present(Descriptors(layers))) => {
                if layers.len() > limits::MAX_LAYERS {
                    return Err(ImageError::Layers { name: name.into(), count: layers.len() });
                }
                Ok(Self::Manifest(Box::new(Manifest { artifact_type, config, layers })))
            }
            // Go writes an empty list as null.
            (Field::Null, None, Field::Absent | Field::Null) => Ok(Self::Index(Vec::new())),
            (_, Some(config), Field::Null) => {
                Ok(Self::Manifest(Box::new(Manifest { artifact_type, config, layers: Vec::new() })))
            }
            _ if fs_layers.is_some() => Err(ImageError::SchemaOne(name.into())),
            _ => Err(ImageError::NotAManifest(name.into())),
        }
    }
}

impl Manifest {
    /// Whether it is not a container image: a signature, an SBOM or another artifact. A media type
    /// decides only where it names something else than a file system layer.
    pub(crate) fn is_artifact(&self) -> bool {
        let named = |kind: &Option<String>| kind.as_deref().is_some_and(|kind| !kind.is_empty());
        let is_document = |layer: &Descriptor| layer.media_type.as_deref().is_some_and(|kind| kind.ends_with("json"));
        named(&self.artifact_type) || self.layers.iter().any(is_document)
    }
}

impl Descriptor {
    /// The names of an entry of an index.
    pub(crate) fn names(&self) -> Names {
        let annotations = self.annotations.as_ref();
        let text =
            |of: fn(&Annotations) -> &Option<String>| annotations.and_then(|annotations| of(annotations).as_deref());
        Names::of_entry(text(|all| &all.containerd_name), text(|all| &all.reference_name))
    }

    /// Whether an index says that this entry belongs to an image and is not one.
    pub(crate) fn is_record(&self) -> bool {
        let given = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        given(self.artifact_type.as_deref())
            || given(self.annotations.as_ref().and_then(|all| all.reference_type.as_deref()))
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}
