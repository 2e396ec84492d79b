// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Archives of every dialect, and malformed ones. Some valid archives are written by the `tar`
//! crate, as an independent implementation.

use super::*;
use crate::testing::{Archive, Member, pax_record};
use proptest::prelude::*;

/// Reads all entries with their data.
fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        loop {
            let part = reader.data()?;
            if part.is_empty() {
                break;
            }
            data.extend_from_slice(part);
            let count = part.len();
            reader.consume(count);
        }
        entries.push((entry, data));
    }
    Ok(entries)
}

fn only(member: Member) -> (Entry, Vec<u8>) {
    let mut entries = read(&Archive::of([member]).bytes()).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

fn error_of(member: Member) -> TarError {
    read(&Archive::of([member]).bytes()).unwrap_err()
}

#[test]
fn archive_of_the_tar_crate_is_read() {
    let long = format!("{}/file", "directory".repeat(30));
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_mode(0o4755);
    header.set_uid(3_000_000_000);
    header.set_gid(7);
    header.set_mtime(1_600_000_000);
    header.set_size(5);
    builder.append_data(&mut header, &long, &b"hello"[..]).unwrap();
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", &long).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"v"[..])]).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(1);
    builder.append_data(&mut header, "x", &b"y"[..]).unwrap();

    let entries = read(&builder.into_inner().unwrap()).unwrap();
    let (file, data) = &entries[0];
    assert_eq!((file.path.as_slice(), data.as_slice()), (long.as_bytes(), &b"hello"[..]));
    assert_eq!((file.mode, file.uid, file.gid, file.mtime.seconds), (0o4755, 3_000_000_000, 7, 1_600_000_000));
    assert_eq!((entries[1].0.kind, entries[1].0.link.as_slice()), (Kind::Symlink, long.as_bytes()));
    assert_eq!(entries[2].0.xattrs, [(b"user.a".to_vec(), b"v".to_vec())]);
}

#[test]
fn prefix_field_is_used_in_ustar_headers_only() {
    let mut member = Member::file("name", "");
    member.set(345, b"some/prefix");
    assert_eq!(only(member.clone()).0.path, b"some/prefix/name");
    member.set(257, b"ustar  \0");
    assert_eq!(only(member).0.path, b"name");
}

#[test]
fn pax_records_replace_header_fields() {
    let member = Member::file("short", "12345").size(5).owner(1, 2);
    let member = member.pax("path", "long").pax("uid", "4000000000").pax("gid", "9").pax("mtime", "5.25");
    let (entry, data) = only(member);
    assert_eq!((entry.path.as_slice(), entry.uid, entry.gid, data.len()), (&b"long"[..], 4_000_000_000, 9, 5));
    assert_eq!(entry.mtime, Time { seconds: 5, nanoseconds: 250_000_000 });
}

#[test]
fn a_size_in_pax_wins_over_the_headers() {
    let member = Member::file("a", "12345").size(0).pax("size", "5");
    let archive = Archive::of([member, Member::file("b", "")]);
    let entries = read(&archive.bytes()).unwrap();
    assert_eq!((entries[0].1.as_slice(), entries[1].0.path.as_slice()), (&b"12345"[..], &b"b"[..]));
}

#[test]
fn global_headers_and_sizes_of_links_are_ignored() {
    let mut global = Member::new(b'g', "pax_global_header", "", pax_record("path", b"wrong"));
    global.pax.clear();
    let archive = Archive::of([global, Member::hard_link("l", "t").size(999), Member::file("f", "x")]);
    let entries = read(&archive.bytes()).unwrap();
    assert_eq!(entries.iter().map(|(entry, _)| entry.path.as_slice()).collect::<Vec<_>>(), [b"l", b"f"]);
}

#[test]
fn old_name_with_a_trailing_slash_is_a_directory() {
    assert_eq!(only(Member::new(0, "d/", "", "")).0.kind, Kind::Directory);
    assert_eq!(only(Member::new(0, "d", "", "")).0.kind, Kind::Regular);
    assert_eq!(only(Member::new(b'0', "d/", "", "")).0.kind, Kind::Regular);
}

#[test]
fn sparse_files_of_all_versions_are_read() {
    let extents = Some(vec![(0, 5), (4096, 3)]);
    let old = {
        let mut member = Member::new(b'S', "s", "", "helloxyz");
        member.set(257, b"ustar  \0");
        for (at, value) in [(386, 0), (398, 5), (410, 4096), (422, 3), (483, 9000)] {
            member.set(at, format!("{value:011o}\0").as_bytes());
        }
        member
    };
    let pairs = |member: Member| {
        ["0", "5", "4096", "3"]
            .iter()
            .zip(["offset", "numbytes"].iter().cycle())
            .fold(member, |member, (value, key)| member.pax(&format!("GNU.sparse.{key}"), value))
    };
    let zero = pairs(Member::file("s", "helloxyz").pax("GNU.sparse.size", "9000").pax("GNU.sparse.numblocks", "2"));
    let one = Member::file("x", "helloxyz")
        .pax("GNU.sparse.name", "s")
        .pax("GNU.sparse.size", "9000")
        .pax("GNU.sparse.map", "0,5,4096,3");
    let mut data = b"2\n0\n5\n4096\n3\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"helloxyz");
    let current = Member::file("GNUSparseFile.1/s", data)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "s")
        .pax("GNU.sparse.realsize", "9000");
    for member in [old, zero, one, current] {
        let (entry, data) = only(member);
        assert_eq!((entry.path.as_slice(), entry.size, entry.stored), (&b"s"[..], 9000, 8));
        assert_eq!((&entry.extents, data.as_slice()), (&extents, &b"helloxyz"[..]));
    }
}

