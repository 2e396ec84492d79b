// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images with strings at various places.

use super::*;
use std::io::Cursor;

fn search(image: &[u8]) -> Features {
    Features::search(&mut Cursor::new(image), image.len() as u64).unwrap()
}

#[test]
fn search_finds_features_by_their_strings() {
    let features =
        search(b"...\0virtio_mmio.device\0..MPTABLE: bad\0\0ext4\0..Linux version 6.12.117 (coracle@coracle)..");
    assert_eq!(features.release(), Some("6.12.117"));
    let found = [Feature::MmioOnCommandLine, Feature::MpTable, Feature::Ext4];
    for (feature, ..) in FEATURES {
        assert_eq!(features.has(feature), found.contains(&feature), "{feature:?}");
    }
    assert!(features.has_file_system("ext4") && !features.has_file_system("erofs") && !features.has_file_system("xfs"));
}

#[test]
fn string_across_two_buffers_is_found() {
    let middle = BANNER.len() + MAX_RELEASE_LENGTH + READ_BUF_SIZE;
    for before in [0, 1, 6, 7, 20, 29] {
        let mut image = vec![b'.'; 3 * READ_BUF_SIZE];
        let text = b"\0erofs\0Linux version 6.1.2-x \0";
        let at = middle - before;
        image[at..at + text.len()].copy_from_slice(text);
        let features = search(&image);
        assert!(features.has(Feature::Erofs), "{before} bytes before");
        assert_eq!(features.release(), Some("6.1.2-x"), "{before} bytes before");
    }
}

#[test]
fn virtio_drivers_match_by_their_complete_names() {
    let features =
        search(b"\0virtio_blk\0virtio_fs\0\0virtio_blk\0.virtio_net\0\0virtio_mmio.device\0\0virtio_Console\0");
    let names = ["virtio_blk", "virtio_fs", "virtio_net", "virtio_mmio", "virtio_"];
    assert_eq!(names.map(|name| features.has_driver(name)), [true, true, false, false, false]);
    let many: Vec<u8> = (0..1000).flat_map(|number| format!("\0virtio_{number}").into_bytes()).chain([0]).collect();
    assert_eq!(search(&many).drivers.len(), MAX_DRIVERS);
}

#[test]
fn name_that_ends_like_a_file_system_does_not_match() {
    assert_eq!(search(b"\0notext4\0 ext4.. zerofs\0"), Features::default());
    assert_eq!(search(b""), Features::default());
}

#[test]
fn banner_without_a_release_is_ignored() {
    let features =
        search(b"Linux version %s (%s)\0 Linux version ../../x y\0 Linux version 6.12/.. \0 Linux version 5.10 ()");
    assert_eq!(features.release(), Some("5.10"));
}

#[test]
fn line_survives_a_round_trip_and_others_are_rejected() {
    let features = search(b"LNRO0005\0RSD PTR \0squashfs\0Linux version 6.12-a \0virtio_net\0virtio_blk\0");
    assert_eq!(features.to_line(), "6.12-a acpi mmio-by-acpi squashfs virtio_blk virtio_net\n");
    for features in [features, Features::default()] {
        assert_eq!(Features::from_line(&features.to_line()), Some(features));
    }
    for line in ["", "\n", "6.12", "6.12 unknown\n", "6.12 acpi"] {
        assert_eq!(Features::from_line(line), None, "{line:?}");
    }
}

#[test]
fn bytes_after_the_content_are_not_searched() {
    let image = [&[0; 100][..], b"\0virtio_mmio.device\0"].concat();
    let features = Features::search(&mut Cursor::new(&image), 100).unwrap();
    assert!(!features.has(Feature::MmioOnCommandLine));
}
