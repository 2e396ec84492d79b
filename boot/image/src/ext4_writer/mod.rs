// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes an ext4 file system (Linux `Documentation/filesystems/ext4/index.rst`) with the files of another one: extents, a journal, free space to
//! write into, neither checksums nor directory indexes. The same files give the same bytes.
//!
//! Inodes and blocks are given out in order, so that the bitmaps need no memory. What is free is a hole of the file.

mod directory;
#[cfg(test)]
mod ext4_writer_tests;
mod extent_tree;
mod inode;
mod layout;
mod xattr_block;

use crate::budget::Budget;
use crate::file_system::{
    EXTENT_COST, Extent, FileKind, FileSystem, FileSystemError, Metadata, Name, entries_cost, extents_cost,
};
use crate::limits;
use directory::DirectoryBlocks;
use extent_tree::{ExtentTree, Run};
use inode::{Inode, Map};
use layout::{Allocator, Layout, Used};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use xattr_block::XattrBlocks;

const BLOCK_SIZE: usize = 4096;
const BLOCK: u64 = BLOCK_SIZE as u64;
const ROOT: u32 = 2;
const JOURNAL: u32 = 8;
const LOST_AND_FOUND: u32 = 11;
const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";
/// A shorter target is in the inode.
const MIN_LINK_BLOCK: usize = 60;
const COPY_BUF_SIZE: usize = 256 << 10;
/// Memory of a number in a set or a map, or of a directory that waits.
const NUMBER_COST: u64 = 96;
/// What a directory counts up to.
const MAX_LINKS: u64 = 65_000;

#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    #[error("cannot read the image's files")]
    Read(#[source] FileSystemError),
    #[error("{path}: {what}")]
    File { path: String, what: &'static str },
    #[error("cannot write the file system")]
    Write(#[source] io::Error),
    #[error("the file system would be larger than {} GiB", limits::MAX_UNCOMPRESSED_BYTES >> 30)]
    TooLarge,
}

impl From<FileSystemError> for Ext4Error {
    fn from(error: FileSystemError) -> Self {
        Self::Read(error)
    }
}

impl Ext4Error {
    /// Whether the cause is this host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Read(FileSystemError::Read(_)))
    }
}

/// Writes the files of `source` to the empty `file`. `progress` is called with the blocks written and those that are to be.
pub(crate) fn write(
    source: &dyn FileSystem,
    uuid: [u8; 16],
    file: &File,
    budget: &Budget,
    progress: &dyn Fn(u64, u64),
) -> Result<(), Ext4Error> {
    let need = measure(source, budget)?;
    let layout = Layout::of(&need).ok_or(Ext4Error::TooLarge)?;
    file.set_len(layout.blocks() * BLOCK).map_err(Ext4Error::Write)?;
    let allocator = Allocator::new(&layout);
    let mut writer = Writer {
        source,
        file,
        layout: &layout,
        allocator,
        next_inode: LOST_AND_FOUND + 1,
        directories: vec![0; layout.groups() as usize],
        xattrs: XattrBlocks::default(),
        links: BTreeMap::new(),
        budget,
        progress,
        expected: need.blocks,
    };
    let journal = writer.journal(uuid)?;
    writer.files()?;
    writer.xattrs.finish(file).map_err(Ext4Error::Write)?;
    let Writer { allocator, next_inode, directories, .. } = writer;
    let used = Used { allocator: &allocator, inodes: next_inode - 1, directories: &directories };
    layout.write(file, &used, uuid, &journal.bytes()).map_err(Ext4Error::Write)
}

/// What is needed at most.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    inodes: u64,
    blocks: u64,
}

/// Counts what the files need, in one walk.
fn measure(source: &dyn FileSystem, budget: &Budget) -> Result<Need, Ext4Error> {
    let mut need = Need::default();
    let mut seen = BTreeSet::from([source.root()]);
    let mut directories = vec![source.root()];
    let over = |_| FileSystemError::OverBudget;
    while let Some(directory) = directories.pop() {
        let entries = source.entries(directory)?;
        budget.release(entries_cost(&entries));
        need.blocks += DirectoryBlocks::needed(&entries) + 1;
        need.inodes += entries.len() as u64;
        for (_, number) in entries {
            let metadata = source.metadata(number)?;
            let is_directory = metadata.kind == FileKind::Directory;
            if is_directory || metadata.links > 1 {
                budget.charge(NUMBER_COST).map_err(over)?;
                match seen.insert(number) {
                    false if is_directory => {
                        return Err(FileSystemError::Damaged("root disk", "a directory has two names").into());
                    }
                    false => continue,
                    true if is_directory => directories.push(number),
                    true => {}
                }
            }
            // Attributes and a long target, and the tree of a file's blocks.
            need.blocks += 2;
            if metadata.kind == FileKind::Regular {
                let extents = source.extents(number)?;
                budget.release(extents_cost(&extents));
                let stored: u64 = extents.iter().map(|extent| extent.length.div_ceil(BLOCK)).sum();
                need.blocks += stored + extent_tree::max_blocks(extents.len() as u64, stored);
            }
        }
    }
    budget.release((seen.len() as u64 - 1) * NUMBER_COST);
    Ok(need)
}

