// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Brings an image of the store to a registry: blobs that it lacks, several at a time, then the
//! documents, those that others refer to first.

use crate::client::{BegunUpload, ClientError, Credentials, MAX_DOCUMENT_SIZE, Repository, Upload};
use crate::parallel::{Attempts, StartError, for_each, with_retries};
use crate::registries_conf::{Registries, RegistriesError};
use crate::store::{DescribeError, Store, StoreError, StoredImage};
use oci_image::{Digest, ImageError, ImageName, MAX_INDEX_DEPTH, Platform, Reference, References, references};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub struct Push<'a> {
    pub image: &'a StoredImage,
    pub target: &'a ImageName,
    pub store: &'a Store,
    /// Of an index whose images are not all here, the one for this platform is pushed.
    pub platform: &'a Platform,
    pub credentials: &'a Credentials,
    pub registries: &'a Registries,
    pub verify: bool,
    /// Called with the bytes of the blobs that are there and of all, by several threads.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest or index that the tag stands for now.
    pub digest: Digest,
    pub size: u64,
    /// Blobs that were sent, taken from another repository of the registry, or there already.
    pub sent: usize,
    pub mounted: usize,
    pub present: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot push {name}")]
pub struct PushError {
    name: String,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Describe(#[from] DescribeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Thread(#[from] StartError),
    #[error("{0} is missing or damaged in the image store")]
    Missing(Digest),
    #[error("the image index is nested too deeply")]
    TooDeep,
}

impl PushError {
    /// Whether the cause is this host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self.source, Cause::Store(_) | Cause::Thread(_))
    }
}

/// A manifest or an index, with its bytes.
struct Document {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, u64>,
    documents: Vec<Document>,
}

/// Pushes an image under the tag of its target.
pub fn push(request: &Push<'_>) -> Result<Pushed, PushError> {
    try_push(request).map_err(|source| PushError { name: request.target.short(), source })
}

fn try_push(request: &Push<'_>) -> Result<Pushed, Cause> {
    let &Push { image, target, store, platform, credentials, registries, verify, progress } = request;
    let _in_use = store.in_use()?;
    let mut plan = Plan::default();
    if !plan.add(store, &image.reference, 0)? {
        let manifest = store.describe(image, platform)?.manifest;
        let size = store.read_document(&manifest, MAX_DOCUMENT_SIZE).map_or(0, |bytes| bytes.len() as u64);
        plan = Plan::default();
        plan.add(store, &Reference { digest: manifest, size }, 0)?;
    }
    let from = other_repository(store, image, target)?;
    let endpoint = registries.for_push(target)?;
    // Of a registry in another place the other repositories' names are not known.
    let from = from.filter(|_| endpoint.repository == target.repository());
    let repository = Repository::connect(&endpoint, credentials, verify)?.for_push(from.as_deref());
    let blobs: Vec<Reference> = plan.blobs.into_iter().map(|(digest, size)| Reference { digest, size }).collect();
    let total = blobs.iter().map(|blob| blob.size).sum();
    let (done, counts) = (AtomicU64::new(0), [const { AtomicUsize::new(0) }; 3]);
    for_each(&blobs, "push", &AtomicBool::new(false), |blob| {
        let path = store.blob_path(&blob.digest);
        let outcome = upload(&repository, blob, &path, from.as_deref())?;
        log::debug!("{}: {outcome:?}", blob.digest);
        counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        progress(done.fetch_add(blob.size, Ordering::Relaxed) + blob.size, total);
        Ok::<(), Cause>(())
    })?;
    let (root, others) = plan.documents.split_last().expect("a plan has a root");
    for document in others {
        let put = || repository.put_manifest(&document.digest.to_string(), &document.media_type, &document.bytes);
        with_retries(put)?;
    }
    let tag = target.tag().unwrap_or("latest");
    with_retries(|| repository.put_manifest(tag, &root.media_type, &root.bytes))?;
    let [present, mounted, sent] = counts.map(AtomicUsize::into_inner);
    Ok(Pushed { digest: root.digest.clone(), size: root.bytes.len() as u64, sent, mounted, present })
}

/// Attempts to bring a blob to the registry until it is there, or too many brought nothing.
fn upload(repository: &Repository, blob: &Reference, path: &Path, from: Option<&str>) -> Result<Upload, ClientError> {
    let (mut begun, mut attempts) = (BegunUpload::default(), Attempts::new());
    loop {
        let before = begun.received();
        match repository.upload(blob, path, from, &mut begun) {
            Err(error) if error.is_temporary() && attempts.again(begun.received() > before) => {
                log::debug!("{}: {error}; trying again", blob.digest);
            }
            other => return other,
        }
    }
}

impl Plan {
    /// Adds a document and everything that it leads to; false if an image of an index is not here.
    fn add(&mut self, store: &Store, document: &Reference, depth: usize) -> Result<bool, Cause> {
        if depth > MAX_INDEX_DEPTH {
            return Err(Cause::TooDeep);
        }
        let missing = |digest: &Digest| Cause::Missing(digest.clone());
        let digest = &document.digest;
        let bytes = store.read_document(digest, MAX_DOCUMENT_SIZE).ok_or_else(|| missing(digest))?;
        match references(&bytes, &digest.to_string(), None)? {
            References::Blobs(blobs) => {
                for blob in blobs {
                    if !store.has(&blob) {
                        return Err(missing(&blob.digest));
                    }
                    self.blobs.insert(blob.digest, blob.size);
                }
            }
            References::Manifests(entries) => {
                for entry in entries {
                    if !store.has(&entry) || !self.add(store, &entry, depth + 1)? {
                        return Ok(false);
                    }
                }
            }
        }
        if self.documents.iter().all(|known| known.digest != *digest) {
            self.documents.push(Document { digest: digest.clone(), media_type: media_type(&bytes), bytes });
        }
        Ok(true)
    }
}

/// The media type that a document declares, or the one that its fields mean.
fn media_type(bytes: &[u8]) -> String {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let declared =
        document["mediaType"].as_str().filter(|declared| declared.bytes().all(|byte| byte.is_ascii_graphic()));
    let kind = if document["manifests"].is_array() { "index" } else { "manifest" };
    declared.map_or_else(|| format!("application/vnd.oci.image.{kind}.v1+json"), str::to_owned)
}

/// Another repository of the target's registry that has the image by a name of this store.
fn other_repository(store: &Store, image: &StoredImage, target: &ImageName) -> Result<Option<String>, StoreError> {
    let names = store.images()?.into_iter().filter(|other| other.reference == image.reference);
    let mut names = names.filter_map(|other| ImageName::parse(&other.name).ok());
    let other = names.find(|name| name.registry() == target.registry() && name.repository() != target.repository());
    Ok(other.map(|name| name.repository().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_is_declared_or_follows_from_the_fields() {
        for (document, expected) in [
            (
                r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#,
                "application/vnd.docker.distribution.manifest.v2+json",
            ),
            (r#"{"manifests":[]}"#, "application/vnd.oci.image.index.v1+json"),
            (r#"{"layers":[]}"#, "application/vnd.oci.image.manifest.v1+json"),
            ("{\"mediaType\":\"a\\r\\nb: c\"}", "application/vnd.oci.image.manifest.v1+json"),
        ] {
            assert_eq!(media_type(document.as_bytes()), expected);
        }
    }
}
