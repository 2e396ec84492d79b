// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a squashfs image by the kernel's rules (`fs/squashfs`: super.c, id.c, xattr_id.c, inode.c,
//! dir.c, file.c), with byte offsets instead of the writer's structures, and makes the kernel's
//! checks. Uncompressed images only.

use super::Found;
use std::collections::BTreeMap;

const BLOCK: usize = 128 << 10;
const NOTHING: u32 = u32::MAX;

struct Image<'a> {
    bytes: &'a [u8],
    inodes: u64,
    directories: u64,
    owners: Vec<u32>,
    /// Place and count of each set, by number.
    xattrs: Vec<(u64, u32)>,
    values: u64,
}

struct Inode {
    found: Found,
    /// Of a directory: place and length of its listing, number of the parent.
    listing: (u64, usize),
    parent: u32,
}

/// A position in a table: the bytes of the table from there.
struct Cursor<'a> {
    rest: Vec<u8>,
    at: usize,
    _image: &'a [u8],
}

impl Cursor<'_> {
    fn take(&mut self, length: usize) -> &[u8] {
        self.at += length;
        &self.rest[self.at - length..self.at]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }
}

/// Returns all files by path; the root is the empty path. Attributes have EROFS' namespace numbers.
pub(crate) fn read_squashfs(bytes: &[u8]) -> BTreeMap<String, Found> {
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..4], b"hsqs", "magic number");
    assert_eq!((u16_at(28), u16_at(30)), (4, 0), "version");
    assert_eq!((u32_at(12) as usize, 1 << u16_at(22)), (BLOCK, BLOCK), "block size and its logarithm");
    assert_eq!(u32_at(16), 0, "fragments");
    let used = u64_at(40);
    assert!(used as usize <= bytes.len() && bytes.len().is_multiple_of(4096), "bytes used");

    let (ids, xattr_ids, inodes, directories) = (u64_at(48), u64_at(56), u64_at(64), u64_at(72));
    assert!(inodes < directories, "order of the tables");
    let mut image = Image { bytes, inodes, directories, owners: Vec::new(), xattrs: Vec::new(), values: used };
    if xattr_ids != u64::MAX {
        let (count, at) = (u32_at(xattr_ids as usize + 8), xattr_ids as usize + 16);
        image.values = u64_at(xattr_ids as usize);
        assert!(count > 0);
        let blocks = (count as usize * 16).div_ceil(8192);
        assert_eq!(at + blocks * 8, used as usize, "the index of the attributes ends the image");
        let mut table = image.table(u64_at(at), 0, count as usize * 16);
        image.xattrs = (0..count).map(|_| (table.u64(), table.u32(), table.u32())).map(|(a, b, _)| (a, b)).collect();
    }
    let count = usize::from(u16_at(26));
    assert!(count > 0, "the root has an owner");
    let blocks = (count * 4).div_ceil(8192);
    assert_eq!(ids + blocks as u64 * 8, image.values, "the index of the owners touches what follows");
    assert!(directories <= u64_at(ids as usize));
    let mut table = image.table(u64_at(ids as usize), 0, count * 4);
    image.owners = (0..count).map(|_| table.u32()).collect();

    let mut files = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let mut directories = vec![(String::new(), u64_at(32), None)];
    while let Some((path, reference, parent)) = directories.pop() {
        let inode = image.inode(reference);
        let number = inode.found.nid as u32;
        numbers.insert(number, reference);
        assert_eq!(inode.parent, parent.unwrap_or(number), "{path}/..");
        let mut below = 0;
        for (name, child, number, kind) in image.directory(&inode) {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            let found = image.inode(child).found;
            assert_eq!(found.nid, u64::from(number), "{path}: the number in the directory");
            let kinds = [(1, 0o04), (2, 0o10), (3, 0o12), (4, 0o06), (5, 0o02), (6, 0o01)];
            assert!(kinds.contains(&(kind, found.mode >> 12)), "{path}: type {kind}, mode {:o}", found.mode);
            assert_eq!(*numbers.entry(number).or_insert(child), child, "{path}: one number, two inodes");
            if kind == 1 {
                below += 1;
                directories.push((path, child, Some(inode.found.nid as u32)));
            } else {
                files.insert(path, found);
            }
        }
        assert_eq!(inode.found.nlink, 2 + below, "links of directory {path}");
        files.insert(path, inode.found);
    }
    assert_eq!(u32_at(4) as usize, numbers.len(), "inodes");
    files
}

