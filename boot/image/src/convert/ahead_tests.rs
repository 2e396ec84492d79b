// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers that are converted before their image is complete.

use super::*;
use crate::layer_files::DATA;
use crate::platform::Platform;
use crate::prepare::{Prepare, PreparedImage, prepare};
use crate::reference::ImageReference;
use crate::testing::{Archive, Layout, Member, gzip_best};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// A layout of an image, its manifest, and the digests of its layers' files.
struct Pulled {
    layout: Layout,
    manifest: Reference,
    blobs: Vec<Digest>,
}

impl Pulled {
    fn of(layers: &[Vec<u8>]) -> Self {
        let layout = Layout::of(layers, gzip_best);
        let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
        let digest = |descriptor: &Value| Digest::parse(descriptor["digest"].as_str().unwrap()).unwrap();
        let entry = &index["manifests"][0];
        let manifest = Reference { digest: digest(entry), size: entry["size"].as_u64().unwrap() };
        let document = fs::read(layout.blob_path(&manifest.digest.to_string())).unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        let blobs = document["layers"].as_array().unwrap().iter().map(digest).collect();
        Self { layout, manifest, blobs }
    }

    fn open(&self, cache: &Path) -> Option<LayersAhead> {
        LayersAhead::open(self.layout.path(), &self.manifest, cache, 1).unwrap()
    }

    fn prepare(&self, cache: &Path) -> PreparedImage {
        let reference = ImageReference::OciLayout { path: self.layout.path().into(), tag: None };
        let (platform, format) = (Platform::default(), RootFormat::default());
        prepare(&Prepare { reference: &reference, cache, platform, format, progress: None }).unwrap()
    }
}

fn convert(ahead: &LayersAhead, blob: &Digest) -> Result<(), ConvertError> {
    ahead.convert(blob, &|| false, &|_| {})
}

fn layer(name: &str, byte: u8) -> Vec<u8> {
    Archive::of([Member::file(name, vec![byte; 100_000])]).bytes()
}

/// The directories of the layers in a cache.
fn converted(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("layers/v1")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn inode(layer: &Path) -> u64 {
    fs::metadata(layer.join(DATA)).unwrap().ino()
}

#[test]
fn layers_are_converted_while_others_are_missing() {
    let (pulled, cache) = (Pulled::of(&[layer("a", 1), layer("b", 2)]), tempfile::tempdir().unwrap());
    let cache = cache.path();
    let of_second = pulled.layout.blob_path(&pulled.blobs[1].to_string());
    let second = fs::read(&of_second).unwrap();
    fs::remove_file(&of_second).unwrap();
    let ahead = pulled.open(cache).unwrap();
    let read = std::cell::Cell::new(0);
    ahead.convert(&pulled.blobs[0], &|| false, &|bytes| read.set(bytes)).unwrap();
    let of_first = fs::metadata(pulled.layout.blob_path(&pulled.blobs[0].to_string())).unwrap().len();
    assert_eq!((converted(cache).len(), read.get()), (1, of_first));
    assert!(convert(&ahead, &pulled.blobs[1]).is_err(), "its file is missing");
    assert_eq!(converted(cache).len(), 1, "nothing of the other one is left");

    fs::write(&of_second, &second).unwrap();
    ahead.convert(&pulled.blobs[1], &|| false, &|bytes| read.set(bytes)).unwrap();
    assert_eq!(read.get(), of_first + second.len() as u64);
    let mut made: Vec<u64> = converted(cache).iter().map(|layer| inode(layer)).collect();
    let image = pulled.prepare(cache);
    let mut used: Vec<u64> =
        image.root_disk.parts()[1..].iter().map(|part| part.file.metadata().unwrap().ino()).collect();
    made.sort_unstable();
    used.sort_unstable();
    assert_eq!(used, made, "the image has the layers that were made before");
    assert!(pulled.open(cache).is_none(), "there is a root disk");
}

#[test]
fn layer_of_several_images_is_converted_once() {
    let base = layer("base", 1);
    let [one, two] = [2, 3].map(|byte| Pulled::of(&[base.clone(), layer("top", byte)]));
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path();
    let (first, second) = (one.open(cache).unwrap(), two.open(cache).unwrap());
    let Claim::Held(workspace) = first.cache.claim(&first.image.layers[0].diff_id, || {}).unwrap() else { panic!() };
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| convert(&second, &two.blobs[0]));
        convert_layer(&first.image, 0, &workspace, &Budget::default(), &|_| false, &|_| {}).unwrap();
        let made = fs::metadata(converted(cache)[0].join(DATA)).unwrap().ino();
        assert!(!waits.is_finished(), "it waits for the process that has the claim");
        workspace.publish().unwrap();
        waits.join().unwrap().unwrap();
        assert_eq!(converted(cache).iter().map(|layer| inode(layer)).collect::<Vec<_>>(), [made]);
    });
}

#[test]
fn layers_together_take_no_more_than_an_image_may() {
    // Each is below the bound that has no ratio; together they are above it.
    let big = |byte: u8| Archive::of([Member::file("a", vec![byte; 600 << 10])]).bytes();
    let (pulled, cache) = (Pulled::of(&[1, 2, 3, 4].map(big)), tempfile::tempdir().unwrap());
    let ahead = pulled.open(cache.path()).unwrap();
    convert(&ahead, &pulled.blobs[3]).unwrap();
    for blob in &pulled.blobs[..3] {
        let error = convert(&ahead, blob).unwrap_err();
        assert!(matches!(error, ConvertError::Layer(LayerError::Ratio { .. })), "{error:?}");
    }
    assert_eq!(converted(cache.path()).len(), 1);
}

#[test]
fn conversion_that_is_not_wanted_ends_and_leaves_nothing() {
    let (pulled, cache) = (Pulled::of(&[layer("a", 1)]), tempfile::tempdir().unwrap());
    let ahead = pulled.open(cache.path()).unwrap();
    assert!(ahead.convert(&pulled.blobs[0], &|| true, &|_| {}).is_err());
    assert!(converted(cache.path()).is_empty());
    convert(&ahead, &pulled.blobs[0]).unwrap();
    convert(&ahead, &Digest::of(b"of another image")).unwrap();
    assert_eq!(converted(cache.path()).len(), 1);
}

#[test]
fn manifest_without_an_image_is_an_error() {
    let layout = Layout::new();
    let document = layout.document(&serde_json::json!({"manifests": []}));
    let digest = Digest::parse(document["digest"].as_str().unwrap()).unwrap();
    let manifest = Reference { digest, size: document["size"].as_u64().unwrap() };
    let cache = tempfile::tempdir().unwrap();
    let error = LayersAhead::open(layout.path(), &manifest, cache.path(), 1).err().unwrap();
    assert!(matches!(error, Error::Image { source: crate::ImageError::NotAManifest(_), .. }), "{error}");
}
