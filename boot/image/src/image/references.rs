// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a manifest or an index refers to: for programs that bring an image here, or keep one. Pure.

use super::documents::{self, Descriptor, Document, ImageDocument};
use super::{ImageError, listing, platform_name};
use crate::digest::Digest;
use crate::platform::Platform;

/// A document or a blob with its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub digest: Digest,
    pub size: u64,
}

impl Reference {
    /// Of a document that is made here.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum References {
    /// Of an index: manifests, and indexes in it.
    Manifests(Vec<Reference>),
    /// Of a manifest: its configuration, then its layers from the lowest.
    Blobs(Vec<Reference>),
}

/// Reads `bytes`, a manifest or an index named `name` in messages. With `platform`, of an index only
/// the images that run there, the best first, and of those that suit equally in their order; none is
/// an error, as is a manifest of something else than an image.
pub fn references(bytes: &[u8], name: &str, platform: Option<&Platform>) -> Result<References, ImageError> {
    match (Document::parse(bytes, name)?, platform) {
        (Document::Index(entries), None) => Ok(References::Manifests(all(&entries)?)),
        (Document::Index(entries), Some(platform)) => Ok(References::Manifests(suitable(&entries, platform)?)),
        (Document::Manifest(manifest), platform) => {
            if platform.is_some() && manifest.is_artifact() {
                return Err(ImageError::NotAnImage(name.into()));
            }
            let mut blobs = all(std::slice::from_ref(&manifest.config))?;
            blobs.extend(all(&manifest.layers)?);
            Ok(References::Blobs(blobs))
        }
    }
}

fn all(descriptors: &[Descriptor]) -> Result<Vec<Reference>, ImageError> {
    descriptors.iter().map(reference).collect()
}

fn reference(descriptor: &Descriptor) -> Result<Reference, ImageError> {
    Ok(Reference { digest: Digest::parse(&descriptor.digest)?, size: descriptor.size })
}

fn suitable(entries: &[Descriptor], platform: &Platform) -> Result<Vec<Reference>, ImageError> {
    let mut found = Vec::new();
    let mut others = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_record()) {
        let rank = match &entry.platform {
            // Its configuration decides.
            None => Some(0),
            Some(of_entry) => {
                let variant = of_entry.variant.as_deref().unwrap_or_default();
                let rank = platform.rank(&of_entry.os, &of_entry.architecture, variant);
                if rank.is_none() {
                    others.push(platform_name(&of_entry.os, &of_entry.architecture, variant));
                }
                rank
            }
        };
        found.extend(rank.map(|rank| (rank, entry)));
    }
    if found.is_empty() {
        return Err(ImageError::Platform { wanted: platform.clone(), available: listing(&others) });
    }
    found.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    found.into_iter().map(|(_, entry)| reference(entry)).collect()
}

/// The diff ids of a configuration; none if it is not one of an image.
#[must_use]
pub fn diff_ids(bytes: &[u8]) -> Vec<Digest> {
    let document: Option<ImageDocument> = serde_json::from_slice(bytes).ok();
    let diff_ids = document.and_then(|document| document.rootfs?.diff_ids).unwrap_or_default();
    diff_ids.iter().map(|id| Digest::parse(id)).collect::<Result<_, _>>().unwrap_or_default()
}

/// Checks that a configuration is one of an image for `platform`.
pub fn check_platform(bytes: &[u8], name: &str, platform: &Platform) -> Result<(), ImageError> {
    let document: ImageDocument = documents::parse(bytes, name)?;
    let other = super::rank(&document, platform).err();
    other.map_or(Ok(()), |available| Err(ImageError::Platform { wanted: platform.clone(), available }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(name: &str) -> String {
        Digest::of(name.as_bytes()).to_string()
    }

    fn manifests(platform: &str, entries: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let entries = entries.iter().map(|(name, platform)| {
            let mut entry = json!({"digest": digest(name), "size": 1});
            if let [os, architecture, variant] = platform.split('/').collect::<Vec<_>>()[..] {
                entry["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
            }
            entry
        });
        let index = json!({"manifests": entries.collect::<Vec<_>>()}).to_string();
        let platform = platform.parse().unwrap();
        match references(index.as_bytes(), "index", Some(&platform)) {
            Ok(References::Manifests(found)) => Ok(found.iter().map(|found| found.digest.to_string()).collect()),
            Ok(References::Blobs(_)) => panic!("it is an index"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn best_image_of_an_index_is_first() {
        let all = [
            ("record", "unknown/unknown/"),
            ("arm", "linux/arm64/v8"),
            ("any", ""),
            ("one", "linux/amd64/"),
            ("two", "linux/amd64/v2"),
            ("three", "linux/amd64/v3"),
        ];
        let names = |names: &[&str]| Ok(names.iter().map(|name| digest(name)).collect::<Vec<_>>());
        assert_eq!(manifests("linux/amd64/v2", &all), names(&["two", "one", "any"]));
        assert_eq!(manifests("linux/amd64/v1", &all), names(&["one", "any"]));
        let none = manifests("linux/amd64", &all[..2]).unwrap_err();
        assert_eq!(none, "no image for linux/amd64 (there is: linux/arm64/v8)");
    }

    #[test]
    fn blobs_of_a_manifest_begin_with_its_configuration() {
        let descriptor = |name: &str| json!({"digest": digest(name), "size": 7});
        let manifest = json!({"config": descriptor("c"), "layers": [descriptor("a"), descriptor("b")]}).to_string();
        let platform = Platform::default();
        let Ok(References::Blobs(blobs)) = references(manifest.as_bytes(), "m", Some(&platform)) else { panic!() };
        let digests: Vec<String> = blobs.iter().map(|blob| blob.digest.to_string()).collect();
        assert_eq!((digests, blobs[0].size), (vec![digest("c"), digest("a"), digest("b")], 7));
        let artifact = json!({"artifactType": "x/y", "config": descriptor("c"), "layers": []}).to_string();
        assert!(matches!(references(artifact.as_bytes(), "m", Some(&platform)), Err(ImageError::NotAnImage(_))));
        assert!(references(artifact.as_bytes(), "m", None).is_ok());
        let traversal = json!({"config": {"digest": "sha256:../x", "size": 1}, "layers": []}).to_string();
        assert!(matches!(references(traversal.as_bytes(), "m", None), Err(ImageError::Digest(_))));
    }

    #[test]
    fn configuration_for_another_platform_is_rejected() {
        let check = |json: &str| check_platform(json.as_bytes(), "c", &Platform::default());
        assert!(check(r#"{"os":"linux","architecture":"amd64"}"#).is_ok() && check("{}").is_ok());
        assert!(matches!(check(r#"{"os":"linux","architecture":"arm64"}"#), Err(ImageError::Platform { .. })));
    }
}
