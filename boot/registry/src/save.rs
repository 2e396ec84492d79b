// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes images of the store as one archive: an OCI layout, with the `manifest.json` that docker
//! reads beside it. The same images give the same bytes.

use crate::store::{DescribeError, Store, StoreError, StoredImage};
use oci_image::{Digest, ImageName, Platform, Reference, TarWriter};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write};

const READ_BUF_SIZE: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{name}")]
    Describe { name: String, source: DescribeError },
    #[error("cannot read {digest} in the image store")]
    Read { digest: String, source: io::Error },
    #[error("{digest} in the image store is damaged; `coracle image check` finds what is")]
    Damaged { digest: String },
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// Writes `images` to `output`. Of an image for several platforms, `manifest.json` has the one for
/// `platform`.
pub fn save(
    store: &Store,
    images: &[StoredImage],
    platform: &Platform,
    output: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<(), SaveError> {
    let _in_use = store.in_use()?;
    let mut blobs = BTreeMap::new();
    let mut index = Vec::new();
    let mut docker: BTreeMap<Digest, (Value, Vec<String>)> = BTreeMap::new();
    for image in images {
        let description = store
            .describe(image, platform)
            .map_err(|source| SaveError::Describe { name: image.name.clone(), source })?;
        blobs.extend(store.blobs_of(&image.reference));
        index.push(entry(image));
        let of_docker = json!({
            "Config": blob_name(&description.config.digest),
            "Layers": description.layers.iter().map(|layer| blob_name(&layer.digest)).collect::<Vec<_>>(),
        });
        let (_, tags) = docker.entry(description.config.digest).or_insert((of_docker, Vec::new()));
        tags.extend(ImageName::parse(&image.name).ok().filter(|name| name.digest().is_none()).map(|name| name.short()));
    }
    let manifests: Vec<Value> = docker
        .into_values()
        .map(|(mut image, tags)| {
            image["RepoTags"] = if tags.is_empty() { Value::Null } else { tags.into() };
            image
        })
        .collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": index,
    });
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(READ_BUF_SIZE, output));
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(SaveError::Write)?;
    tar.file("index.json", index.to_string().as_bytes()).map_err(SaveError::Write)?;
    tar.file("manifest.json", Value::from(manifests).to_string().as_bytes()).map_err(SaveError::Write)?;
    let total = blobs.values().sum();
    let mut done = 0;
    for (digest, size) in blobs {
        let blob = Reference { digest, size };
        copy(store, &blob, &mut tar, &|of_blob| progress(done + of_blob, total))?;
        done += blob.size;
    }
    tar.finish().map(drop).map_err(SaveError::Write)
}

/// An entry of the index: its name as docker and containerd write it, and as podman and skopeo read it.
fn entry(image: &StoredImage) -> Value {
    let mut entry = json!({
        "mediaType": image.media_type,
        "digest": image.reference.digest.to_string(),
        "size": image.reference.size,
    });
    if !image.name.starts_with('@') {
        entry["annotations"] = json!({
            "io.containerd.image.name": image.name,
            "org.opencontainers.image.ref.name": image.name,
        });
    }
    entry
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn copy<W: Write>(
    store: &Store,
    blob: &Reference,
    tar: &mut TarWriter<W>,
    progress: &dyn Fn(u64),
) -> Result<(), SaveError> {
    let name = || blob.digest.to_string();
    let read = |source| SaveError::Read { digest: name(), source };
    let mut file = File::open(store.blob_path(&blob.digest)).map_err(read)?;
    tar.begin(&blob_name(&blob.digest), blob.size).map_err(SaveError::Write)?;
    let (mut hasher, mut length) = (blob.digest.hasher(), 0);
    let mut buffer = vec![0; READ_BUF_SIZE];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        length += count as u64;
        if length > blob.size {
            break;
        }
        hasher.update(&buffer[..count]);
        tar.write(&buffer[..count]).map_err(SaveError::Write)?;
        progress(length);
    }
    if length != blob.size || hasher.finish() != blob.digest {
        return Err(SaveError::Damaged { digest: name() });
    }
    tar.end(blob.size).map_err(SaveError::Write)
}

#[cfg(test)]
#[path = "save_tests.rs"]
mod tests;
