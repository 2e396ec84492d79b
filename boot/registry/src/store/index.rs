// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `index.json`: a list of names with their manifests. Fields that other tools wrote are kept.

use super::{StoreError, StoredImage};
use oci_image::{Digest, Reference};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// What a start reads as a document at most.
pub(super) const MAX_INDEX_SIZE: u64 = 4 << 20;
const NAME: &str = "org.opencontainers.image.ref.name";
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Entry(Map<String, Value>);

impl Default for Index {
    fn default() -> Self {
        let other = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"});
        let Value::Object(other) = other else { unreachable!("it is an object") };
        Self { manifests: Vec::new(), other }
    }
}

impl Index {
    /// A missing file is an empty index.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(|source| StoreError::new("open", path, source))?,
        };
        let mut text = Vec::new();
        let read = file.take(MAX_INDEX_SIZE + 1).read_to_end(&mut text);
        let length = read.map_err(|source| StoreError::new("read", path, source))? as u64;
        if length > MAX_INDEX_SIZE {
            return Err(StoreError::IndexTooLarge { path: path.to_owned(), length });
        }
        serde_json::from_slice(&text).map_err(|source| StoreError::Index { path: path.to_owned(), source })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("every value has a JSON form")
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.manifests.iter()
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.manifests.push(entry);
    }

    /// Removes the entries with this name, or without one and with this digest; false if there are none.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.manifests.len();
        self.manifests.retain(|entry| entry.image().is_none_or(|image| image.name != name));
        self.manifests.len() < before
    }
}

impl Entry {
    pub(super) fn new(name: &str, image: &Reference, media_type: &str) -> Self {
        let media_type = if media_type.is_empty() { MEDIA_TYPE } else { media_type };
        let entry = json!({
            "mediaType": media_type,
            "digest": image.digest.to_string(),
            "size": image.size,
            "annotations": {NAME: name},
        });
        let Value::Object(entry) = entry else { unreachable!("it is an object") };
        Self(entry)
    }

    pub(super) fn unnamed(image: &Reference, media_type: &str) -> Self {
        let mut entry = Self::new("", image, media_type);
        entry.0.remove("annotations");
        entry
    }

    fn name(&self) -> Option<&str> {
        self.0.get("annotations")?.get(NAME)?.as_str()
    }

    /// `None` for an entry without a valid digest. Without a name, the digest stands for it.
    pub(super) fn image(&self) -> Option<StoredImage> {
        let digest = Digest::parse(self.0.get("digest")?.as_str()?).ok()?;
        let name = self.name().map_or_else(|| format!("@{digest}"), str::to_owned);
        let media_type = self.0.get("mediaType").and_then(Value::as_str).unwrap_or_default().to_owned();
        let size = self.0.get("size")?.as_u64()?;
        Some(StoredImage { name, reference: Reference { digest, size }, media_type })
    }
}
