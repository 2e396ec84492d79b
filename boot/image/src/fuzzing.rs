// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must hold for every input, however damaged: the fuzz target `image` (tests/fuzz) feeds this, and a unit test does so for a
//! moment. No part of the product.

use crate::budget::Budget;
use crate::convert::write_root_disk;
use crate::decompress::{Compression, HashedFile};
use crate::digest::Digest;
use crate::erofs::Erofs;
use crate::file_system::{self, FileKind, FileSystem as _};
use crate::layer_files::{EntryReader, FilePlace, LayerFiles, LayerSizes, write_layer};
use crate::root_disk::{RootDisk, RootDiskPart, RootFormat, Volume};
use crate::tar::{Entry, FileSection, Kind, Reader, TarWriter, Time};
use crate::tree::{Content, Merge, NodeId, Tree};
use rustix::fs::MemfdFlags;
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

/// A larger file is compared in a few places.
const MAX_WHOLE: u64 = 1 << 20;
const WINDOW: u64 = 4096;
/// Of a root disk, and of what is decompressed.
const MAX_OUTPUT: u64 = 64 << 20;
const MAX_SEGMENTS: u8 = 5;
#[rustfmt::skip] // One line per name would hide the rest of the file.
const PAX_KEYS: [&[u8]; 16] = [
    b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"SCHILY.xattr.user.a", b"SCHILY.xattr.security.capability",
    b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name", b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.map",
    b"GNU.sparse.numblocks", b"GNU.sparse.offset",
];
/// Names of members; some are whiteouts, some are invalid.
const NAMES: [&[u8]; 12] =
    [b"a", b"b", b"c", b"d", b".wh.a", b".wh.b", b".wh..wh..opq", b"..", b".", b"", b".wh..wh.aufs", b"\xff\n"];

/// Layers whose members `bytes` describe, one after the other: valid archives, in which anything may be wrong.
#[must_use]
pub fn layers(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut input = bytes.iter().copied();
    let mut layers = vec![Vec::new()];
    while let Some(kind) = input.next() {
        let layer = layers.last_mut().expect("there is the first one");
        match kind % 16 {
            15 => layers.push(Vec::new()),
            14 => layer.extend(extended_header(b'x', &pax_records(&mut input))),
            13 => {
                let header = b"LKgS17"[usize::from(kind >> 4) % 6];
                let length = usize::from(input.next().unwrap_or(0));
                layer.extend(extended_header(header, &input.by_ref().take(length).collect::<Vec<_>>()));
            }
            _ => {
                let entry = entry(kind, &mut input);
                let byte = |at| if kind & 0x40 == 0 { (at + u64::from(kind)) as u8 } else { 0 };
                let size = if entry.kind == Kind::Regular { entry.size } else { 0 };
                layer.extend(member(&entry, &(0..size).map(byte).collect::<Vec<_>>()));
            }
        }
    }
    layers
}

/// `bytes` with some of its bytes replaced: `patches` is a list of places, of two bytes each, and values. The checksums of headers are
/// correct again.
#[must_use]
pub fn damaged(mut bytes: Vec<u8>, patches: &[u8]) -> Vec<u8> {
    for patch in patches.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]]));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = patch[2];
        }
    }
    sealed(&bytes)
}

/// The list of entries of a layer; empty if it is no layer.
#[must_use]
pub fn list(archive: &[u8]) -> Vec<u8> {
    let list = file();
    let _ = write_layer(archive, &file(), &list, &Budget::default(), |_| {}, |_| LayerSizes::default());
    let mut bytes = Vec::new();
    (&list).rewind().and_then(|()| (&list).read_to_end(&mut bytes)).expect("it is readable");
    bytes
}

