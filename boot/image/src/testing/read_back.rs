// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads an EROFS image by the kernel's rules (`fs/erofs`: super.c, inode.c, dir.c, data.c), with
//! byte offsets instead of the writer's structures, and makes the kernel's checks.

use std::collections::BTreeMap;

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file type is included.
    pub mode: u16,
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    pub nlink: u32,
    /// Equal for the names of one file.
    pub nid: u64,
    /// Device number in the kernel's encoding, else 0.
    pub device: u32,
    /// Bytes of a file or target of a link, else empty. Empty for files of more than 64 MiB.
    pub content: Vec<u8>,
    pub size: u64,
    /// Namespace number, name without its prefix, value.
    pub xattrs: Vec<(u8, Vec<u8>, Vec<u8>)>,
}

struct Image<'a>(&'a [u8]);

struct Inode {
    offset: usize,
    layout: u16,
    found: Found,
    union: u32,
    /// Offset after the inode and its attributes.
    behind: usize,
}

/// Returns all files by path; the root is the empty path.
pub(crate) fn read_back(bytes: &[u8]) -> BTreeMap<String, Found> {
    let image = Image(bytes);
    assert_eq!(image.u32(1024), 0xe0f5_e1e2, "magic number");
    assert_eq!(bytes[1024 + 12], 12, "block size");
    assert_eq!(u64::from(image.u32(1024 + 36)) * 4096, bytes.len() as u64, "blocks");
    let mut block = bytes[1024..4096].to_vec();
    block[4..8].fill(0);
    assert_eq!(image.u32(1028), crc32c(&block), "checksum");

    let mut files = BTreeMap::new();
    let root = u64::from(image.u16(1024 + 14));
    let mut directories = vec![(String::new(), root, root)];
    while let Some((path, nid, parent)) = directories.pop() {
        let inode = image.inode(nid);
        let mut below = 0;
        for (name, child, kind) in image.directory(&inode) {
            match name.as_slice() {
                b"." => assert_eq!(child, nid, "{path}/."),
                b".." => assert_eq!(child, parent, "{path}/.."),
                name => {
                    let path = format!("{path}/{}", String::from_utf8_lossy(name));
                    let found = image.inode(child).found;
                    let kinds = [(1, 0o10), (2, 0o04), (3, 0o02), (4, 0o06), (5, 0o01), (7, 0o12)];
                    assert!(kinds.contains(&(kind, found.mode >> 12)), "{path}: type {kind}, mode {:o}", found.mode);
                    if kind == 2 {
                        below += 1;
                        directories.push((path, child, nid));
                    } else {
                        files.insert(path, found);
                    }
                }
            }
        }
        assert_eq!(inode.found.nlink, 2 + below, "links of directory {path}");
        files.insert(path, inode.found);
    }
    assert_eq!(
        u64::from(image.u32(1024 + 16)),
        files.values().map(|file| file.nid).collect::<std::collections::BTreeSet<_>>().len() as u64
    );
    files
}

impl Image<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.0[at..at + 2].try_into().unwrap())
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn inode(&self, nid: u64) -> Inode {
        let at = nid as usize * 32;
        let format = self.u16(at);
        assert_eq!(format & !0xf | 1, 1, "inode format {format:x}");
        assert_eq!(format & 1, 1, "only extended inodes are written");
        let icount = usize::from(self.u16(at + 2));
        let xattr_size = if icount == 0 { 0 } else { 12 + 4 * (icount - 1) };
        assert_ne!(icount, 1, "a header without attributes is not supported by the kernel");
        let mode = self.u16(at + 4);
        let is_device = matches!(mode >> 12, 0o02 | 0o06);
        let mut inode = Inode {
            offset: at,
            layout: format >> 1,
            union: self.u32(at + 16),
            behind: at + 64 + xattr_size,
            found: Found {
                mode,
                owner: (self.u32(at + 24), self.u32(at + 28)),
                mtime: (self.u64(at + 32) as i64, self.u32(at + 40)),
                nlink: self.u32(at + 44),
                nid,
                device: if is_device { self.u32(at + 16) } else { 0 },
                content: Vec::new(),
                size: self.u64(at + 8),
                xattrs: self.xattrs(at + 64, xattr_size),
            },
        };
        if matches!(mode >> 12, 0o10 | 0o12) && inode.found.size <= 64 << 20 {
            inode.found.content = self.data(&inode);
        }
        inode
    }

    fn xattrs(&self, at: usize, size: usize) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        if size == 0 {
            return Vec::new();
        }
        assert_eq!(self.0[at + 4], 0, "shared attributes");
        let (mut at, end) = (at + 12, at + size);
        let mut found = Vec::new();
        while at < end {
            let (name, value) = (usize::from(self.0[at]), usize::from(self.u16(at + 2)));
            let start = at + 4;
            let value_start = start + name;
            found.push((
                self.0[at + 1],
                self.0[start..value_start].to_vec(),
                self.0[value_start..value_start + value].to_vec(),
            ));
            at = (value_start + value).next_multiple_of(4);
        }
        assert_eq!(at, end);
        found
    }

    /// The data of a file of any type.
    fn data(&self, inode: &Inode) -> Vec<u8> {
        let size = inode.found.size as usize;
        match inode.layout {
            0 => {
                let start = inode.union as usize * 4096;
                if size == 0 { Vec::new() } else { self.0[start..start + size].to_vec() }
            }
            2 => {
                let tail = size % 4096;
                assert!(tail > 0, "inline layout without a tail");
                assert!(inode.behind % 4096 + tail <= 4096, "the tail of inode {} crosses a block", inode.offset);
                let start = inode.union as usize * 4096;
                let whole = if size > tail { &self.0[start..start + size - tail] } else { &[] };
                [whole, &self.0[inode.behind..inode.behind + tail]].concat()
            }
            4 => {
                assert_eq!(inode.union & !0x1f, 0, "chunk format");
                let chunk = 4096usize << inode.union;
                let mut data = vec![0; size];
                for (number, part) in data.chunks_mut(chunk).enumerate() {
                    let block = self.u32(inode.behind + 4 * number);
                    if block != u32::MAX {
                        let start = block as usize * 4096;
                        part.copy_from_slice(&self.0[start..start + part.len()]);
                    }
                }
                data
            }
            other => panic!("data layout {other}"),
        }
    }

    fn directory(&self, inode: &Inode) -> Vec<(Vec<u8>, u64, u8)> {
        let data = self.data(inode);
        let mut entries: Vec<(Vec<u8>, u64, u8)> = Vec::new();
        for block in data.chunks(4096) {
            let offset = |entry: usize| usize::from(u16::from_le_bytes([block[entry * 12 + 8], block[entry * 12 + 9]]));
            assert!(offset(0) > 0 && offset(0) % 12 == 0);
            let count = offset(0) / 12;
            for entry in 0..count {
                let end = if entry + 1 < count { offset(entry + 1) } else { block.len() };
                let name = &block[offset(entry)..end];
                let name = name.split(|byte| *byte == 0).next().unwrap().to_vec();
                assert!((1..=255).contains(&name.len()), "length of a name");
                let nid = u64::from_le_bytes(block[entry * 12..entry * 12 + 8].try_into().unwrap());
                entries.push((name, nid, block[entry * 12 + 10]));
            }
        }
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "names are sorted");
        entries
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    crc
}
