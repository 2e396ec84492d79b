// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cache: entries are complete or absent, converted once, reclaimed after a kill.

use super::*;
use crate::testing::{Archive, Layout, Member, gzip};
use crate::{ImageReference, Platform, Prepare, PreparedImage, Progress, RootFormat, prepare};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn layout() -> Layout {
    Layout::of(&[Archive::of([Member::file("a", vec![5; 300_000]), Member::file("b", "b")]).bytes()], gzip)
}

fn convert(layout: &Layout, cache: &Path) -> PreparedImage {
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    prepare(&Prepare {
        reference: &reference,
        cache,
        platform: Platform::default(),
        format: RootFormat::default(),
        progress: None,
    })
    .unwrap()
}

#[test]
fn formats_of_an_image_have_separate_root_disks() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    let as_format = |format| {
        let platform = Platform::default();
        prepare(&Prepare { reference: &reference, cache: cache.path(), platform, format, progress: None }).unwrap()
    };
    let (erofs, squashfs) = (as_format(RootFormat::Erofs), as_format(RootFormat::Squashfs));
    assert!(!squashfs.cached && as_format(RootFormat::Erofs).cached && as_format(RootFormat::Squashfs).cached);
    assert_ne!(erofs.root_disk_digest, squashfs.root_disk_digest);
    assert!(fs::read(squashfs.root_disk).unwrap().starts_with(b"hsqs"));
    let name = erofs.image_digest.replace(':', "-");
    assert_eq!(listing(cache.path()), [name.clone(), format!("{name}.squashfs")]);
}

/// Sorted names in the directory of root disks.
fn listing(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache.join("images").join(FORMAT)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn temporary_name(image: &PreparedImage) -> String {
    format!(".{}.tmp", image.image_digest.replace(':', "-"))
}

#[test]
fn second_start_uses_the_root_disk_of_the_first() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let first = convert(&layout, cache.path());
    assert!(!first.cached);
    // Layers are not read again.
    for entry in fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]) {
            fs::remove_file(path).unwrap();
        }
    }
    let second = convert(&layout, cache.path());
    assert!(second.cached);
    assert_eq!(
        (second.root_disk_digest, second.config, second.layer_bytes),
        (first.root_disk_digest, first.config, first.layer_bytes)
    );
    assert_eq!(second.root_disk, first.root_disk);
    assert_eq!(listing(cache.path()), [second.image_digest.replace(':', "-")]);
}

#[test]
fn open_root_disk_outlives_the_cache_and_matches_its_digest() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let mut image = convert(&layout, cache.path());
    fs::remove_dir_all(cache.path().join("images")).unwrap();
    let mut bytes = Vec::new();
    image.root_disk_file.read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes).to_string(), image.root_disk_digest);
    assert_eq!(convert(&layout, cache.path()).root_disk_digest, image.root_disk_digest, "same image, same bytes");
}

#[test]
fn concurrent_starts_convert_once() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let conversions = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let image = convert(&layout, cache.path());
                conversions.fetch_add(usize::from(!image.cached), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(conversions.into_inner(), 1);
    assert_eq!(listing(cache.path()).len(), 1);
}

#[test]
fn second_conversion_waits_for_the_first() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let image = convert(&layout, cache.path());
    let digest = Digest::parse(&image.image_digest).unwrap();
    fs::remove_dir_all(image.root_disk.parent().unwrap()).unwrap();
    let store = Cache::new(cache.path(), RootFormat::Erofs);
    let Claim::Held(first) = store.claim(&digest, || panic!("no other process converts")).unwrap() else { panic!() };
    let waited = AtomicBool::new(false);
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    std::thread::scope(|scope| {
        let (waiting, wait) = std::sync::mpsc::channel();
        let waited = &waited;
        let (reference, cache) = (&reference, cache.path());
        let second = scope.spawn(move || {
            let progress = |progress| {
                if progress == Progress::Waiting {
                    waited.store(true, Ordering::Relaxed);
                    waiting.send(()).unwrap();
                }
            };
            let request = Prepare {
                reference,
                cache,
                platform: Platform::default(),
                format: RootFormat::default(),
                progress: Some(&progress),
            };
            prepare(&request).unwrap().cached
        });
        wait.recv().unwrap();
        // The first one fails: its directory is removed, and the second converts.
        drop(first);
        assert!(!second.join().unwrap());
    });
    assert!(waited.into_inner());
    assert_eq!(listing(cache.path()).len(), 1);
}

#[test]
fn directory_of_a_killed_conversion_is_reclaimed() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let image = convert(&layout, cache.path());
    fs::remove_dir_all(image.root_disk.parent().unwrap()).unwrap();
    let directory = cache.path().join("images").join(FORMAT);
    for name in [temporary_name(&image), format!(".sha256-{}.tmp", "0".repeat(64))] {
        fs::create_dir(directory.join(&name)).unwrap();
        fs::write(directory.join(&name).join("root.erofs"), "half").unwrap();
    }
    assert!(!convert(&layout, cache.path()).cached);
    assert_eq!(listing(cache.path()).len(), 1);
}

#[test]
fn damaged_entry_is_converted_again() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let image = convert(&layout, cache.path());
    let directory = image.root_disk.parent().unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| {
            let path = &image.root_disk;
            let bytes = fs::read(path).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 4096]).unwrap();
        },
        &|| fs::remove_file(&image.root_disk).unwrap(),
        &|| fs::write(directory.join(DESCRIPTION), "{").unwrap(),
        &|| fs::remove_file(directory.join(DESCRIPTION)).unwrap(),
    ];
    for damage in damages {
        damage();
        assert!(!convert(&layout, cache.path()).cached);
        assert!(convert(&layout, cache.path()).cached);
    }
}

#[test]
fn failed_conversion_leaves_nothing() {
    let layout =
        Layout::of(&[Archive::of([Member::file("a", vec![5; 300_000]), Member::file("../b", "")]).bytes()], gzip);
    let cache = tempfile::tempdir().unwrap();
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    let request = Prepare {
        reference: &reference,
        cache: cache.path(),
        platform: Platform::default(),
        format: RootFormat::default(),
        progress: None,
    };
    let error = prepare(&request).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().starts_with("layer 1 of 1 (sha256:"), "{source}");
    assert_eq!(source.source().unwrap().to_string(), "entry `../b`: its name contains `..`");
    assert!(!error.is_host());
    assert_eq!(listing(cache.path()), [""; 0]);
}

#[test]
fn cache_that_cannot_be_created_is_a_host_error() {
    let (layout, directory) = (layout(), tempfile::tempdir().unwrap());
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    let error = prepare(&Prepare {
        reference: &reference,
        cache: &file,
        platform: Platform::default(),
        format: RootFormat::default(),
        progress: None,
    })
    .unwrap_err();
    assert!(error.is_host());
    assert!(error.to_string().contains("in the image cache"), "{error}");
}

#[test]
fn interrupted_conversion_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let Ok(Claim::Held(workspace)) = Cache::new(cache.path(), RootFormat::Erofs).claim(&Digest::of(b""), || {}) else {
        panic!("the cache is empty");
    };
    fs::write(workspace.path().join("root.erofs"), "half").unwrap();
    assert_eq!(listing(cache.path()).len(), 1);
    abandon_below(cache.path());
    assert_eq!(listing(cache.path()), [""; 0]);
    assert!(workspace.create_root_disk().is_err());
}
