// SPDX-License-Identifier: Apache-2.0 OR MIT
//! File systems that are built here, and what becomes of damaged ones. Those of dosfstools and mtools are in the end-to-end tests.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;

const SECTOR: usize = 512;
const MAX: u64 = 4096;

enum Node<'a> {
    File(&'a [u8]),
    Directory(&'a [(&'a str, Self)]),
}

use Node::{Directory as Dir, File as Data};

/// Clusters of one sector, one table, which has room for `clusters`.
struct Image {
    width: Width,
    table_sectors: usize,
    /// From cluster 2 on.
    clusters: Vec<[u8; SECTOR]>,
    table: Vec<u32>,
    root: Vec<u8>,
}

impl Image {
    fn new(width: Width, tree: &[(&str, Node<'_>)]) -> Self {
        let table_sectors = if width == Width::Fat12 { 1 } else { 20 };
        let mut image = Self { width, table_sectors, clusters: Vec::new(), table: vec![0, 0], root: Vec::new() };
        if width == Width::Fat32 {
            // The root is a chain that begins with cluster 2.
            image.store(&[0; 2 * SECTOR]);
        }
        let root = image.directory(tree);
        match width {
            Width::Fat32 => {
                for (cluster, part) in image.clusters.iter_mut().zip(root.chunks(SECTOR)) {
                    cluster[..part.len()].copy_from_slice(part);
                }
            }
            _ => image.root = root,
        }
        image
    }

    /// Returns the first cluster.
    fn store(&mut self, content: &[u8]) -> u32 {
        let first = self.table.len() as u32;
        for part in content.chunks(SECTOR) {
            let mut cluster = [0; SECTOR];
            cluster[..part.len()].copy_from_slice(part);
            self.clusters.push(cluster);
            self.table.push(self.table.len() as u32 + 1);
        }
        if let Some(last) = self.table.last_mut().filter(|_| !content.is_empty()) {
            *last = 0x0fff_ffff;
        }
        if content.is_empty() { 0 } else { first }
    }

    fn directory(&mut self, tree: &[(&str, Node<'_>)]) -> Vec<u8> {
        let mut entries = entry(b"A LABEL    ", VOLUME_LABEL, 0, 0);
        for (number, (name, node)) in tree.iter().enumerate() {
            let (attributes, cluster, bytes) = match node {
                Data(content) => (0x20, self.store(content), content.len()),
                Dir(tree) => {
                    let content = self.directory(tree);
                    (DIRECTORY, self.store(&content), 0)
                }
            };
            let short = format!("LONG~{number}  TXT");
            let short = short.as_bytes()[..11].try_into().unwrap();
            entries.extend(long_entries(name, short));
            entries.extend(entry(short, attributes, cluster, bytes as u32));
        }
        entries
    }

    fn bytes(&self) -> Vec<u8> {
        let root_sectors = usize::from(self.width != Width::Fat32);
        let sectors = match self.width {
            Width::Fat12 => 300,
            Width::Fat16 | Width::Fat32 => 5000_u16,
        };
        let mut boot = vec![0; SECTOR];
        (boot[0], boot[13], boot[14], boot[16]) = (0xeb, 1, 1, 1);
        boot[11..13].copy_from_slice(&512_u16.to_le_bytes());
        boot[17] = 16 * u8::from(root_sectors > 0);
        boot[19..21].copy_from_slice(&sectors.to_le_bytes());
        let size_at = if self.width == Width::Fat32 { 36 } else { 22 };
        boot[size_at] = self.table_sectors as u8;
        boot[44] = 2 * u8::from(self.width == Width::Fat32);
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut table = vec![0; self.table_sectors * SECTOR];
        for (number, next) in self.table.iter().enumerate() {
            match self.width {
                Width::Fat12 => {
                    let shift = number % 2 * 4;
                    let at = number * 3 / 2;
                    let old = u32::from(u16::from_le_bytes([table[at], table[at + 1]]));
                    let new = (old | (next & 0xfff) << shift) as u16;
                    table[at..at + 2].copy_from_slice(&new.to_le_bytes());
                }
                Width::Fat16 => table[number * 2..][..2].copy_from_slice(&(*next as u16).to_le_bytes()),
                Width::Fat32 => table[number * 4..][..4].copy_from_slice(&(next | 0x5000_0000).to_le_bytes()),
            }
        }
        let mut root = self.root.clone();
        root.resize(root_sectors * SECTOR, 0);
        [boot, table, root, self.clusters.concat()].concat()
    }
}

fn entry(short: &[u8; 11], attributes: u8, cluster: u32, bytes: u32) -> Vec<u8> {
    let mut entry = vec![0; ENTRY_BYTES];
    entry[..11].copy_from_slice(short);
    entry[11] = attributes;
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry[28..].copy_from_slice(&bytes.to_le_bytes());
    entry
}

fn long_entries(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let checksum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().chain([0]).collect();
    units.resize(units.len().next_multiple_of(13), 0xffff);
    let parts: Vec<_> = units.chunks(13).enumerate().collect();
    let mut entries = Vec::new();
    for (index, part) in parts.iter().rev() {
        let mut entry = vec![0; ENTRY_BYTES];
        entry[0] = *index as u8 + 1 + if index + 1 == parts.len() { 0x40 } else { 0 };
        (entry[11], entry[13]) = (LONG_NAME, checksum);
        for (at, unit) in LONG_NAME_UNITS.into_iter().zip(*part) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entries.extend(entry);
    }
    entries
}

fn open(bytes: &[u8]) -> Option<Fat> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Fat::open(file).ok()
}

fn read(bytes: &[u8], path: &str) -> Result<Option<Vec<u8>>, String> {
    open(bytes).unwrap().read(path, MAX).map_err(|error| error.to_string())
}

const WIDTHS: [Width; 3] = [Width::Fat12, Width::Fat16, Width::Fat32];
const LONG: &str = "a name of more than two entries.json";

#[test]
fn file_is_read_by_its_path() {
    let large: Vec<u8> = (0..1500_u32).map(|number| number as u8).collect();
    let inner = [("latest", Dir(&[(LONG, Data(&large))]))];
    let tree = [("user-data", Data(b"one")), ("empty", Data(b"")), ("openstack", Dir(&inner))];
    for width in WIDTHS {
        let bytes = Image::new(width, &tree).bytes();
        assert_eq!(open(&bytes).unwrap().layout.width, width);
        let read = |path: &str| read(&bytes, path).unwrap();
        assert_eq!(read("user-data").as_deref(), Some(&b"one"[..]), "{width:?}");
        assert_eq!(read("USER-DATA").as_deref(), Some(&b"one"[..]));
        assert_eq!(read("long~0.txt").as_deref(), Some(&b"one"[..]));
        assert_eq!(read("empty").as_deref(), Some(&b""[..]));
        assert_eq!(read(&format!("openstack/latest/{LONG}")), Some(large.clone()));
        for missing in ["user", "openstack", "openstack/latest", "user-data/x", "openstack/x", "A LABEL", ""] {
            assert_eq!(read(missing), None, "{missing}");
        }
    }
}

#[test]
fn name_with_a_slash_is_no_path() {
    let bytes = Image::new(Width::Fat12, &[("a/b", Data(b"one")), ("../c", Data(b"two"))]).bytes();
    assert_eq!((read(&bytes, "a/b"), read(&bytes, "../c")), (Ok(None), Ok(None)));
}

#[test]
fn deleted_and_broken_long_names_are_not_found() {
    let mut image = Image::new(Width::Fat16, &[("user-data", Data(b"one"))]);
    // After the label: one entry of the long name, and the short one.
    for (at, value) in [(32, 0xe5), (32, 0x42), (32, 0x41 | 0x20), (32 + 13, 0)] {
        let old = std::mem::replace(&mut image.root[at], value);
        assert_eq!(read(&image.bytes(), "user-data"), Ok(None), "{at}: {value:#x}");
        assert!(read(&image.bytes(), "LONG~0.TXT").unwrap().is_some());
        image.root[at] = old;
    }
    image.root[64] = 0xe5;
    assert_eq!((read(&image.bytes(), "user-data"), read(&image.bytes(), "LONG~0.TXT")), (Ok(None), Ok(None)));
}

#[test]
fn damaged_chains_are_errors_with_the_path() {
    let content = [7; 3 * SECTOR];
    for width in WIDTHS {
        let mut image = Image::new(width, &[("meta-data", Data(&content))]);
        let first = image.table.len() - 3;
        for (next, expected) in [
            (first as u32, "the clusters of meta-data form a loop"),
            (0, "the clusters of meta-data end before it does"),
            (1, "or one of them is invalid"),
            (0x0fff_fff7, "or one of them is invalid"),
            (0x0fff_ffff, "the clusters of meta-data end before it does"),
            (299, if width == Width::Fat12 { "one of them is invalid" } else { "the image ends" }),
        ] {
            let old = std::mem::replace(&mut image.table[first + 1], next);
            let error = read(&image.bytes(), "meta-data").unwrap_err();
            assert!(error.contains(expected), "{width:?} {next:#x}: {error}");
            image.table[first + 1] = old;
        }
    }
    // A directory ends with its chain only.
    let mut image = Image::new(Width::Fat32, &[("meta-data", Data(b"one"))]);
    image.table[3] = 2;
    assert_eq!(read(&image.bytes(), "meta-data").unwrap_err(), "the clusters of meta-data form a loop");
}

#[test]
fn sizes_are_bounded() {
    let mut image = Image::new(Width::Fat16, &[("user-data", Data(b"one"))]);
    let size_at = 64 + 28;
    image.root[size_at..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(read(&image.bytes(), "user-data").unwrap_err(), "user-data has 4294967295 bytes; the maximum is 4096");
    image.root[size_at..][..4].copy_from_slice(&4096_u32.to_le_bytes());
    assert!(read(&image.bytes(), "user-data").unwrap_err().contains("end before it does"));
    let mut bytes = image.bytes();
    bytes[17..19].copy_from_slice(&u16::MAX.to_le_bytes());
    let large = read(&bytes, "user-data").unwrap_err();
    assert_eq!(large, "a directory of the image has more than 262144 bytes");
    // A long directory, whose entries do not end.
    let full = vec![0xe5; (MAX_DIRECTORY_BYTES as usize) + SECTOR];
    let mut image = Image::new(Width::Fat16, &[("d", Data(&full))]);
    image.root[64 + 11] = DIRECTORY;
    assert_eq!(read(&image.bytes(), "d/x").unwrap_err(), large);
}

#[test]
fn truncated_image_is_an_error_at_every_length() {
    let whole = Image::new(Width::Fat12, &[("user-data", Data(&[1; 700]))]).bytes();
    for length in 0..whole.len() {
        let outcome = open(&whole[..length]).map(|fat| fat.read("user-data", MAX));
        // What is left of the last cluster is not read.
        let is_complete = length >= whole.len() - (2 * SECTOR - 700);
        assert_eq!(matches!(outcome, Some(Ok(Some(_)))), is_complete, "{length}");
        assert_eq!(outcome.is_none(), length < SECTOR, "{length}");
    }
}

#[test]
fn other_boot_sectors_are_no_file_system() {
    let whole = Image::new(Width::Fat16, &[]).bytes();
    assert!(open(&whole).is_some());
    for (at, value) in [(0, 0), (11, 1), (12, 0), (13, 0), (13, 3), (14, 0), (16, 0), (17, 0), (22, 0), (510, 0)] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        assert!(open(&bytes).is_none(), "{at}: {value}");
    }
}

proptest! {
    /// Neither panics nor reads without an end.
    #[test]
    fn any_change_of_an_image_is_an_error_or_a_file(
        width in 0..3_usize,
        changes in proptest::collection::vec((0..6 * SECTOR, any::<u8>()), 1..40),
    ) {
        let inner = [("latest", Dir(&[(LONG, Data(&[3; 600]))]))];
        let image = Image::new(WIDTHS[width], &[("openstack", Dir(&inner)), ("user-data", Data(b"one"))]);
        let mut bytes = image.bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Some(fat) = open(&bytes) {
            let _ = fat.read("user-data", MAX);
            let _ = fat.read(&format!("openstack/latest/{LONG}"), MAX);
        }
    }
}
