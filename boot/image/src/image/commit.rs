// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An image of what a machine made of its image: the same layers, one more, and a new configuration. The layer is written to a file
//! without a name, compressed as registries have layers.

use super::ImageError;
use super::contents::{
    ContainedImage, Contents, LAYER_TYPE, MANIFEST_TYPE, Origin, READ_BUF_SIZE, descriptor, manifest,
};
use super::documents;
use super::references::{Reference, References, references};
use crate::budget::Budget;
use crate::digest::{Digest, Hasher};
use crate::limits;
use crate::machine_tree::{MachineTree, TreeError};
use crate::name::ImageName;
use crate::reference::ImageReference;
use crate::source::{self, Blob, Source, SourceError};
use crate::spool::Spool;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;
use std::sync::Arc;

/// What distinguishes the new image from the one below it.
pub struct Commit<'a> {
    /// Of the image below, as in [`PreparedImage`](crate::PreparedImage).
    pub image_digest: &'a str,
    pub tree: &'a MachineTree,
    /// Changes the object `config` of the configuration.
    pub edit: &'a dyn Fn(&mut Map<String, Value>),
    /// RFC 3339.
    pub created: &'a str,
    pub author: Option<&'a str>,
    /// The command, in the history.
    pub created_by: &'a str,
    pub comment: Option<&'a str>,
    /// Of the image, in the store.
    pub name: Option<ImageName>,
    /// Called while the layer is written.
    pub progress: &'a dyn Fn(),
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

impl CommitError {
    /// Whether the cause is this host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        match self {
            Self::Image(error) => error.is_host(),
            Self::Tree(error) => error.is_host(),
            Self::Write(_) => true,
        }
    }

    /// Whether the image below is not in the place that was given.
    #[must_use]
    pub fn is_missing_image(&self) -> bool {
        matches!(
            self,
            Self::Image(ImageError::Source(
                SourceError::Missing { .. } | SourceError::Open { .. } | SourceError::Size { .. }
            ))
        )
    }
}

impl Contents {
    /// Makes the image of `commit` above the one in `base`, an archive, a layout or a store; the tag of `base` does not matter. Only
    /// its documents are read. Files without a name are made in `scratch`.
    ///
    /// # Errors
    /// The image is not there, a file of the machine cannot be in a layer, or a file cannot be written.
    pub fn commit(base: &ImageReference, scratch: &Path, commit: &Commit<'_>) -> Result<Self, CommitError> {
        let mut base = Base::open(base, scratch, commit.image_digest)?;
        let layer = Layer::write(commit, scratch)?;
        let config = base.config(commit, layer.as_ref().map(|layer| &layer.diff_id))?;
        let Base { mut contents, mut blobs, mut layers, .. } = base;
        if let Some(Layer { reference, file, .. }) = layer {
            layers.push(descriptor(&reference, &format!("{LAYER_TYPE}+gzip")));
            contents.origins.insert(reference.digest.clone(), Origin::Blob(file));
            blobs.push(reference);
        }
        if layers.len() > limits::MAX_LAYERS {
            return Err(ImageError::Layers { name: commit.image_digest.into(), count: layers.len() }.into());
        }
        let config = contents.add_document(config);
        let image = contents.add_document(manifest(&config, layers));
        blobs.extend([config, image.clone()]);
        let names = commit.name.iter().cloned().collect();
        contents.images = vec![ContainedImage { names, image, media_type: MANIFEST_TYPE.to_owned(), blobs }];
        Ok(contents)
    }

    /// Reads a small blob and checks its digest.
    fn document(&self, blob: &Reference) -> Result<Vec<u8>, SourceError> {
        let (name, limit) = (blob.digest.to_string(), limits::MAX_DOCUMENT_SIZE);
        if blob.size > limit {
            return Err(SourceError::TooLarge { name, length: blob.size, limit });
        }
        let mut bytes = Vec::new();
        let read = self.blob(blob, 0)?.take(limit).read_to_end(&mut bytes);
        read.map_err(|source| SourceError::Read { name, source })?;
        source::checked(bytes, &blob.digest)
    }

    fn add_document(&mut self, bytes: Vec<u8>) -> Reference {
        let reference = Reference::of(&bytes);
        self.origins.insert(reference.digest.clone(), Origin::Document(bytes));
        reference
    }
}

/// The image that the machine was made from.
struct Base {
    contents: Contents,
    /// Layers, from the lowest.
    blobs: Vec<Reference>,
    /// Their descriptors, with OCI's media types.
    layers: Vec<Value>,
    config: Value,
}

