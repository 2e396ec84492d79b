// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries that this crate's reader and the `tar` crate read back.

use super::super::Reader;
use super::*;
use proptest::prelude::*;

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes);
    for entry in entries {
        writer.entry(entry).unwrap();
        writer.write(&vec![b'x'; entry.stored as usize]).unwrap();
        writer.end(entry.stored).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
}

fn kinds() -> impl Strategy<Value = Kind> {
    use Kind::{BlockDevice, CharacterDevice, Directory, Fifo, HardLink, Regular, Symlink};
    prop::sample::select(vec![Regular, HardLink, Symlink, CharacterDevice, BlockDevice, Directory, Fifo])
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255u8, 1..220)
}

prop_compose! {
    fn entries()(
        kind in kinds(), path in name(), target in name(), mode in 0..0o10000u16, uid: u32, gid: u32,
        seconds in -(1i64 << 40)..1 << 40, nanoseconds in prop_oneof![Just(0), 0..1_000_000_000u32],
        device in (0..1u32 << 12, 0..1u32 << 20), size in 0..2000u64,
        xattrs in prop::collection::btree_map("user\\.[a-z]{1,9}", prop::collection::vec(any::<u8>(), 1..300), 0..3),
    ) -> Entry {
        let size = if kind == Kind::Regular { size } else { 0 };
        let is_link = matches!(kind, Kind::HardLink | Kind::Symlink);
        let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        Entry {
            link: if is_link { target } else { Vec::new() },
            kind, mode, uid, gid, mtime: Time { seconds, nanoseconds },
            device: if is_device { device } else { (0, 0) },
            xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
            ..Entry::regular(path, size)
        }
    }
}

proptest! {
    #[test]
    fn entries_are_read_back(entries in prop::collection::vec(entries(), 1..4)) {
        prop_assert_eq!(read(&archive(&entries)), entries);
    }
}

#[test]
fn records_count_their_own_length() {
    for length in [1, 85, 86, 87, 88, 89, 90, 91, 985, 990, 9990] {
        let mut bytes = Vec::new();
        record(&mut bytes, b"path", &vec![b'n'; length]);
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        assert_eq!(std::str::from_utf8(&bytes[..space]).unwrap().parse(), Ok(bytes.len()));
    }
}

#[test]
fn tar_crate_reads_large_sizes_long_names_and_attributes() {
    let entry = Entry {
        size: 9 << 30,
        xattrs: vec![(b"user.a".to_vec(), b"\0=".to_vec())],
        ..Entry::regular(vec![b'n'; 300], 0)
    };
    let bytes = archive(&[entry]);
    let mut archive = ::tar::Archive::new(&bytes[..]);
    let mut entries = archive.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!((entry.path_bytes().len(), entry.size()), (300, 9 << 30));
    let records: Vec<_> = entry.pax_extensions().unwrap().unwrap().map(Result::unwrap).collect();
    assert!(
        records.iter().any(|record| record.key_bytes() == b"SCHILY.xattr.user.a" && record.value_bytes() == b"\0=")
    );
}