#[test]
fn invalid_sparse_map_is_rejected() {
    let with = |map: &str, size: &str| {
        error_of(Member::file("s", "12345").pax("GNU.sparse.size", size).pax("GNU.sparse.map", map))
    };
    for (map, size) in [
        ("0,5", "4"),
        ("0,4", "9"),
        ("3,2,0,3", "9"),
        ("0,3,2,2", "9"),
        ("0", "9"),
        ("9223372036854775807,5", "9223372036854775808"),
    ] {
        assert!(matches!(with(map, size), TarError::Sparse { .. }), "{map}");
    }
    let version = Member::file("s", "12345").pax("GNU.sparse.major", "2").pax("GNU.sparse.realsize", "5");
    assert!(matches!(error_of(version), TarError::Sparse { .. }));
    let no_map = Member::file("s", "12345").pax("GNU.sparse.major", "1").pax("GNU.sparse.realsize", "5");
    assert!(matches!(error_of(no_map), TarError::Sparse { .. }));
}

#[test]
fn number_out_of_range_is_rejected() {
    let field = |at: usize, bytes: &[u8]| {
        let mut member = Member::file("a", "");
        member.set(at, bytes);
        match error_of(member) {
            TarError::Field { field, entry } if entry == "a" => field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(field(124, b"xyz"), "size");
    assert_eq!(field(124, &[0xff; 12]), "size", "negative");
    assert_eq!(field(124, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), "size", "2^63");
    assert_eq!(field(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "uid", "-1");
    assert_eq!(field(116, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "gid", "2^32");
    assert_eq!(field(100, b"9999"), "mode");
    assert!(matches!(error_of(Member::file("a", "").pax("uid", "4294967296")), TarError::Field { field: "uid", .. }));
    assert!(matches!(error_of(Member::file("a", "").pax("uid", "-1")), TarError::Pax { .. }));
    assert!(matches!(error_of(Member::file("a", "").pax("size", "9223372036854775808")), TarError::Field { .. }));
    let mut device = Member::new(b'3', "a", "", "");
    device.set(329, b"7777777x");
    assert!(matches!(error_of(device), TarError::Field { field: "device number", .. }));
}

#[test]
fn unknown_type_is_named() {
    for kind in *b"MVNXAs" {
        let message = error_of(Member::new(kind, "odd", "", "")).to_string();
        assert_eq!(message, format!("entry `odd`: unknown entry type `{}`", kind as char));
    }
}

#[test]
fn extended_headers_are_bounded_in_size_and_number() {
    let huge = Member::new(b'L', "././@LongLink", "", "").size(1 << 40);
    assert!(matches!(error_of(huge), TarError::ExtendedHeader { .. }));
    let many = Archive::of((0..17).map(|_| Member::new(b'L', "", "", "name")).chain([Member::file("a", "")]));
    assert!(matches!(read(&many.bytes()), Err(TarError::ExtendedHeader { .. })));
    let alone = Archive::of([Member::new(b'L', "", "", "name")]);
    assert!(matches!(read(&alone.bytes()), Err(TarError::Truncated { .. })));
}

#[test]
fn gnu_long_name_ends_at_nul_and_pax_replaces_it() {
    let long =
        |member| Archive::of([Member::new(b'L', "", "", "long\0rest"), Member::new(b'K', "", "", "target\0"), member]);
    let entries = read(&long(Member::symlink("short", "t")).bytes()).unwrap();
    assert_eq!((entries[0].0.path.as_slice(), entries[0].0.link.as_slice()), (&b"long"[..], &b"target"[..]));
    let entries = read(&long(Member::symlink("short", "t").pax("path", "pax")).bytes()).unwrap();
    assert_eq!(entries[0].0.path, b"pax");
}

#[test]
fn damaged_header_is_a_checksum_error() {
    let mut bytes = Archive::of([Member::file("a", "")]).bytes();
    bytes[3] ^= 1;
    assert!(matches!(read(&bytes), Err(TarError::Checksum { offset: 0 })));
    assert!(!is_tar_start(&bytes));
}

#[test]
fn truncated_archive_is_shorter_or_an_error() {
    let archive = Archive::of([
        Member::file("a", "x".repeat(700)).pax("mtime", "1.5"),
        Member::directory("d"),
        Member::file("d/b", "y"),
    ]);
    let complete = archive.bytes();
    let entries = read(&complete).unwrap();
    // Data and headers must be complete; padding after data and the final zeros may be missing.
    let (first_data, second) = (3 * 512 + 700, 5 * 512);
    let (third, third_data) = (second + 512, second + 2 * 512 + 1);
    for end in 0..=complete.len() {
        let complete_entries = match end {
            0 => Some(0),
            _ if (first_data..=second).contains(&end) => Some(1),
            _ if end == third => Some(2),
            _ if (third_data..=third + 1024).contains(&end) || end >= third + 1024 + 512 => Some(3),
            _ => None,
        };
        match (read(&complete[..end]), complete_entries) {
            (Ok(read), Some(count)) => assert_eq!(read[..], entries[..count], "{end}"),
            (Err(TarError::Truncated { .. }), None) => {}
            (result, _) => panic!("{end}: {result:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        fix in any::<bool>(),
    ) {
        let mut archive = Archive::of([
            Member::file("a", "hello")
                .pax("SCHILY.xattr.user.x", "v")
                .pax("GNU.sparse.map", "0,5")
                .pax("GNU.sparse.size", "9"),
            Member::new(b'S', "s", "", ""),
            Member::symlink("l", "a"),
            Member::new(b'L', "", "", "n"),
            Member::new(b'4', "dev", "", "").device(8, 1),
        ]).bytes();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
            if fix {
                let header = at / 512 * 512..at / 512 * 512 + 512;
                archive[header.start + 148..header.start + 156].fill(b' ');
                let sum: u32 = archive[header.clone()].iter().map(|byte| u32::from(*byte)).sum();
                archive[header.start + 148..header.start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let _ = read(&archive);
    }
}
