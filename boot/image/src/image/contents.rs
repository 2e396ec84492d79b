// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All images of an archive or a layout, for a store that takes them in: their names, their documents
//! and every blob. Archives of `docker save` before version 25, which have no manifests, get some.

use super::documents::{self, ImageDocument};
use super::names::Names;
use super::references::{Reference, References, references};
use super::{ImageError, docker, oci};
use crate::budget::Budget;
use crate::decompress::{Compression, HashedFile, UnpackError};
use crate::digest::Digest;
use crate::limits;
use crate::name::ImageName;
use crate::source::{Blob, Source, SourceError};
use crate::spool::Spool;
use crate::tar::FileSection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, Read};
use std::path::Path;

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const READ_BUF_SIZE: usize = 256 << 10;

/// What an archive or a layout contains.
pub struct Contents {
    pub(super) source: Source,
    pub(super) images: Vec<ContainedImage>,
    pub(super) origins: BTreeMap<Digest, Origin>,
}

/// One image, or several for different platforms that have their names in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainedImage {
    /// Empty if it has none, or only a tag.
    pub names: Vec<ImageName>,
    /// Its manifest or index.
    pub image: Reference,
    pub media_type: String,
    /// Everything that is there of it, the manifest or index last.
    pub blobs: Vec<Reference>,
}

/// Where a blob is that has not the place which its digest gives.
pub(super) enum Origin {
    Member(String),
    Document(Vec<u8>),
    Blob(Blob),
}

impl Contents {
    /// Reads the documents of an archive or a layout directory. A compressed archive is unpacked to a
    /// file without a name in `scratch`.
    pub fn open(path: &Path, scratch: &Path) -> Result<Self, ImageError> {
        let budget = Budget::default();
        let source = if path.is_dir() { Source::directory(path)? } else { Source::archive(path, scratch, &budget)? };
        Self::of(source, &budget)
    }

    /// Reads an archive from `input`, named `name` in messages, through a file without a name in
    /// `scratch`.
    pub fn read(input: impl Read, name: &Path, scratch: &Path) -> Result<Self, ImageError> {
        let file = spooled(input, name, scratch)?;
        let budget = Budget::default();
        Self::of(Source::archive_of(file, name, scratch, &budget)?, &budget)
    }

    pub(super) fn of(source: Source, budget: &Budget) -> Result<Self, ImageError> {
        let is_docker = source.is_archive() && source.has("manifest.json");
        let mut reader = Reader { source, budget, origins: BTreeMap::new(), left: Bounds::default() };
        let images = match is_docker && (!reader.source.has("index.json") || docker::lists_more(&reader.source)) {
            true => reader.docker_images(),
            false => reader.oci_images(),
        }?;
        let Reader { source, origins, .. } = reader;
        if images.is_empty() {
            return Err(ImageError::Empty(source.place().display().to_string()));
        }
        Ok(Self { source, images, origins })
    }

    #[must_use]
    pub fn images(&self) -> &[ContainedImage] {
        &self.images
    }

    /// The bytes of a blob from `start`, which are not checked.
    pub fn blob(&self, blob: &Reference, start: u64) -> Result<Box<dyn Read + '_>, SourceError> {
        let found = match self.origins.get(&blob.digest) {
            Some(Origin::Document(bytes)) => return Ok(Box::new(bytes.get(start as usize..).unwrap_or_default())),
            Some(Origin::Member(name)) => self.source.open(name)?,
            Some(Origin::Blob(blob)) => blob.clone(),
            None => self.source.open_blob(&blob.digest, blob.size)?,
        };
        let rest = found.length.saturating_sub(start);
        let found = Blob { offset: found.offset.saturating_add(start), length: rest, ..found };
        Ok(Box::new(found.section(READ_BUF_SIZE)))
    }
}

/// Everything of `input`, named `name` in messages, in a file without a name in `scratch`.
pub(super) fn spooled(mut input: impl Read, name: &Path, scratch: &Path) -> Result<File, SourceError> {
    let unpack = |source| SourceError::Unpack { path: name.to_owned(), source };
    let mut spool = Spool::create(scratch).map_err(|error| unpack(UnpackError::Write(error)))?;
    let mut buffer = vec![0; READ_BUF_SIZE];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => spool.append(&buffer[..count]).map_err(|error| unpack(UnpackError::Write(error)))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SourceError::Read { name: name.display().to_string(), source }),
        }
        if spool.length() > limits::MAX_UNCOMPRESSED_BYTES {
            return Err(unpack(UnpackError::TooLarge));
        }
    }
    spool.into_file().map_err(|error| unpack(UnpackError::Write(error)))
}