impl Base {
    fn open(reference: &ImageReference, scratch: &Path, digest: &str) -> Result<Self, ImageError> {
        let digest = Digest::parse(digest)?;
        let budget = Budget::default();
        let source = match reference {
            ImageReference::OciLayout { path, .. } => Source::directory(path)?,
            ImageReference::Stored { store, .. } => Source::directory(store)?,
            ImageReference::Name(name) => return Err(ImageError::NotStored(name.short())),
            ImageReference::OciArchive { path, .. } | ImageReference::DockerArchive { path, .. } => {
                Source::archive(path, scratch, &budget)?
            }
        };
        let name = digest.to_string();
        let (contents, bytes) = match source.read_document(&digest) {
            Ok(bytes) if references(&bytes, &name, None).is_ok() => {
                (Contents { source, images: Vec::new(), origins: BTreeMap::new() }, bytes)
            }
            // An archive of docker's without manifests is known by its configuration.
            found if source.is_archive() => {
                let contents = Contents::of(source, &budget)?;
                let image = contents.images.iter().find(|image| image.blobs.iter().any(|blob| blob.digest == digest));
                let bytes = match image {
                    Some(image) => contents.document(&image.image)?,
                    None => return Err(found.map_or_else(ImageError::Source, |_| ImageError::NotAManifest(name))),
                };
                (contents, bytes)
            }
            found => return Err(found.map_or_else(ImageError::Source, |_| ImageError::NotAManifest(name))),
        };
        let References::Blobs(mut blobs) = references(&bytes, &name, None)? else {
            return Err(ImageError::NotAManifest(name));
        };
        let config = blobs.remove(0);
        let config = documents::parse(&contents.document(&config)?, &config.digest.to_string())?;
        let manifest: Value = documents::parse(&bytes, &name)?;
        let types = manifest["layers"].as_array().into_iter().flatten().map(|layer| layer["mediaType"].as_str());
        let layers =
            blobs.iter().zip(types).map(|(layer, of_layer)| descriptor(layer, &layer_type(of_layer))).collect();
        Ok(Self { contents, blobs, layers, config })
    }

    /// The new configuration. Fields that we do not know are kept.
    fn config(&mut self, commit: &Commit<'_>, diff_id: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        let not_an_image = || ImageError::NotAnImage(commit.image_digest.into());
        let document = self.config.as_object_mut().ok_or_else(not_an_image)?;
        // Of the container that docker built the image in.
        for field in ["author", "container", "container_config"] {
            document.remove(field);
        }
        document.insert("created".into(), commit.created.into());
        document.extend(commit.author.map(|author| ("author".to_owned(), author.into())));
        (commit.edit)(object(document, "config"));
        let diff_ids = list(object(document, "rootfs"), "diff_ids");
        let below = diff_ids.len();
        diff_ids.extend(diff_id.map(|diff_id| Value::from(diff_id.to_string())));
        let history = list(document, "history");
        let is_layer = |entry: &&Value| entry["empty_layer"] != true;
        // Tools require an entry for each layer.
        let missing = below.saturating_sub(history.iter().filter(is_layer).count());
        history.extend(std::iter::repeat_n(json!({}), missing));
        let mut entry = json!({ "created": commit.created, "created_by": commit.created_by });
        let optional = [("author", commit.author), ("comment", commit.comment)];
        for (field, text) in optional.into_iter().filter_map(|(field, text)| Some((field, text?))) {
            entry[field] = text.into();
        }
        if diff_id.is_none() {
            entry["empty_layer"] = true.into();
        }
        history.push(entry);
        let bytes = self.config.to_string().into_bytes();
        let (length, limit) = (bytes.len() as u64, limits::MAX_DOCUMENT_SIZE);
        match length > limit {
            true => Err(SourceError::TooLarge { name: "the new configuration".into(), length, limit }.into()),
            false => Ok(bytes),
        }
    }
}

/// A field that is an object, and becomes one if it is not.
fn object<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(field).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it is an object now")
}

fn list<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = map.entry(field).or_insert(Value::Null);
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it is a list now")
}

/// OCI's name for the media type of a layer: a manifest has types of one specification.
fn layer_type(media_type: Option<&str>) -> String {
    let (media_type, suffix) = match media_type {
        None => (LAYER_TYPE, ""),
        Some(text) => text.strip_suffix(".gzip").map_or((text, ""), |text| (text, "+gzip")),
    };
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => format!("{LAYER_TYPE}{suffix}"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{LAYER_TYPE}+zstd"),
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            format!("application/vnd.oci.image.layer.nondistributable.v1.tar{suffix}")
        }
        other => format!("{other}{}", suffix.replace('+', ".")),
    }
}

/// What the machine has changed.
struct Layer {
    reference: Reference,
    diff_id: Digest,
    file: Blob,
}

impl Layer {
    /// None if it has no entries.
    fn write(commit: &Commit<'_>, scratch: &Path) -> Result<Option<Self>, CommitError> {
        let spool = Spool::create(scratch).map_err(CommitError::Write)?;
        let compressed = Hashed { hasher: Hasher::sha256(), output: spool, progress: &|| {} };
        let gzip = GzEncoder::new(compressed, Compression::default());
        let mut plain = Hashed { hasher: Hasher::sha256(), output: gzip, progress: commit.progress };
        let entries = commit.tree.write_layer(BufWriter::with_capacity(READ_BUF_SIZE, &mut plain))?;
        let Hashed { hasher, output: gzip, .. } = plain;
        let Hashed { hasher: compressed, output: spool, .. } = gzip.finish().map_err(CommitError::Write)?;
        if entries == 0 {
            return Ok(None);
        }
        let length = spool.length();
        let file = Arc::new(spool.into_file().map_err(CommitError::Write)?);
        let reference = Reference { digest: compressed.finish(), size: length };
        Ok(Some(Self { reference, diff_id: hasher.finish(), file: Blob { file, offset: 0, length } }))
    }
}

/// Hashes what is written.
struct Hashed<'a, W> {
    hasher: Hasher,
    output: W,
    progress: &'a dyn Fn(),
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write_all(bytes)?;
        self.hasher.update(bytes);
        (self.progress)();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