struct Writer<'a> {
    source: &'a dyn FileSystem,
    file: &'a File,
    layout: &'a Layout,
    allocator: Allocator<'a>,
    next_inode: u32,
    /// Directories of each group of inodes.
    directories: Vec<u16>,
    xattrs: XattrBlocks,
    /// The inodes of files with several names, by their number in the source.
    links: BTreeMap<u64, u32>,
    budget: &'a Budget,
    progress: &'a dyn Fn(u64, u64),
    expected: u64,
}

/// A directory that has an inode and is not written yet.
struct Waiting {
    source: u64,
    inode: u32,
    parent: u32,
    path: Vec<u8>,
}

impl Waiting {
    fn cost(&self) -> u64 {
        NUMBER_COST + self.path.len() as u64
    }
}

impl Writer<'_> {
    fn charge(&self, bytes: u64) -> Result<(), Ext4Error> {
        Ok(self.budget.charge(bytes).map_err(|_| FileSystemError::OverBudget)?)
    }

    fn files(&mut self) -> Result<(), Ext4Error> {
        let source = self.source.root();
        let mut waiting = vec![Waiting { source, inode: ROOT, parent: ROOT, path: Vec::new() }];
        while let Some(directory) = waiting.pop() {
            self.directory(&directory, &mut waiting)?;
            self.budget.release(if directory.inode == ROOT { 0 } else { directory.cost() });
        }
        Ok(())
    }

    fn directory(&mut self, directory: &Waiting, waiting: &mut Vec<Waiting>) -> Result<(), Ext4Error> {
        let entries: Vec<Name> = self.source.entries(directory.source)?;
        self.budget.release(entries_cost(&entries));
        let mut blocks = DirectoryBlocks::new(directory.inode, directory.parent);
        let mut links = 2;
        let is_root = directory.inode == ROOT;
        if is_root && !entries.iter().any(|(name, _)| **name == *LOST_AND_FOUND_NAME) {
            blocks.push(LOST_AND_FOUND_NAME, LOST_AND_FOUND, FileKind::Directory);
            links += 1;
            self.lost_and_found()?;
        }
        for (name, number) in &entries {
            let path = [&directory.path[..], b"/", name].concat();
            let metadata = self.source.metadata(*number)?;
            let is_directory = metadata.kind == FileKind::Directory;
            let known = self.links.get(number).copied();
            let inode = match known {
                Some(inode) => inode,
                None if is_root && is_directory && **name == *LOST_AND_FOUND_NAME => LOST_AND_FOUND,
                None => {
                    self.next_inode += 1;
                    self.next_inode - 1
                }
            };
            blocks.push(name, inode, metadata.kind);
            if is_directory {
                links += 1;
                let below = Waiting { source: *number, inode, parent: directory.inode, path };
                self.charge(below.cost())?;
                waiting.push(below);
            } else if known.is_none() {
                if metadata.links > 1 {
                    self.charge(NUMBER_COST)?;
                    self.links.insert(*number, inode);
                }
                self.file(*number, inode, &metadata, &path)?;
            }
        }
        let metadata = Metadata {
            links: if links > MAX_LINKS { 1 } else { links as u32 },
            ..self.source.metadata(directory.source)?
        };
        let content = blocks.finish();
        let map = self.content(&content)?;
        self.inode(directory.source, directory.inode, &metadata, map, content.len() as u64, &directory.path)
    }

    fn lost_and_found(&mut self) -> Result<(), Ext4Error> {
        let content = DirectoryBlocks::new(LOST_AND_FOUND, ROOT).finish();
        let map = self.content(&content)?;
        let root = self.source.metadata(self.source.root())?;
        let metadata = Metadata { permissions: 0o700, uid: 0, gid: 0, links: 2, ..root };
        self.put(LOST_AND_FOUND, &Inode { metadata: &metadata, map, size: content.len() as u64, xattr_block: 0 })
    }

    fn file(&mut self, number: u64, inode: u32, metadata: &Metadata, path: &[u8]) -> Result<(), Ext4Error> {
        let (map, size) = match metadata.kind {
            FileKind::Regular => (self.regular(number)?, metadata.size),
            FileKind::Symlink => {
                let target = self.source.link_target(number)?;
                let size = target.len() as u64;
                match target.len() < MIN_LINK_BLOCK {
                    true => (Map::link(&target), size),
                    false => (self.content(&target)?, size),
                }
            }
            _ => (Map::device(metadata.device), 0),
        };
        self.inode(number, inode, metadata, map, size, path)
    }

    fn inode(
        &mut self,
        number: u64,
        inode: u32,
        metadata: &Metadata,
        map: Map,
        size: u64,
        path: &[u8],
    ) -> Result<(), Ext4Error> {
        let xattrs = self.source.xattrs(number)?;
        let xattr_block = if xattrs.is_empty() {
            0
        } else {
            let what = "its extended attributes are larger than ext4 has place for";
            let file = || Ext4Error::File { path: crate::tar::printable(path), what };
            let block = xattr_block::encode(&xattrs).ok_or_else(file)?;
            self.charge(xattr_block::COST)?;
            let allocator = &mut self.allocator;
            let placed = self.xattrs.place(block, self.file, || allocator.one()).map_err(Ext4Error::Write)?;
            placed.ok_or(Ext4Error::TooLarge)?
        };
        self.put(inode, &Inode { metadata, map, size, xattr_block })
    }

    /// Writes an inode to its place.
    fn put(&mut self, number: u32, inode: &Inode<'_>) -> Result<(), Ext4Error> {
        if inode.metadata.kind == FileKind::Directory {
            self.directories[self.layout.group_of(number)] += 1;
        }
        self.file.write_all_at(&inode.encode(), self.layout.position(number)).map_err(Ext4Error::Write)
    }

    /// Stores the content of a regular file of the source.
    fn regular(&mut self, number: u64) -> Result<Map, Ext4Error> {
        let extents = self.source.extents(number)?;
        self.budget.release(extents_cost(&extents));
        let (mut tree, mut charged) = (ExtentTree::default(), 0);
        for Extent { offset, length, position } in extents {
            if offset % BLOCK != 0 {
                return Err(FileSystemError::Damaged("root disk", "an extent that does not begin at a block").into());
            }
            let mut done = 0;
            while done < length {
                let (start, count) = self.allocator.take((length - done).div_ceil(BLOCK)).ok_or(Ext4Error::TooLarge)?;
                let bytes = (count * BLOCK).min(length - done);
                self.copy(position + done, start * BLOCK, bytes)?;
                self.charge(EXTENT_COST)?;
                charged += EXTENT_COST;
                tree.push(Run { block: (offset + done) / BLOCK, start, count });
                done += bytes;
            }
        }
        (self.progress)(self.allocator.taken().min(self.expected), self.expected);
        let map = self.map(tree);
        self.budget.release(charged);
        map
    }

    fn copy(&self, mut from: u64, mut to: u64, mut left: u64) -> Result<(), Ext4Error> {
        let mut buffer = vec![0; left.min(COPY_BUF_SIZE as u64) as usize];
        while left > 0 {
            let length = left.min(buffer.len() as u64);
            let part = &mut buffer[..length as usize];
            self.source.read_at(part, from).map_err(FileSystemError::Read)?;
            self.file.write_all_at(part, to).map_err(Ext4Error::Write)?;
            (from, to, left) = (from + length, to + length, left - length);
        }
        Ok(())
    }

    /// Stores `content` in blocks of its own.
    fn content(&mut self, content: &[u8]) -> Result<Map, Ext4Error> {
        let mut tree = ExtentTree::default();
        let mut done = 0;
        while done < content.len() {
            let left = (content.len() - done) as u64;
            let (start, count) = self.allocator.take(left.div_ceil(BLOCK)).ok_or(Ext4Error::TooLarge)?;
            let end = content.len().min(done + (count * BLOCK) as usize);
            self.file.write_all_at(&content[done..end], start * BLOCK).map_err(Ext4Error::Write)?;
            tree.push(Run { block: done as u64 / BLOCK, start, count });
            done = end;
        }
        self.map(tree)
    }

    fn map(&mut self, tree: ExtentTree) -> Result<Map, Ext4Error> {
        let (allocator, file) = (&mut self.allocator, self.file);
        tree.write(&mut |node| {
            let block = allocator.one().ok_or(Ext4Error::TooLarge)?;
            file.write_all_at(node, block * BLOCK).map_err(Ext4Error::Write)?;
            Ok(block)
        })
    }

    /// An empty journal. Returns its map, of which the superblock has a copy.
    fn journal(&mut self, uuid: [u8; 16]) -> Result<Map, Ext4Error> {
        let blocks = self.layout.journal_blocks();
        let mut tree = ExtentTree::default();
        let mut done = 0;
        while done < blocks {
            let (start, count) = self.allocator.take(blocks - done).ok_or(Ext4Error::TooLarge)?;
            if done == 0 {
                let superblock = layout::journal_superblock(blocks, uuid);
                self.file.write_all_at(&superblock, start * BLOCK).map_err(Ext4Error::Write)?;
            }
            tree.push(Run { block: done, start, count });
            done += count;
        }
        let map = self.map(tree)?;
        let root = self.source.metadata(self.source.root())?;
        let metadata = Metadata { kind: FileKind::Regular, permissions: 0o600, uid: 0, gid: 0, links: 1, ..root };
        self.put(JOURNAL, &Inode { metadata: &metadata, map, size: blocks * BLOCK, xattr_block: 0 })?;
        Ok(map)
    }
}