impl Image<'_> {
    /// At least `length` bytes of a table from the block at `block`, offset `offset`.
    fn table(&self, block: u64, offset: usize, length: usize) -> Cursor<'_> {
        let (mut at, mut rest) = (block as usize, Vec::new());
        while rest.len() < offset + length {
            let header = usize::from(u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap()));
            let size = header & 0x7fff;
            assert!(header & 0x8000 != 0 && (1..=8192).contains(&size), "a compressed or empty block");
            rest.extend_from_slice(&self.bytes[at + 2..at + 2 + size]);
            at += 2 + size;
        }
        Cursor { rest: rest.split_off(offset), at: 0, _image: self.bytes }
    }

    fn inode(&self, reference: u64) -> Inode {
        let (block, offset) = (self.inodes + (reference >> 16), (reference & 0xffff) as usize);
        assert!(offset < 8192 && block < self.directories);
        let kind = self.table(block, offset, 2).u16();
        let fixed = [0, 0, 0, 0, 0, 0, 0, 0, 40, 56, 24, 28, 28, 24][usize::from(kind)];
        let mut at = self.table(block, offset, fixed);
        at.take(2);
        let (mode, user, group) = (at.u16(), at.u16(), at.u16());
        assert_eq!(mode & !0o7777, 0, "the type is not in the mode");
        let mut found = Found {
            mode,
            owner: (self.owners[usize::from(user)], self.owners[usize::from(group)]),
            mtime: (i64::from(at.u32()), 0),
            nid: u64::from(at.u32()),
            nlink: 0,
            device: 0,
            content: Vec::new(),
            size: 0,
            xattrs: Vec::new(),
        };
        let (mut listing, mut parent) = ((0, 0), 0);
        let set;
        match kind {
            8 => {
                found.nlink = at.u32();
                let size = at.u32() as usize - 3;
                let start = u64::from(at.u32());
                parent = at.u32();
                assert_eq!(at.u16(), 0, "an index");
                listing = (start << 16 | u64::from(at.u16()), size);
                set = at.u32();
            }
            9 => {
                let start = at.u64() as usize;
                found.size = at.u64();
                let sparse = at.u64();
                found.nlink = at.u32();
                assert_eq!((at.u32(), at.u32()), (NOTHING, 0), "no fragment");
                set = at.u32();
                let count = (found.size as usize).div_ceil(BLOCK);
                let mut at = self.table(block, offset, 56 + 4 * count);
                at.take(56);
                let lengths: Vec<u32> = (0..count).map(|_| at.u32()).collect();
                found.content = self.data(start, found.size as usize, sparse, &lengths);
            }
            10 => {
                found.nlink = at.u32();
                let size = at.u32() as usize;
                found.size = size as u64;
                let mut at = self.table(block, offset, 24 + size + 4);
                at.take(24);
                found.content = at.take(size).to_vec();
                set = at.u32();
            }
            11 | 12 => (found.nlink, found.device, set) = (at.u32(), at.u32(), at.u32()),
            13 => (found.nlink, set) = (at.u32(), at.u32()),
            other => panic!("inode of type {other}"),
        }
        found.mode |= [0o040_000, 0o100_000, 0o120_000, 0o060_000, 0o020_000, 0o010_000][usize::from(kind - 8)];
        found.xattrs = self.set(set);
        Inode { found, listing, parent }
    }

    /// Content of a file; empty for files of more than 64 MiB, as in the reader of EROFS.
    fn data(&self, start: usize, size: usize, sparse: u64, lengths: &[u32]) -> Vec<u8> {
        let (mut at, mut holes, mut content) = (start, 0, Vec::new());
        for (number, length) in lengths.iter().enumerate() {
            let whole = (size - number * BLOCK).min(BLOCK);
            let keep = size <= 64 << 20;
            if *length == 0 {
                holes += whole;
                content.resize(content.len() + if keep { whole } else { 0 }, 0);
                continue;
            }
            assert_eq!(*length, 1 << 24 | whole as u32, "block {number}");
            content.extend_from_slice(if keep { &self.bytes[at..at + whole] } else { &[] });
            at += whole;
        }
        assert_eq!(sparse, holes as u64, "bytes in holes");
        assert!(at as u64 <= self.inodes, "data behind the tables");
        content
    }

    fn set(&self, number: u32) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        if number == NOTHING {
            return Vec::new();
        }
        let (reference, count) = self.xattrs[number as usize];
        let (block, offset) = (self.values + (reference >> 16), (reference & 0xffff) as usize);
        let (mut used, mut found) = (0, Vec::new());
        for _ in 0..count {
            let mut at = self.table(block, offset, used + 4);
            at.take(used);
            let (namespace, name_length) = (at.u16(), usize::from(at.u16()));
            let mut at = self.table(block, offset, used + 4 + name_length + 4);
            at.take(used + 4);
            let name = at.take(name_length).to_vec();
            let length = at.u32() as usize;
            let mut at = self.table(block, offset, used + 8 + name_length + length);
            at.take(used + 8 + name_length);
            found.push(([1, 4, 6][usize::from(namespace)], name, at.take(length).to_vec()));
            used += 8 + name_length + length;
        }
        found
    }

    /// Names with the reference, number and type of their inodes.
    fn directory(&self, inode: &Inode) -> Vec<(Vec<u8>, u64, u32, u16)> {
        let (reference, size) = inode.listing;
        if size == 0 {
            return Vec::new();
        }
        let mut at = self.table(self.directories + (reference >> 16), (reference & 0xffff) as usize, size);
        let mut entries = Vec::new();
        while at.at < size {
            let (count, block, base) = (at.u32() + 1, u64::from(at.u32()), at.u32());
            assert!((1..=256).contains(&count), "names of a run");
            for _ in 0..count {
                let (offset, difference) = (u64::from(at.u16()), at.u16() as i16);
                let (kind, length) = (at.u16(), usize::from(at.u16()) + 1);
                assert!((1..=255).contains(&length), "length of a name");
                let number = base.wrapping_add_signed(i32::from(difference));
                entries.push((at.take(length).to_vec(), block << 16 | offset, number, kind));
            }
        }
        assert_eq!(at.at, size, "the listing ends with a name");
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "names are sorted");
        entries
    }
}
