// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is saved is loaded again, the same.

use super::*;
use crate::load;
use oci_image::{Contents, ImageName};
use std::path::Path;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("images"));
    store.create().unwrap();
    (directory, store)
}

fn put(store: &Store, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    store.put_document(&digest, bytes).unwrap();
    json!({"mediaType": "application/octet-stream", "digest": digest.to_string(), "size": bytes.len()})
}

/// Puts an image of one layer into a store, under `names`.
fn image(store: &Store, layer: &[u8], names: &[&str]) {
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": []}, "layer": layer.len()});
    let config = put(store, config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [put(store, layer)]}).to_string();
    put(store, manifest.as_bytes());
    let reference = Reference { digest: Digest::of(manifest.as_bytes()), size: manifest.len() as u64 };
    for name in names {
        store.set_name(&ImageName::parse(name).unwrap(), &reference, "").unwrap();
    }
}

fn saved(store: &Store, images: &[StoredImage]) -> Result<Vec<u8>, SaveError> {
    let mut bytes = Vec::new();
    save(store, images, &Platform::default(), &mut bytes, &|done, total| assert!(done <= total))?;
    Ok(bytes)
}

#[test]
fn saved_images_are_loaded_with_all_their_names() {
    let (_one, store) = self::store();
    image(&store, b"layer of a", &["a", "reg.example:5000/x/a:2"]);
    image(&store, &[7; 700], &["b:1"]);
    let mut images = store.images().unwrap();
    let archive = saved(&store, &images).unwrap();
    assert_eq!(saved(&store, &images).unwrap(), archive, "the same images give the same bytes");
    assert_eq!(archive.len() % 512, 0);

    let (directory, other) = self::store();
    let contents = Contents::read(archive.as_slice(), Path::new("archive"), directory.path()).unwrap();
    let loaded = load(&other, &contents, &|done, total| assert!(done <= total)).unwrap();
    let names: Vec<usize> = loaded.iter().map(|image| image.names.len()).collect();
    assert_eq!(names, [2, 1]);
    let mut found = other.images().unwrap();
    images.sort_by(|one, other| one.name.cmp(&other.name));
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(found, images);
    assert!(images.iter().all(|image| other.blobs_of(&image.reference) == store.blobs_of(&image.reference)));
    // The tags of docker's list, which is read where there is no index.
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains(r#""RepoTags":["a:latest","reg.example:5000/x/a:2"]"#), "{text}");
}

#[test]
fn damaged_blob_is_not_saved() {
    let (_directory, store) = store();
    image(&store, b"layer of a", &["a"]);
    std::fs::write(store.blob_path(&Digest::of(b"layer of a")), b"changed...").unwrap();
    let error = saved(&store, &store.images().unwrap()).unwrap_err();
    assert!(matches!(error, SaveError::Damaged { .. }), "{error}");
    std::fs::remove_file(store.blob_path(&Digest::of(b"layer of a"))).unwrap();
    let error = saved(&store, &store.images().unwrap()).unwrap_err();
    assert!(matches!(error, SaveError::Describe { .. }), "{error}");
}

#[test]
fn load_continues_what_an_interrupted_one_left() {
    let (_one, store) = self::store();
    image(&store, &[9; 5000], &["a"]);
    let archive = saved(&store, &store.images().unwrap()).unwrap();
    let (directory, other) = self::store();
    for left in [&[9; 100][..], &[1; 100], &[9; 6000]] {
        let layer = Digest::of(&[9; 5000]);
        let _ = std::fs::remove_file(other.blob_path(&layer));
        let partial = other.scratch().join(format!("sha256-{}", layer.hex()));
        std::fs::write(partial, left).unwrap();
        let contents = Contents::read(archive.as_slice(), Path::new("archive"), directory.path()).unwrap();
        load(&other, &contents, &|_, _| {}).unwrap();
        assert_eq!(std::fs::read(other.blob_path(&layer)).unwrap(), [9; 5000]);
    }
}
