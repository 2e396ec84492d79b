// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images, read back by the tests' own reader and by `fsck.erofs` where it is installed.

use crate::layer_files::WriteLayerError;
use crate::testing::{Archive, Member, Model, files_of, image_of, layer_files, merged, names, read_back, step};
use proptest::prelude::*;
use std::process::Command;

/// Whether `fsck.erofs` accepts the image; None where it is not installed.
fn fsck(image: &[u8]) -> Option<bool> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::write(&path, image).unwrap();
    let output = Command::new("fsck.erofs").arg("--extract").arg(&path).output().ok()?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Some(output.status.success())
}

#[test]
fn files_of_sizes_around_a_block_survive() {
    let sizes =
        [0, 1, 1023, 1024, 1025, 3968, 4031, 4032, 4033, 4095, 4096, 4097, 5120, 5121, 8191, 8192, 70_000, 3_000_000];
    let data = |size: usize| (0..size).map(|n| (n * 7 + n / 251) as u8).collect::<Vec<u8>>();
    let files = files_of(&[Archive::of(sizes.map(|size| Member::file(format!("f{size}"), data(size))))]).unwrap();
    for size in sizes {
        assert_eq!(files[&format!("/f{size}")].content, data(size), "{size}");
    }
}

#[test]
fn metadata_survives() {
    let layer = Archive::of([
        Member::file("none", "x").mode(0),
        Member::file("suid", "x").mode(0o6755).owner(0o7777777, 5),
        Member::file("big", "").pax("uid", "4294967294").pax("mtime", "1.000000001"),
        Member::file("old", "").pax("mtime", "-5"),
        Member::new(b'6', "fifo", "", "").mode(0o622),
        Member::new(b'3', "null", "", "").device(1, 3),
        Member::new(b'4', "disk", "", "").device(259, 70_000),
        Member::symlink("link", "some/where"),
        Member::symlink("long", "t".repeat(4095)),
    ]);
    let files = files_of(&[layer]).unwrap();
    assert_eq!((files["/none"].mode, files["/suid"].mode, files["/suid"].owner), (0o100000, 0o106755, (0o7777777, 5)));
    assert_eq!((files["/big"].owner.0, files["/big"].mtime), (4294967294, (1, 1)));
    assert_eq!(files["/old"].mtime, (-5, 0));
    assert_eq!(files["/fifo"].mode, 0o010622);
    assert_eq!((files["/null"].mode, files["/null"].device), (0o020644, 0x103));
    assert_eq!(files["/disk"].device, (70_000 & 0xff) | 259 << 8 | (70_000 & !0xff) << 12);
    assert_eq!((files["/link"].content.as_slice(), files["/long"].content.len()), (&b"some/where"[..], 4095));
}

#[test]
fn attributes_larger_than_a_block_survive() {
    let layer = Archive::of([
        Member::file("a", "data")
            .pax("SCHILY.xattr.security.capability", b"\x01\n\x00=")
            .pax("SCHILY.xattr.user.k", "v")
            .pax("SCHILY.xattr.system.posix_acl_access", [2, 0, 0, 0])
            .pax("SCHILY.xattr.trusted.t", ""),
        Member::file("b", "x".repeat(500)).pax("SCHILY.xattr.user.large", vec![9; 30_000]),
        Member::directory("d")
            .pax("SCHILY.xattr.system.posix_acl_default", [2, 0, 0, 0])
            .pax("LIBARCHIVE.xattr.user.l", "eA=="),
    ]);
    let files = files_of(&[layer]).unwrap();
    let capability = (6, b"capability".to_vec(), b"\x01\n\x00=".to_vec());
    assert_eq!(files["/a"].xattrs, [capability, (2, vec![], vec![2, 0, 0, 0]), (1, b"k".to_vec(), b"v".to_vec())]);
    assert_eq!((files["/a"].content.as_slice(), files["/b"].content.len()), (&b"data"[..], 500));
    assert_eq!(files["/b"].xattrs, [(1, b"large".to_vec(), vec![9; 30_000])]);
    assert_eq!(files["/d"].xattrs, [(3, vec![], vec![2, 0, 0, 0]), (1, b"l".to_vec(), b"x".to_vec())]);
}

#[test]
fn large_directories_and_names_before_the_dot_survive() {
    let long = |n: usize| format!("{n:04}{}", "n".repeat(n % 250));
    let members = (0..3000).map(|n| Member::file(format!("d/{}", long(n)), ""));
    let odd = ["!", "-", "+x", "...", "..a", ".a", "\u{e9}", "~"].map(|name| Member::file(format!("o/{name}"), name));
    let files = files_of(&[Archive::of(members.chain(odd))]).unwrap();
    assert_eq!(files.len(), 3000 + 8 + 3);
    assert!((0..3000).all(|n| files.contains_key(&format!("/d/{}", long(n)))));
    assert_eq!(files["/o/..."].content, b"...");
}

