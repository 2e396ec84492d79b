// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cache: entries are complete or absent, converted once, reclaimed after a kill.

use super::entry::abandon_below;
use super::root_disks::{DESCRIPTION, DIRECTORY};
use super::*;
use crate::digest::Digest;
use crate::testing::{Archive, Layout, Member, gzip, gzip_best, zstd};
use crate::{ConvertError, Error, ImageReference, Platform, Prepare, PreparedImage, Progress, RootFormat, prepare};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn layout() -> Layout {
    Layout::of(&[Archive::of([Member::file("a", vec![5; 300_000]), Member::file("b", "b")]).bytes()], gzip)
}

fn convert(layout: &Layout, cache: &Path) -> PreparedImage {
    try_convert(layout, cache).unwrap()
}

fn try_convert(layout: &Layout, cache: &Path) -> Result<PreparedImage, Error> {
    let reference = ImageReference::OciLayout { path: layout.path().into(), tag: None };
    prepare(&Prepare {
        reference: &reference,
        cache,
        platform: Platform::default(),
        format: RootFormat::default(),
        progress: None,
    })
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
    assert!(fs::read(squashfs.root_disk.path()).unwrap().starts_with(b"hsqs"));
    let name = erofs.chain_id.replace(':', "-");
    assert_eq!(listing(cache.path()), [name.clone(), format!("{name}.squashfs")]);
}

/// Sorted names in the directory of root disks.
fn listing(cache: &Path) -> Vec<String> {
    names(&cache.join(DIRECTORY))
}

/// Sorted names in the directory of layers.
fn layers(cache: &Path) -> Vec<String> {
    names(&cache.join("layers/v1"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn temporary_name(image: &PreparedImage) -> String {
    format!(".{}.tmp", image.chain_id.replace(':', "-"))
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
        (&second.root_disk_digest, &second.config, second.layer_bytes),
        (&first.root_disk_digest, &first.config, first.layer_bytes)
    );
    let paths = |image: &PreparedImage| -> Vec<PathBuf> {
        image.root_disk.parts().iter().map(|part| part.path.clone()).collect()
    };
    assert_eq!(paths(&second), paths(&first));
    assert_eq!(listing(cache.path()), [second.chain_id.replace(':', "-")]);
}

#[test]
fn open_root_disk_outlives_the_cache_and_its_digest_covers_all_of_it() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let image = convert(&layout, cache.path());
    fs::remove_dir_all(cache.path().join("images")).unwrap();
    fs::remove_dir_all(cache.path().join("layers")).unwrap();
    let [own, data] = image.root_disk.parts() else { panic!("{:?}", image.root_disk) };
    let mut bytes = vec![0; own.bytes() as usize];
    image.root_disk.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(Digest::of(&bytes).to_string(), image.root_disk_digest);
    // The list of the layers whose data follows.
    let line = format!("{} {}\n", image.chain_id, data.bytes());
    assert!(bytes.windows(line.len()).any(|window| window == line.as_bytes()), "a chain of one layer is its diff id");
    assert_eq!(convert(&layout, cache.path()).root_disk_digest, image.root_disk_digest, "same image, same bytes");
}

#[test]
fn images_share_layers_and_root_disks() {
    let archive = |name: &str, byte: u8| Archive::of([Member::file(name, vec![byte; 100_000])]).bytes();
    let (base, one, two) = (archive("base", 1), archive("one", 2), archive("two", 3));
    let cache = tempfile::tempdir().unwrap();
    let first = convert(&Layout::of(&[base.clone(), one.clone()], gzip), cache.path());
    let second = convert(&Layout::of(&[base.clone(), two], gzip_best), cache.path());
    let inodes = |image: &PreparedImage| -> Vec<u64> {
        image.root_disk.parts()[1..].iter().map(|part| part.file.metadata().unwrap().ino()).collect()
    };
    let (of_first, of_second) = (inodes(&first), inodes(&second));
    assert_eq!((of_first.len(), of_first[0]), (2, of_second[0]), "the base is one file");
    assert_ne!(of_first[1], of_second[1]);
    assert_eq!(layers(cache.path()).len(), 3);
    // The same content in another compression is another image with the same root disk.
    let third = convert(&Layout::of(&[base, one], zstd), cache.path());
    assert_ne!(third.image_digest, first.image_digest);
    assert!(third.cached);
    assert_eq!((&third.chain_id, inodes(&third)), (&first.chain_id, of_first));
    assert_eq!(listing(cache.path()).len(), 2);
}

#[test]
fn image_of_as_many_layers_as_docker_allows_is_one_disk() {
    let layer = |n: u8| Archive::of([Member::file(format!("f{n}"), vec![n; 5000]), Member::file("top", [n])]).bytes();
    let layout = Layout::of(&(0..127).map(layer).collect::<Vec<_>>(), gzip);
    let cache = tempfile::tempdir().unwrap();
    let image = convert(&layout, cache.path());
    assert_eq!(image.root_disk.parts().len(), 128);
    let mut bytes = vec![0; image.root_disk.bytes() as usize];
    image.root_disk.read_exact_at(&mut bytes, 0).unwrap();
    let files = crate::testing::read_back(&bytes);
    assert!((0..127).all(|n| files[&format!("/f{n}")].content == vec![n; 5000]));
    assert_eq!(files["/top"].content, [126]);
}

#[test]
fn layer_that_vanished_or_shrank_is_converted_again() {
    let base = Archive::of([Member::file("base", vec![1; 100_000])]).bytes();
    let layout = Layout::of(&[base, Archive::of([Member::file("top", vec![2; 100_000])]).bytes()], gzip);
    let cache = tempfile::tempdir().unwrap();
    let image = convert(&layout, cache.path());
    let layer = image.root_disk.parts()[1].path.parent().unwrap();
    let shorten = |name: &str| {
        let bytes = fs::read(layer.join(name)).unwrap();
        fs::remove_file(layer.join(name)).unwrap();
        fs::write(layer.join(name), &bytes[..bytes.len() - 4096.min(bytes.len() / 2)]).unwrap();
    };
    let remove_disk = || fs::remove_dir_all(image.root_disk.path().parent().unwrap()).unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_dir_all(layer).unwrap(),
        &|| shorten("data"),
        // The entries are needed for a new root disk only.
        &|| (shorten("entries"), remove_disk()).0,
        &|| {
            let path = layer.join("entries");
            let mut bytes = fs::read(&path).unwrap();
            bytes[10] ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            remove_disk();
        },
    ];
    for damage in damages {
        damage();
        let again = convert(&layout, cache.path());
        assert!(!again.cached);
        assert_eq!(again.root_disk_digest, image.root_disk_digest);
        assert!(convert(&layout, cache.path()).cached);
    }
}

