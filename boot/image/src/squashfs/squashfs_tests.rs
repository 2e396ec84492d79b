// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The same layers as EROFS and as squashfs give the same files, by a reader of each format; and
//! `unsquashfs` accepts the image.

use crate::root_disk::{RootDiskError, RootFormat};
use crate::testing::{Archive, Found, Member, Model, image_as, read_back, read_squashfs, step};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;

fn squashfs(layers: &[Vec<u8>]) -> Vec<u8> {
    image_as(RootFormat::Squashfs, layers).unwrap().unwrap()
}

fn files_of(layer: Archive) -> BTreeMap<String, Found> {
    read_squashfs(&squashfs(&[layer.bytes()]))
}

/// Output of `unsquashfs`, one line per file; `None` where it is not installed.
fn listed(image: &[u8]) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::write(&path, image).unwrap();
    let output = Command::new("unsquashfs").args(["-lln", "-no-progress"]).arg(&path).output().ok()?;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.is_empty(), "unsquashfs: {}: {log}", output.status);
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Converts to what squashfs can store: whole seconds, no ACLs; names of one file have the number
/// of the first of them.
fn as_squashfs_holds(mut files: BTreeMap<String, Found>) -> BTreeMap<String, Found> {
    let mut numbers = BTreeMap::new();
    for file in files.values_mut() {
        file.mtime = (file.mtime.0.clamp(0, u32::MAX.into()), 0);
        file.xattrs.retain(|(namespace, ..)| ![2, 3].contains(namespace));
        let next = numbers.len() as u64;
        file.nid = *numbers.entry(file.nid).or_insert(next);
        if file.mode >> 12 == 0o04 {
            file.size = 0;
        }
    }
    files
}

/// Both formats give the same files, and the same layers the same bytes.
fn assert_same(layers: &[Vec<u8>]) {
    let image = squashfs(layers);
    assert!(image == squashfs(layers), "the same layers give the same bytes");
    let erofs = read_back(&image_as(RootFormat::Erofs, layers).unwrap().unwrap());
    assert_eq!(as_squashfs_holds(read_squashfs(&image)), as_squashfs_holds(erofs));
    if let Some(lines) = listed(&image) {
        assert_eq!(lines.len(), read_squashfs(&image).len(), "{lines:?}");
    }
}

#[test]
fn files_of_every_type_and_size_equal_erofs() {
    let block = 128 << 10;
    let sizes = [0, 1, 4095, 4097, block - 1, block, block + 1, 3 * block, 3 * block + 77];
    let data = |size: usize| (0..size).map(|n| (n * 7 + n / 251) as u8).collect::<Vec<u8>>();
    let files = sizes.map(|size| Member::file(format!("f{size}"), data(size)));
    let others = [
        Member::file("suid", "x").mode(0o6755).owner(0o7777777, 5),
        Member::file("big", "").pax("uid", "4294967294").pax("mtime", "1.000000001"),
        Member::file("old", "").pax("mtime", "-5"),
        Member::new(b'6', "fifo", "", "").mode(0o622),
        Member::new(b'3', "null", "", "").device(1, 3),
        Member::new(b'4', "disk", "", "").device(259, 70_000),
        Member::symlink("link", "some/where"),
        Member::symlink("long", "t".repeat(4095)),
        Member::hard_link("again", "suid"),
        Member::directory("d/e/f").mode(0o1777).owner(3, 4),
        Member::hard_link("d/e/again", "suid"),
    ];
    assert_same(&[Archive::of(files.into_iter().chain(others)).bytes()]);
}

