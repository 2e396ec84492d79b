// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of every shape read back from the two files of a layer, and take the space that they should.

use super::*;
use crate::testing::{Archive, Member, layer_files, zstd};
use proptest::prelude::*;
use std::os::unix::fs::MetadataExt as _;

/// Reads the regular files of a layer, in order, each in pieces of `step` bytes.
fn files(layer: &LayerFiles, step: usize) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut entries = layer.entries();
    while let Some((entry, place)) = entries.next_entry().unwrap() {
        let Some(place) = place else { continue };
        let mut content = vec![0xee; entry.size as usize];
        for (number, piece) in content.chunks_mut(step).enumerate() {
            layer.read_file(&place, entry.size, piece, (number * step) as u64).unwrap();
        }
        files.push(content);
    }
    files
}

fn of_contents(contents: &[Vec<u8>]) -> LayerFiles {
    let members = contents.iter().enumerate().map(|(number, content)| Member::file(number.to_string(), content));
    layer_files(&Archive::of(members).bytes()).unwrap()
}

fn content(parts: &[(u8, usize)]) -> Vec<u8> {
    parts.iter().flat_map(|(byte, count)| std::iter::repeat_n(*byte, *count)).collect()
}

#[test]
fn files_take_whole_blocks_and_tails_are_with_the_entries() {
    let chunk = limits::HOLE_BYTES as usize;
    for (parts, blocks) in [
        (&[][..], 0),
        (&[(1, 1024)], 0),
        (&[(1, 1025)], 1),
        (&[(0, 5)], 0),
        (&[(0, 4096)], 1),
        (&[(0, chunk - 1)], 16),
        (&[(0, chunk)], 0),
        (&[(1, 3 * chunk)], 48),
        (&[(1, 3 * chunk), (2, 700)], 48),
        (&[(1, 3 * chunk), (2, 2000)], 49),
        // Zeros that fill no chunk are stored.
        (&[(0, 4096), (1, 4096), (0, 4096)], 3),
        (&[(1, 4096), (0, chunk + 8192), (2, 4096)], 16 + 4),
        (&[(1, 4096), (0, 3 * chunk)], 16),
        (&[(0, 3 * chunk), (1, 10)], 1),
        (&[(0, 3 * chunk + 4096), (1, 10)], 2),
        (&[(1, 4096), (0, 3 * chunk - 4096), (0, 10)], 16),
        (&[(1, chunk), (0, chunk), (1, 4096), (3, 10)], 16 + 2),
    ] {
        let file = content(parts);
        let layer = of_contents(&[file.clone(), b"next".to_vec(), vec![9; 2000]]);
        assert_eq!(layer.data_bytes(), (blocks + 1) * BLOCK, "{parts:?}");
        for step in [1 << 20, 4096, 1000] {
            assert!(files(&layer, step) == [file.clone(), b"next".to_vec(), vec![9; 2000]], "{parts:?} by {step}");
        }
    }
}

#[test]
fn zeros_within_large_chunks_take_no_space_on_the_host() {
    let sparse = Member::file("s", b"z")
        .pax("GNU.sparse.map", "1000000000000,1")
        .pax("GNU.sparse.size", (1u64 << 40).to_string());
    let layer = layer_files(&Archive::of([sparse]).bytes()).unwrap();
    assert_eq!(layer.data_bytes(), 16 << 20);
    assert!(layer.data.metadata().unwrap().blocks() * 512 < 1 << 20);
    let (entry, place) = layer.entries().next_entry().unwrap().unwrap();
    let mut bytes = [1; 3];
    layer.read_file(&place.unwrap(), entry.size, &mut bytes, 999_999_999_999).unwrap();
    assert_eq!(&bytes, b"\0z\0");
}

#[test]
fn entries_are_those_of_the_archive() {
    let archive = Archive::of([
        Member::directory("d").mode(0o1777),
        Member::symlink("d/l", "../target"),
        Member::file("d/.wh.gone", ""),
        Member::file("f", "content").pax("SCHILY.xattr.user.k", "v").pax("mtime", "-5.5"),
    ])
    .bytes();
    let layer = layer_files(&archive).unwrap();
    let (mut entries, mut reader) = (layer.entries(), crate::tar::Reader::new(archive.as_slice()));
    while let Some(expected) = reader.next_entry().unwrap() {
        let (entry, place) = entries.next_entry().unwrap().unwrap();
        assert_eq!(place.is_some(), entry.kind == crate::tar::Kind::Regular);
        assert_eq!(entry, crate::tar::Entry { stored: 0, ..expected });
    }
    assert!(entries.next_entry().unwrap().is_none());
    assert_eq!(layer.sizes(), LayerSizes { uncompressed: archive.len() as u64, stored: archive.len() as u64 });
}

#[test]
fn same_archive_gives_the_same_files() {
    let archive = Archive::of((0..50).map(|n| Member::file(format!("{n}"), vec![n; usize::from(n) * 3000]))).bytes();
    let bytes = |layer: &LayerFiles| {
        let mut files = [&layer.data, &*layer.entries].map(|file| vec![0; file.metadata().unwrap().len() as usize]);
        layer.data.read_exact_at(&mut files[0], 0).unwrap();
        layer.entries.read_exact_at(&mut files[1], 0).unwrap();
        files
    };
    assert!(bytes(&layer_files(&archive).unwrap()) == bytes(&layer_files(&archive).unwrap()));
}

#[test]
fn changed_or_cut_files_are_no_layer() {
    let layer = of_contents(&[b"one".to_vec(), vec![1; 5000]]);
    let length = layer.entries.metadata().unwrap().len();
    let mut entries = vec![0; length as usize];
    layer.entries.read_exact_at(&mut entries, 0).unwrap();
    let open = |bytes: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        LayerFiles::open(layer.diff_id.clone(), layer.data.try_clone().unwrap(), file).unwrap()
    };
    assert!(open(&entries).is_some());
    for at in 0..entries.len() {
        let mut changed = entries.clone();
        changed[at] ^= 0x20;
        assert!(open(&changed).is_none(), "byte {at}");
        assert!(open(&entries[..at]).is_none(), "{at} bytes");
    }
    layer.data.set_len(layer.data_bytes() - 1).unwrap();
    assert!(open(&entries).is_none());
}

#[test]
fn list_that_is_none_is_an_error() {
    let list = |bytes: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let mut reader = EntryReader::new(Arc::new(file), bytes.len() as u64);
        while let Some(entry) = reader.next_entry()? {
            std::hint::black_box(entry);
        }
        Ok::<_, io::Error>(())
    };
    assert!(list(b"").is_ok());
    assert!(list(&[0]).is_err());
    assert!(list(&[0xff; 8]).is_err());
    assert!(list(&zstd(&[7; 3000])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn random_files_read_back(
        files_of_parts in prop::collection::vec(prop::collection::vec((0u8..3, 0usize..150_000), 0..5), 1..4),
        step in 1usize..300_000,
    ) {
        let contents: Vec<Vec<u8>> = files_of_parts.iter().map(|parts| content(parts)).collect();
        let layer = of_contents(&contents);
        prop_assert!(files(&layer, step) == contents);
        prop_assert_eq!(layer.data_bytes() % BLOCK, 0);
    }
}