/// Documents that may still be read.
struct Bounds {
    documents: usize,
    bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { documents: limits::MAX_CONTAINED_DOCUMENTS, bytes: limits::MAX_CONTAINED_DOCUMENT_BYTES }
    }
}

impl Bounds {
    fn charge(&mut self, bytes: u64) -> Result<(), ImageError> {
        let left = (self.documents.checked_sub(1), self.bytes.checked_sub(bytes));
        let (Some(documents), Some(bytes)) = left else { return Err(ImageError::IndexTooDeep) };
        *self = Self { documents, bytes };
        Ok(())
    }
}

struct Reader<'a> {
    source: Source,
    budget: &'a Budget,
    origins: BTreeMap<Digest, Origin>,
    left: Bounds,
}

impl Reader<'_> {
    /// The images that `index.json` lists. What is not an image is passed over where there are some.
    fn oci_images(&mut self) -> Result<Vec<ContainedImage>, ImageError> {
        let mut images: Vec<ContainedImage> = Vec::new();
        let mut other = None;
        for entry in oci::index(&self.source)?.iter().filter(|entry| !entry.is_record()) {
            let image = Reference { digest: Digest::parse(&entry.digest)?, size: entry.size };
            let names = complete_names(&entry.names());
            if let Some(same) = images.iter_mut().find(|same| same.image == image) {
                same.names.extend(names);
                continue;
            }
            let mut blobs = Vec::new();
            match self.document(&image, 0, &mut blobs) {
                Err(error) if error.is_other_content() => {
                    other.get_or_insert(error);
                    continue;
                }
                found => found?,
            }
            let media_type = entry.media_type.clone().unwrap_or_default();
            images.push(ContainedImage { names, image, media_type, blobs });
        }
        match other {
            Some(error) if images.is_empty() => Err(error),
            _ => Ok(images),
        }
    }

    /// Adds a manifest or an index, and everything that it leads to, to `found`. Of an index, images
    /// for other platforms may be missing.
    fn document(&mut self, document: &Reference, depth: usize, found: &mut Vec<Reference>) -> Result<(), ImageError> {
        if depth > limits::MAX_INDEX_DEPTH {
            return Err(ImageError::IndexTooDeep);
        }
        self.left.charge(document.size)?;
        let bytes = self.source.read_blob(&document.digest, document.size)?;
        match references(&bytes, &document.digest.to_string(), None)? {
            References::Blobs(blobs) => {
                for blob in &blobs {
                    self.source.open_blob(&blob.digest, blob.size)?;
                }
                self.add(found, blobs)?;
            }
            References::Manifests(entries) => {
                let (before, mut missing) = (found.len(), None);
                for entry in &entries {
                    let length = found.len();
                    match self.document(entry, depth + 1, found) {
                        Err(ImageError::Source(error @ SourceError::Missing { .. })) => {
                            found.truncate(length);
                            missing.get_or_insert(error);
                        }
                        other => other?,
                    }
                }
                if found.len() == before {
                    let empty = || ImageError::Empty(document.digest.to_string());
                    return Err(missing.map_or_else(empty, ImageError::Source));
                }
            }
        }
        self.add(found, vec![document.clone()])
    }

    fn add(&self, found: &mut Vec<Reference>, more: Vec<Reference>) -> Result<(), ImageError> {
        for blob in &more {
            self.budget.charge_allocation(2 * size_of::<Reference>() + blob.digest.hex().len())?;
        }
        found.extend(more);
        Ok(())
    }

    /// The images that `manifest.json` lists, each with a manifest that is made here.
    fn docker_images(&mut self) -> Result<Vec<ContainedImage>, ImageError> {
        let mut images: Vec<ContainedImage> = Vec::new();
        // By their place in the archive: several names may lead to one.
        let mut compressed = HashMap::new();
        for listed in docker::read(&self.source)? {
            let layers = listed.layers.unwrap_or_default();
            if layers.len() > limits::MAX_LAYERS {
                return Err(ImageError::Layers { name: "manifest.json".into(), count: layers.len() });
            }
            let (config, document) = self.docker_config(&listed.config)?;
            let diff_ids = document.rootfs.and_then(|rootfs| rootfs.diff_ids);
            let diff_ids = diff_ids.ok_or_else(|| ImageError::NotAnImage(listed.config.clone()))?;
            if diff_ids.len() != layers.len() {
                return Err(ImageError::DiffIds { layers: layers.len(), diff_ids: diff_ids.len() });
            }
            let mut described = Vec::new();
            let mut blobs = vec![config.clone()];
            for (layer, diff_id) in layers.iter().zip(&diff_ids) {
                let (blob, suffix) = self.docker_layer(layer, &Digest::parse(diff_id)?, &mut compressed)?;
                described.push(descriptor(&blob, &format!("{LAYER_TYPE}{suffix}")));
                blobs.push(blob);
            }
            let manifest = manifest(&config, described);
            let image = Reference::of(&manifest);
            let names = listed.repo_tags.unwrap_or_default();
            let names = names.iter().filter_map(|name| ImageName::parse(name).ok());
            if let Some(same) = images.iter_mut().find(|same| same.image == image) {
                same.names.extend(names);
                continue;
            }
            self.budget.charge_allocation(manifest.len())?;
            self.origins.insert(image.digest.clone(), Origin::Document(manifest));
            let mut found = Vec::new();
            self.add(&mut found, blobs)?;
            self.add(&mut found, vec![image.clone()])?;
            images.push(ContainedImage {
                names: names.collect(),
                image,
                media_type: MANIFEST_TYPE.into(),
                blobs: found,
            });
        }
        Ok(images)
    }

    fn docker_config(&mut self, name: &str) -> Result<(Reference, ImageDocument), ImageError> {
        let bytes = self.source.read(name)?;
        self.left.charge(bytes.len() as u64)?;
        let digest = docker::config_digest(name, &bytes)?;
        self.remember(&digest, name)?;
        Ok((Reference { digest, size: bytes.len() as u64 }, documents::parse(&bytes, name)?))
    }

    /// Returns a layer with the suffix of its media type. Of an uncompressed one the digest is the diff
    /// id; a compressed one is hashed.
    fn docker_layer(
        &mut self,
        name: &str,
        diff_id: &Digest,
        compressed: &mut HashMap<u64, Digest>,
    ) -> Result<(Reference, &'static str), ImageError> {
        let blob = self.source.open(name)?;
        let failed = |source| SourceError::Read { name: name.into(), source };
        let mut section = blob.section(READ_BUF_SIZE);
        let compression = Compression::detect(section.fill_buf().map_err(failed)?)
            .map_err(|known| SourceError::Unpack { path: name.into(), source: UnpackError::Compression(known) })?;
        let suffix = match compression {
            Compression::None => {
                self.remember(diff_id, name)?;
                return Ok((Reference { digest: diff_id.clone(), size: blob.length }, ""));
            }
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let digest = match compressed.get(&blob.offset) {
            Some(digest) => digest.clone(),
            None => digest_of(section).map_err(failed)?,
        };
        compressed.insert(blob.offset, digest.clone());
        self.remember(&digest, name)?;
        Ok((Reference { digest, size: blob.length }, suffix))
    }

    fn remember(&mut self, digest: &Digest, name: &str) -> Result<(), ImageError> {
        self.budget.charge_allocation(2 * size_of::<(Digest, Origin)>() + digest.hex().len() + name.len())?;
        self.origins.insert(digest.clone(), Origin::Member(name.into()));
        Ok(())
    }
}

/// The SHA-256 digest of all bytes of `section`.
pub(super) fn digest_of(section: FileSection) -> io::Result<Digest> {
    let algorithm = Digest::of(b"");
    Ok(HashedFile::new(section, Some(&algorithm)).finish()?.expect("it was asked for a digest"))
}

/// The manifest of an image. `layers` are descriptors.
pub(super) fn manifest(config: &Reference, layers: Vec<Value>) -> Vec<u8> {
    let config = descriptor(config, CONFIG_TYPE);
    json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers })
        .to_string()
        .into_bytes()
}

pub(super) fn descriptor(blob: &Reference, media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size})
}

/// The names that are more than a tag.
fn complete_names(names: &Names) -> Vec<ImageName> {
    let complete = names.full.iter().filter(|name| name.contains(['/', ':']));
    complete.filter_map(|name| ImageName::parse(name).ok()).collect()
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