fn member(entry: &Entry, data: &[u8]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    let written = writer.entry(entry).and_then(|()| writer.write(data)).and_then(|()| writer.end(data.len() as u64));
    let mut bytes = written.and_then(|()| writer.finish()).expect("a vector takes all");
    // Without the end of an archive.
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn extended_header(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = member(&Entry::regular(b"x".to_vec(), data.len() as u64), data);
    bytes[156] = kind;
    sealed(&bytes)
}

fn pax_records(input: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut next = || input.next().unwrap_or(0);
    for _ in 0..next() % 8 {
        let key = PAX_KEYS[usize::from(next()) % PAX_KEYS.len()];
        let length = next() % 24;
        let value: Vec<u8> = (0..length).map(|_| next()).collect();
        let rest = [b" ", key, b"=", &value, b"\n"].concat();
        // The length includes its own digits.
        let digits = if rest.len() + 1 < 10 { 1 } else { 2 };
        records.extend_from_slice((rest.len() + digits).to_string().as_bytes());
        records.extend(rest);
    }
    records
}

fn entry(kind: u8, input: &mut impl Iterator<Item = u8>) -> Entry {
    let kinds = [
        Kind::Regular,
        Kind::HardLink,
        Kind::Symlink,
        Kind::Directory,
        Kind::CharacterDevice,
        Kind::BlockDevice,
        Kind::Fifo,
        Kind::Regular,
    ];
    let mut next = || input.next().unwrap_or(0);
    let mut path = || {
        let count = next() % MAX_SEGMENTS;
        let names: Vec<&[u8]> = (0..count).map(|_| NAMES[usize::from(next()) % NAMES.len()]).collect();
        names.join(&b'/')
    };
    let (name, link) = (path(), path());
    let mut word = || u16::from_le_bytes([next(), next()]);
    // Around the multiples of a block and of a chunk.
    let size = u64::from(word()) + if kind & 0x20 == 0 { 0 } else { 60 << 10 };
    let (mode, uid, seconds) = (word(), word(), word().cast_signed());
    let xattrs = match next() {
        0..200 => Vec::new(),
        some => (0..some % 4).map(|_| (format!("user.{}", next()).into(), vec![next(); usize::from(next())])).collect(),
    };
    let mut entry = Entry::regular(name, size);
    entry.kind = kinds[usize::from(kind) % kinds.len()];
    entry.link = match entry.kind {
        Kind::HardLink | Kind::Symlink => link,
        _ => Vec::new(),
    };
    if entry.kind != Kind::Regular {
        (entry.size, entry.stored) = (0, 0);
    }
    entry.device = match entry.kind {
        Kind::CharacterDevice | Kind::BlockDevice => (uid.into(), size as u32),
        _ => (0, 0),
    };
    (entry.mode, entry.uid, entry.mtime.seconds) = (mode & 0o7777, uid.into(), seconds.into());
    entry.xattrs = xattrs;
    entry.xattrs.sort();
    entry.xattrs.dedup_by(|a, b| a.0 == b.0);
    entry
}

/// `bytes` with correct checksums in all blocks that look like a header.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// Converts an image of these layers and reads it back.
///
/// # Panics
/// What is read back differs from the archives.
pub fn convert(archives: &[Vec<u8>]) {
    let mut layers = Vec::new();
    let mut parts = Vec::new();
    for archive in archives {
        let [data, entries] = [(); 2].map(|()| file());
        let bytes = archive.len() as u64;
        let sizes = |_: &mut &[u8]| LayerSizes { uncompressed: bytes, stored: bytes };
        if let Err(error) = write_layer(&archive[..], &data, &entries, &Budget::default(), |_| {}, sizes) {
            return check_message(&error);
        }
        parts.push(data.try_clone().expect("a descriptor is left"));
        let layer = LayerFiles::open(Digest::of(archive), data, entries).expect("it is readable");
        let layer = layer.expect("what was written is complete");
        check_layer(archive, &layer);
        layers.push(layer);
    }
    let mut merge = Merge::new(Arc::default());
    for (number, layer) in layers.iter().enumerate() {
        if let Err(error) = merge.layer(number as u32, layer.entries()) {
            return check_message(&error);
        }
    }
    let tree = merge.finish();
    let volume = Volume { uuid: [0; 16], name: [0; 16] };
    let [squashfs, disk] = [(); 2].map(|()| file());
    let write = |format, disk| write_root_disk(format, &tree, &layers, &volume, disk, MAX_OUTPUT, &|_, _| {});
    if let Err(error) = write(RootFormat::Squashfs, &squashfs) {
        check_message(&error);
    }
    let written = match write(RootFormat::Erofs, &disk) {
        Ok(written) => written,
        Err(error) => return check_message(&error),
    };
    let mut parts: Vec<_> = parts.into_iter().map(Some).collect();
    let part = |file| RootDiskPart::new(PathBuf::new(), file).expect("it is a file");
    let data = written.layers.iter().map(|number| part(parts[*number].take().expect("each layer is there once")));
    let disk = RootDisk::new(part(disk), data);
    let budget = Arc::<Budget>::default();
    let disk = Erofs::open(disk, budget.clone()).expect("what was written is an EROFS image");
    let (numbers, names) = (HashMap::new(), HashMap::new());
    Comparison { tree: &tree, layers: &layers, disk: &disk, budget: &budget, numbers, names }.run();
}

fn file() -> File {
    rustix::fs::memfd_create("fuzzing", MemfdFlags::CLOEXEC).expect("there is memory").into()
}

/// Fails unless each level of an error is one line.
fn check_message(error: &(dyn Error + 'static)) {
    let levels = std::iter::successors(Some(error), |&error| error.source());
    for message in levels.map(ToString::to_string) {
        assert!(!message.is_empty() && !message.chars().any(char::is_control), "{message:?}");
        assert!(message.len() < 2000, "{message}");
    }
}

/// Compares the two files of a layer with what a second pass over the archive finds.
fn check_layer(archive: &[u8], layer: &LayerFiles) {
    let mut reader = Reader::new(archive);
    let mut entries = layer.entries();
    while let Some(mut entry) = reader.next_entry().expect("the first pass read it") {
        let (stored, place) = entries.next_entry().expect("it was written").expect("every entry was written");
        let extents = entry.extents.take().unwrap_or_else(|| vec![(0, entry.size)]);
        entry.stored = 0;
        assert_eq!(entry, stored);
        let Some(place) = place else { continue };
        for (offset, length) in extents {
            let mut content = vec![0; length as usize];
            let mut done = 0;
            while done < content.len() {
                let bytes = reader.data().expect("the first pass read it");
                let now = bytes.len().min(content.len() - done);
                content[done..done + now].copy_from_slice(&bytes[..now]);
                reader.consume(now);
                done += now;
            }
            let mut found = vec![1; content.len()];
            layer.read_file(&place, entry.size, &mut found, offset).expect("it was written");
            assert!(found == content, "content of {:?}", entry.path);
        }
    }
    assert!(entries.next_entry().expect("it was written").is_none());
}

struct Comparison<'a> {
    tree: &'a Tree,
    layers: &'a [LayerFiles],
    disk: &'a Erofs,
    budget: &'a Budget,
    /// The file on the disk of each node that was seen.
    numbers: HashMap<NodeId, u64>,
    /// How many names were seen of it.
    names: HashMap<NodeId, u32>,
}

impl Comparison<'_> {
    fn run(mut self) {
        let mut left = vec![(Tree::ROOT, self.disk.root())];
        while let Some((node, number)) = left.pop() {
            *self.names.entry(node).or_default() += 1;
            if *self.numbers.entry(node).or_insert(number) != number {
                panic!("a hard link is another file");
            }
            self.compare(node, number, &mut left);
        }
        for (node, names) in &self.names {
            let links = self.disk.metadata(self.numbers[node]).expect("it was read before").links;
            assert!(self.tree.children(*node).is_some() || links == *names, "{links} links, {names} names");
        }
    }

    fn compare(&self, id: NodeId, number: u64, left: &mut Vec<(NodeId, u64)>) {
        let node = self.tree.node(id);
        let found = self.disk.metadata(number).expect("the inode is readable");
        let Time { seconds, nanoseconds } = node.metadata.mtime;
        let owner = (found.permissions, found.uid, found.gid);
        assert_eq!(owner, (node.metadata.mode, node.metadata.uid, node.metadata.gid));
        assert_eq!(found.modified, (seconds, nanoseconds));
        let xattrs = self.disk.xattrs(number).expect("the attributes are readable");
        let expected = node.metadata.xattrs.iter().map(|(name, value)| (&**name, &**value));
        assert!(xattrs.iter().map(|xattr| (&*xattr.name, &*xattr.value)).eq(expected), "extended attributes");
        let kind = match &node.content {
            Content::Directory(children) => {
                let entries = self.disk.entries(number).expect("the directory is readable");
                assert!(entries.iter().map(|(name, _)| name).eq(children.keys()), "names of a directory");
                self.budget.release(file_system::entries_cost(&entries));
                left.extend(children.values().zip(&entries).map(|(child, (_, number))| (child.node, *number)));
                FileKind::Directory
            }
            Content::Regular { size, layer, place } => {
                assert_eq!(found.size, *size);
                self.compare_content(number, *size, &self.layers[*layer as usize], place);
                FileKind::Regular
            }
            Content::Symlink(target) => {
                assert_eq!(self.disk.link_target(number).expect("the symlink is readable"), **target);
                FileKind::Symlink
            }
            Content::CharacterDevice { major, minor } => {
                assert_eq!(found.device, (*major, *minor));
                FileKind::CharDevice
            }
            Content::BlockDevice { major, minor } => {
                assert_eq!(found.device, (*major, *minor));
                FileKind::BlockDevice
            }
            Content::Fifo => FileKind::Fifo,
        };
        assert_eq!(found.kind, kind);
    }

    fn compare_content(&self, number: u64, size: u64, layer: &LayerFiles, place: &FilePlace) {
        let extents = self.disk.extents(number).expect("the file is readable");
        let mut windows = vec![(0, size.min(MAX_WHOLE)), (size - size.min(WINDOW), size)];
        if let FilePlace::Sparse { extents, .. } = place {
            let ends = extents.iter().take(16).flat_map(|extent| [extent.offset, extent.offset + extent.length]);
            windows.extend(ends.map(|end| (end.saturating_sub(WINDOW), end.saturating_add(WINDOW).min(size))));
        }
        for (start, end) in windows {
            let [mut expected, mut found] = [1, 0].map(|byte| vec![byte; (end - start) as usize]);
            layer.read_file(place, size, &mut expected, start).expect("the layer is readable");
            for extent in &extents {
                let (from, to) = (extent.offset.max(start), (extent.offset + extent.length).min(end));
                if from < to {
                    let part = &mut found[(from - start) as usize..(to - start) as usize];
                    self.disk.read_at(part, extent.position + (from - extent.offset)).expect("the disk is readable");
                }
            }
            assert!(found == expected, "content from byte {start} of {size}");
        }
        self.budget.release(file_system::extents_cost(&extents));
    }
}