#[test]
fn sparse_files_survive_without_space_for_holes() {
    let sparse = |name: &str, data: &[u8], map: &str, size: u64| {
        Member::file(name, data).pax("GNU.sparse.map", map).pax("GNU.sparse.size", size.to_string())
    };
    let across: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let layer = Archive::of([
        sparse("holes", b"", "", 1 << 20),
        sparse("ends", b"ab", "0,1,1048575,1", 1 << 20),
        sparse("across", &across, "4000,10000", 5 << 20),
        sparse("many", b"abcdef", "5000,2,6000,2,9000,2", 9002),
        sparse("huge", b"z", "1099511627775,1", 1 << 40),
    ]);
    let image = image_of(&[layer.bytes()]).unwrap();
    assert!(image.len() < 50 << 20, "{}", image.len());
    let files = read_back(&image);
    assert_eq!(files["/holes"].content, vec![0; 1 << 20]);
    let mut ends = vec![0; 1 << 20];
    (ends[0], ends[(1 << 20) - 1]) = (b'a', b'b');
    assert_eq!(files["/ends"].content, ends);
    assert_eq!(files["/across"].content[4000..14_000], across);
    assert!(files["/across"].content[14_000..].iter().all(|byte| *byte == 0));
    let mut many = vec![0; 9002];
    many[5000..5002].copy_from_slice(b"ab");
    many[6000..6002].copy_from_slice(b"cd");
    many[9000..].copy_from_slice(b"ef");
    assert_eq!(files["/many"].content, many);
    assert_eq!(files["/huge"].size, 1 << 40);
    assert_ne!(fsck(&image), Some(false));
}

#[test]
fn too_large_image_is_rejected_before_it_is_written() {
    // One byte in each of 1000 chunks of 2^43 bytes: every chunk would have to be stored.
    let map: Vec<String> = (0..1000u64).map(|n| format!("{},1", n << 50)).collect();
    let member = Member::file("s", vec![1; 1000])
        .pax("GNU.sparse.map", map.join(","))
        .pax("GNU.sparse.size", (1u64 << 62).to_string());
    let few = (0..100u64).map(|n| {
        Member::file(format!("{n}"), "x").pax("GNU.sparse.map", "0,1").pax("GNU.sparse.size", (1u64 << 40).to_string())
    });
    assert!(matches!(layer_files(&Archive::of([member]).bytes()), Err(WriteLayerError::TooLarge)));
    let layers = [layer_files(&Archive::of(few).bytes()).unwrap()];
    let plan = |most| super::plan::Plan::new(&merged(&layers).unwrap(), &layers, most).map(|plan| plan.blocks);
    assert!(matches!(plan(1 << 30), Err(crate::root_disk::RootDiskError::TooLarge { .. })));
    assert!(plan(4 << 30).is_ok());
}

#[test]
fn layer_without_needed_data_takes_no_space() {
    let lower = Archive::of([Member::file("a", vec![1; 1 << 20])]);
    let upper = Archive::of([Member::file("a", vec![2; 1 << 20])]);
    let image = image_of(&[lower.bytes(), upper.bytes()]).unwrap();
    assert!(image.len() <= (1 << 20) + 8192, "{}", image.len());
    assert_eq!(read_back(&image)["/a"].content, vec![2; 1 << 20]);
}

#[test]
fn empty_image_is_a_root_directory() {
    let image = image_of(&[]).unwrap();
    assert_eq!((image.len(), names(&read_back(&image))), (4096, vec![""]));
    assert_ne!(fsck(&image), Some(false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_layers_merge_as_in_the_model(
        layers in prop::collection::vec(prop::collection::vec(step(), 0..20), 1..5),
    ) {
        let mut model = Model::default();
        let archives: Vec<Vec<u8>> = layers.iter().enumerate().map(|(layer, steps)| {
            Archive::of(steps.iter().filter_map(|step| model.apply(step, layer))).bytes()
        }).collect();
        let image = image_of(&archives).unwrap();
        model.check(&read_back(&image));
        prop_assert!(image == image_of(&archives).unwrap(), "the same layers give the same bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn fsck_accepts_random_images(steps in prop::collection::vec(step(), 0..60)) {
        let mut model = Model::default();
        let layer = Archive::of(steps.iter().filter_map(|step| model.apply(step, 0)));
        prop_assert_ne!(fsck(&image_of(&[layer.bytes()]).unwrap()), Some(false));
    }
}
