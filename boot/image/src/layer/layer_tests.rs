// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers in every compression, and damaged ones.

use super::*;
use crate::budget::Budget;
use crate::digest::Digest;
use crate::image::Image;
use crate::platform::Platform;
use crate::reference::ImageReference;
use crate::testing::{Archive, Layout, Member, gzip, gzip_best, zstd};
use serde_json::{Value, json};
use std::io::Read as _;

fn layer() -> Vec<u8> {
    let data: Vec<u8> = (0..600_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    Archive::of([Member::file("a", data)]).bytes()
}

/// Reads all layers of an image whose single layer is the file `packed`, with this diff id.
fn read(packed: &[u8], diff_id: &Digest) -> Result<Vec<u8>, LayerError> {
    read_with(packed, diff_id, |_| {})
}

fn read_with(packed: &[u8], diff_id: &Digest, damage: impl FnOnce(&std::path::Path)) -> Result<Vec<u8>, LayerError> {
    let layout = Layout::new();
    let blob = layout.blob(packed);
    let config = layout.document(&json!({"rootfs": {"diff_ids": [diff_id.to_string()]}}));
    let manifest: Value = json!({"config": config, "layers": [blob]});
    layout.index(&[layout.document(&manifest)]);
    damage(&layout.blob_path(blob["digest"].as_str().unwrap()));
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    let image = Image::open(&reference, &Platform::default(), &std::env::temp_dir(), &Budget::default()).unwrap();
    let mut bytes = Vec::new();
    with_layer(&image, &image.layers[0], &Budget::default(), &|_| false, |stream| {
        stream.read_to_end(&mut bytes).expect("errors of the file are returned at its end");
        Ok::<(), LayerError>(())
    })?;
    Ok(bytes)
}

#[test]
fn plain_gzip_and_zstd_layers_are_detected() {
    let layer = layer();
    for packed in [layer.clone(), gzip(&layer), zstd(&layer)] {
        assert!(read(&packed, &Digest::of(&layer)).unwrap() == layer);
    }
}

#[test]
fn concatenated_members_and_frames_are_one_stream() {
    let layer = layer();
    let (head, tail) = layer.split_at(100_000);
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"stuff"].concat();
    let packed = [gzip(head), gzip(&[]), gzip(tail)].concat();
    assert!(read(&packed, &Digest::of(&layer)).unwrap() == layer);
    let packed = [skippable.clone(), zstd(head), skippable, zstd(tail)].concat();
    assert!(read(&packed, &Digest::of(&layer)).unwrap() == layer);
}

#[test]
fn empty_layer_may_be_an_empty_file() {
    assert_eq!(read(b"", &Digest::of(b"")).unwrap(), b"");
    assert_eq!(read(&gzip(b""), &Digest::of(b"")).unwrap(), b"");
}

#[test]
fn trailing_garbage_and_a_truncated_stream_are_errors() {
    let layer = layer();
    for (packed, name) in [(gzip(&layer), "gzip"), (zstd(&layer), "zstd")] {
        for broken in [
            [&packed[..], b"garbage"].concat(),
            packed[..packed.len() - 5].to_vec(),
            packed[..packed.len() / 2].to_vec(),
        ] {
            match read(&broken, &Digest::of(&layer)) {
                Err(LayerError::Decompress { compression, .. }) => assert_eq!(compression, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn changed_layer_is_reported_by_its_digest() {
    let layer = layer();
    for packed in [layer.clone(), gzip(&layer), zstd(&layer)] {
        for at in [600, packed.len() / 2, packed.len() - 1] {
            let change = |path: &std::path::Path| {
                let mut bytes = std::fs::read(path).unwrap();
                bytes[at] ^= 0x10;
                std::fs::write(path, bytes).unwrap();
            };
            let result = read_with(&packed, &Digest::of(&layer), change);
            assert!(matches!(result, Err(LayerError::Digest { .. })), "{at}: {result:?}");
        }
    }
    let result = read_with(&layer, &Digest::of(&layer), |path| std::fs::write(path, b"short").unwrap());
    assert!(matches!(result, Err(LayerError::Source(SourceError::Size { .. }))));
    let result = read_with(&layer, &Digest::of(&layer), |path| std::fs::remove_file(path).unwrap());
    assert!(matches!(result, Err(LayerError::Source(SourceError::Missing { .. }))));
}

#[test]
fn wrong_diff_id_is_detected_even_if_it_is_the_digest() {
    let layer = layer();
    for packed in [layer.clone(), gzip(&layer)] {
        let result = read(&packed, &Digest::of(b"other"));
        assert!(matches!(result, Err(LayerError::DiffId { .. })), "{result:?}");
    }
    let packed = gzip(&layer);
    assert!(matches!(read(&packed, &Digest::of(&packed)), Err(LayerError::DiffId { .. })));
}

#[test]
fn unknown_compression_is_named() {
    let message = |packed: &[u8]| read(packed, &Digest::of(b"")).unwrap_err().to_string();
    assert!(message(b"\xfd7zXZ\0 and so on").ends_with("unknown compression (xz is not supported)"));
    assert!(message(b"BZh91AY&SY").contains("bzip2"));
    assert!(message(&b"neither this nor that ".repeat(100)).ends_with("unknown compression"));
    assert!(message(b"x").ends_with("unknown compression"));
}

#[test]
fn bomb_is_an_error() {
    // Constant data: some 1000:1.
    let layer = Archive::of([Member::file("a", vec![7; 3 << 20])]).bytes();
    let packed = gzip_best(&layer);
    assert!(packed.len() * 200 < layer.len());
    assert!(matches!(read(&packed, &Digest::of(&layer)), Err(LayerError::Ratio { .. })));
    // Zeros are not stored, so more of them are accepted.
    let zeros = Archive::of([Member::file("a", vec![0; 3 << 20])]).bytes();
    assert_eq!(read(&gzip_best(&zeros), &Digest::of(&zeros)).unwrap(), zeros);
    let many = Archive::of([Member::file("a", vec![0; 17 << 20])]).bytes();
    assert!(matches!(read(&gzip_best(&many), &Digest::of(&many)), Err(LayerError::Ratio { .. })));
}

#[test]
fn layer_that_is_unwanted_ends_early() {
    let layout = Layout::of(&[layer()], gzip);
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    let image = Image::open(&reference, &Platform::default(), &std::env::temp_dir(), &Budget::default()).unwrap();
    let result = with_layer(&image, &image.layers[0], &Budget::default(), &|_| true, |stream| {
        let source = stream.read_to_end(&mut Vec::new()).unwrap_err();
        Err(LayerError::Read { name: "the end".into(), source })
    });
    assert!(matches!(result, Err(LayerError::Read { name, .. }) if name == "the end"));
}

#[test]
fn wrong_digest_takes_precedence_over_an_error_of_the_content() {
    let layout = Layout::of(&[layer(), layer()], gzip);
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    let image = Image::open(&reference, &Platform::default(), &std::env::temp_dir(), &Budget::default()).unwrap();
    let fail = || {
        let error = || Err(LayerError::TooLarge { name: "the conversion".into() });
        with_layer(&image, &image.layers[0], &Budget::default(), &|_| false, |_| error()).unwrap_err()
    };
    assert!(matches!(fail(), LayerError::TooLarge { .. }), "the file is right, so the other error is returned");
    let path = layout.blob_path(&image.layers[0].name());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(fail(), LayerError::Digest { .. }));
}