/// Reads and merges `bytes` as the entries of a layer.
pub fn entries(bytes: &[u8]) {
    let list = file();
    (&list).write_all(bytes).expect("there is memory");
    let opened = LayerFiles::open(Digest::of(b""), file(), list.try_clone().expect("a descriptor is left"));
    drop(opened.or_else(|error| if bytes.is_empty() { Ok(None) } else { Err(error) }).expect("it is readable"));
    let mut merge = Merge::new(Arc::default());
    if let Err(error) = merge.layer(0, EntryReader::new(Arc::new(list), bytes.len() as u64)) {
        check_message(&error);
    }
}

/// Decompresses `bytes`.
pub fn decompress(bytes: &[u8]) {
    let compressed = file();
    (&compressed).write_all(bytes).expect("there is memory");
    let section = FileSection::new(Arc::new(compressed), 0, bytes.len() as u64, WINDOW as usize);
    let mut file = HashedFile::new(section, Some(&Digest::of(b"")));
    let Ok(compression) = Compression::detect(file.fill_buf().expect("it is readable")) else { return };
    let mut decoder = compression.decoder(file);
    let mut buffer = [0; 1 << 14];
    let mut total = 0;
    let budget = Budget::default();
    while let Ok(count) = decoder.read(&mut buffer)
        && count > 0
        && total < MAX_OUTPUT / 64
    {
        total += count as u64;
        if decoder.charge(&budget).is_err() {
            return;
        }
    }
    assert!(decoder.consumed() <= bytes.len() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Archive, Member, gzip, zstd};

    /// A sequence that is the same each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % end
        }

        fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
            let mut bytes = bytes.to_vec();
            for _ in 0..=self.below(6) {
                let at = self.below(bytes.len());
                match self.below(4) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = b"\0/70\xff"[self.below(5)],
                    2 => bytes[at] ^= 1 << self.below(8),
                    _ => bytes[at] = self.below(256) as u8,
                }
            }
            bytes
        }
    }

    fn archive() -> Vec<u8> {
        let sparse = Member::file("sparse", "1\n60000\n3\n".to_owned() + &"\0".repeat(502) + "abc");
        let sparse = sparse.pax("GNU.sparse.major", "1").pax("GNU.sparse.minor", "0");
        let sparse = sparse.pax("GNU.sparse.name", "real").pax("GNU.sparse.realsize", "200000");
        let members = [
            Member::directory("d").owner(7, 8),
            Member::file("d/f", [7; 5000]).pax("SCHILY.xattr.user.x", "value").pax("mtime", "-1.5"),
            Member::hard_link("h", "d/f"),
            Member::symlink("s", "d"),
            Member::file("s/.wh.f", ""),
            Member::new(b'3', "c", "", "").device(1, 3),
            Member::file("n".repeat(200), [0; 1 << 16]),
            sparse,
        ];
        Archive::of(members).bytes()
    }

    #[test]
    fn damaged_layers_and_lists_are_errors() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let archive = archive();
        convert(std::slice::from_ref(&archive));
        let list = list(&archive);
        let packed = [gzip(&archive), zstd(&archive)];
        for _ in 0..100 {
            convert(&[sealed(&random.damage(&archive))]);
            let described: Vec<u8> = (0..200).map(|_| random.below(256) as u8 & [0xff, 3][random.below(2)]).collect();
            convert(&layers(&described));
            entries(&random.damage(&list));
            packed.iter().for_each(|packed| decompress(&random.damage(packed)));
        }
    }
}