#[test]
fn attributes_survive_and_equal_ones_are_stored_once() {
    let layer = |count: usize| {
        let members = (0..count).map(|n| {
            Member::file(format!("f{n}"), "data")
                .pax("SCHILY.xattr.security.capability", b"\x01\n\x00=")
                .pax("SCHILY.xattr.user.k", vec![n as u8 & 1; 30_000])
                .pax("SCHILY.xattr.system.posix_acl_access", [2, 0, 0, 0])
                .pax("SCHILY.xattr.trusted.t", "")
        });
        Archive::of(members.chain([Member::directory("d").pax("SCHILY.xattr.user.d", "v")]))
    };
    assert_same(&[layer(2).bytes()]);
    let (few, many) = (squashfs(&[layer(2).bytes()]).len(), squashfs(&[layer(600).bytes()]).len());
    assert!(many - few < 600 * 200, "{few} and {many} bytes");
    let only_acl = Archive::of([Member::file("a", "").pax("SCHILY.xattr.system.posix_acl_access", [2, 0, 0, 0])]);
    assert_eq!(files_of(only_acl)["/a"].xattrs, []);
}

#[test]
fn large_directories_and_odd_names_equal_erofs() {
    let long = |n: usize| format!("{n:05}{}", "n".repeat(n % 250));
    let members = (0..3000).map(|n| Member::file(format!("d/{}", long(n)), ""));
    let odd = ["!", "-", "+x", "...", "..a", ".a", "\u{e9}", "~"].map(|name| Member::file(format!("o/{name}"), name));
    // A link in the root to the last file of 70,000 would not fit; the links here are 15,000
    // numbers apart.
    let directories = (0..15_000).map(|n| Member::file(format!("z/{}/{n}", n % 7), ""));
    let far = [Member::hard_link("0", "z/6/6"), Member::hard_link("zz", "d/00000")];
    assert_same(&[Archive::of(members.chain(odd).chain(directories).chain(far)).bytes()]);
}

#[test]
fn sparse_files_equal_erofs_without_space_for_holes() {
    let sparse = |name: &str, data: &[u8], map: &str, size: u64| {
        Member::file(name, data).pax("GNU.sparse.map", map).pax("GNU.sparse.size", size.to_string())
    };
    let across: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let layer = Archive::of([
        sparse("holes", b"", "", 1 << 20),
        sparse("ends", b"ab", "0,1,1048575,1", 1 << 20),
        sparse("across", &across, "4000,300000", 5 << 20),
        sparse("many", b"abcdef", "5000,2,600000,2,900000,2", 900_002),
        sparse("large", b"z", "68719476735,1", 1 << 36),
    ]);
    let image = squashfs(&[layer.bytes()]);
    assert!(image.len() < 5 << 20, "{}", image.len());
    assert_same(&[layer.bytes()]);
}

#[test]
fn layers_beyond_the_format_are_rejected() {
    let sparse = |size: u64| Member::file("s", "").pax("GNU.sparse.map", "").pax("GNU.sparse.size", size.to_string());
    let refusal = |layer: Archive| image_as(RootFormat::Squashfs, &[layer.bytes()]).unwrap().unwrap_err();
    assert!(matches!(
        refusal(Archive::of([sparse(crate::limits::MAX_SQUASHFS_SPARSE_BYTES + 1)])),
        RootDiskError::Sparse
    ));
    let far = Member::file("s", "12").pax("GNU.sparse.map", "0,1,999999999999,1");
    let far = far.pax("GNU.sparse.size", "1000000000000");
    assert_eq!(files_of(Archive::of([far]))["/s"].size, 1_000_000_000_000);
}

#[test]
fn empty_image_is_a_root_directory() {
    let image = squashfs(&[]);
    assert_eq!((image.len(), read_squashfs(&image).len()), (4096, 1));
    assert_ne!(listed(&image), Some(Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn random_layers_equal_erofs(
        layers in prop::collection::vec(prop::collection::vec(step(), 0..20), 1..5),
    ) {
        let mut model = Model::default();
        let archives: Vec<Vec<u8>> = layers.iter().enumerate().map(|(layer, steps)| {
            Archive::of(steps.iter().filter_map(|step| model.apply(step, layer))).bytes()
        }).collect();
        let image = squashfs(&archives);
        model.check(&read_squashfs(&image));
        let erofs = read_back(&image_as(RootFormat::Erofs, &archives).unwrap().unwrap());
        prop_assert_eq!(as_squashfs_holds(read_squashfs(&image)), as_squashfs_holds(erofs));
    }
}