#[test]
fn ratio_counts_all_layers_whether_they_are_cached_or_not() {
    let layer = |byte: u8| Archive::of([Member::file("a", vec![byte; 600 << 10])]).bytes();
    let layout = |count: u8| Layout::of(&(1..=count).map(layer).collect::<Vec<_>>(), gzip_best);
    let cache = tempfile::tempdir().unwrap();
    assert!(try_convert(&layout(1), cache.path()).is_ok());
    for _ in 0..2 {
        let error = try_convert(&layout(4), cache.path()).unwrap_err();
        let Error::Convert { source: ConvertError::Layer(source), .. } = error else { panic!("{error:?}") };
        assert!(matches!(source, crate::LayerError::Ratio { .. }), "{source}");
    }
    // The same layer again counts again, although it is converted once.
    let same = Layout::of(&vec![layer(1); 4], gzip_best);
    assert!(try_convert(&same, cache.path()).is_err());
}

#[test]
fn lowest_layer_that_fails_is_named() {
    let bad = |name: &str| Archive::of([Member::file(name, vec![7; 200_000])]).bytes()[..100_000].to_vec();
    let good = Archive::of([Member::file("a", vec![5; 300_000])]).bytes();
    let layout = Layout::of(&[good, bad("b"), bad("c"), bad("d")], gzip);
    for _ in 0..20 {
        let cache = tempfile::tempdir().unwrap();
        let error = try_convert(&layout, cache.path()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.to_string().starts_with("layer 2 of 4 (sha256:"), "{source}");
    }
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
    let digest = Digest::parse(&image.chain_id).unwrap();
    fs::remove_dir_all(image.root_disk.path().parent().unwrap()).unwrap();
    let store = RootDiskCache::new(cache.path(), RootFormat::Erofs);
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
    fs::remove_dir_all(image.root_disk.path().parent().unwrap()).unwrap();
    let directory = cache.path().join(DIRECTORY);
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
    let directory = image.root_disk.path().parent().unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| {
            let path = image.root_disk.path();
            let bytes = fs::read(path).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 4096]).unwrap();
        },
        &|| fs::remove_file(image.root_disk.path()).unwrap(),
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
    let good = |byte: u8| Archive::of([Member::file("a", vec![byte; 300_000])]).bytes();
    let bad = Archive::of([Member::file("a", vec![5; 300_000]), Member::file("../b", "")]).bytes();
    let cache = tempfile::tempdir().unwrap();
    for (number, contents) in [(1, vec![bad.clone()]), (3, vec![good(1), good(2), bad.clone(), good(3)])] {
        let layout = Layout::of(&contents, gzip);
        let error = try_convert(&layout, cache.path()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        let place = format!("layer {number} of {} (sha256:", contents.len());
        assert!(source.to_string().starts_with(&place), "{source}");
        assert_eq!(source.source().unwrap().to_string(), "entry `../b`: its name contains `..`");
        assert!(!error.is_host());
        assert_eq!((listing(cache.path()), layers(cache.path())), (vec![], vec![]));
    }
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
    let disks = RootDiskCache::new(cache.path(), RootFormat::Erofs);
    let Ok(Claim::Held(workspace)) = disks.claim(&Digest::of(b""), || {}) else {
        panic!("the cache is empty");
    };
    File::set_len(&disks.create(&workspace).unwrap(), 5).unwrap();
    assert_eq!(listing(cache.path()).len(), 1);
    abandon_below(cache.path());
    assert_eq!(listing(cache.path()), [""; 0]);
    assert!(disks.create(&workspace).is_err());
    assert!(disks.claim(&Digest::of(b"another"), || {}).is_err(), "the process is about to end");
    assert_eq!(listing(cache.path()), [""; 0]);
}

#[test]
fn prune_leaves_what_images_need_machines_use_and_starts_used_lately() {
    let archive = |name: &str, byte: u8| Archive::of([Member::file(name, vec![byte; 100_000])]).bytes();
    let (base, one, two) = (archive("base", 1), archive("one", 2), archive("two", 3));
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path();
    let needed = vec![Digest::of(&base), Digest::of(&one)];
    let counts = |images: &[Vec<Digest>], unused_for| {
        let Pruned { root_disks, layers, bytes } = prune_cache(cache, images, unused_for).unwrap().unwrap();
        assert_eq!(bytes > 0, root_disks + layers > 0);
        (root_disks, layers)
    };
    assert_eq!(counts(&[], Duration::ZERO), (0, 0), "there is no cache");

    drop(convert(&Layout::of(&[base.clone(), one.clone()], gzip), cache));
    let running = convert(&Layout::of(&[base.clone(), two.clone()], gzip), cache);
    assert_eq!(counts(&[], Duration::from_secs(3600)), (0, 0), "all of it is new");
    assert_eq!(counts(std::slice::from_ref(&needed), Duration::ZERO), (0, 0), "a machine uses the other one");
    assert_eq!(counts(&[], Duration::ZERO), (1, 1), "the base stays with the machine's disk");
    assert!(convert(&Layout::of(&[base.clone(), two.clone()], gzip), cache).cached);
    drop(running);
    // A kept machine has the data by another name; its bytes are not free.
    let link = cache.join("link");
    fs::hard_link(cache.join("layers/v1").join(&layers(cache)[0]).join("data"), link).unwrap();
    assert_eq!(counts(&[needed], Duration::ZERO), (1, 1), "the base stays with the image");
    assert_eq!(counts(&[], Duration::ZERO), (0, 1));
    assert_eq!((listing(cache), layers(cache)), (vec![], vec![]));
    assert!(!convert(&Layout::of(&[base, two], gzip), cache).cached);
}

#[test]
fn prune_waits_for_no_conversion_and_mends_a_killed_prune() {
    let (layout, cache) = (layout(), tempfile::tempdir().unwrap());
    let name = convert(&layout, cache.path()).chain_id.replace(':', "-");
    let disks = RootDiskCache::new(cache.path(), RootFormat::Erofs);
    let in_use = disks.in_use();
    assert_eq!(prune_cache(cache.path(), &[], Duration::ZERO).unwrap(), None);
    drop(in_use);
    let directory = cache.path().join(DIRECTORY);
    fs::rename(directory.join(&name), directory.join(format!(".{name}.removed.tmp"))).unwrap();
    fs::create_dir_all(cache.path().join("images/v0/sha256-00")).unwrap();
    fs::write(cache.path().join("images/v0/sha256-00/root.erofs"), "old").unwrap();
    // Another program's.
    fs::create_dir_all(cache.path().join("images/versions/kept")).unwrap();
    let again = convert(&layout, cache.path());
    assert!(!again.cached);
    assert_eq!(listing(cache.path()), [name]);
    drop(again);
    let pruned = prune_cache(cache.path(), &[], Duration::ZERO).unwrap().unwrap();
    assert_eq!((pruned.root_disks, pruned.layers), (1, 1));
    assert_eq!(names(&cache.path().join("images/v0")), [""; 0]);
    assert_eq!(names(&cache.path().join("images/versions")), ["kept"]);
}
