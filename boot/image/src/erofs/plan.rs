// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The layout of an image, computed before the first byte is written: first all inodes, then the
//! blocks.

use super::directory::{self, with_dots};
use super::format::{DataLayout, INODE_SLOT, Inode, SUPER_OFFSET, SuperBlock};
use super::{BLOCK, xattr};
use crate::root_disk::{Chunks, RootDiskError};
use crate::tree::{Content, Data, NodeId, Tree};

/// A longer tail of a file is not stored with its inode. An inline tail saves a block and, for a
/// short file, a request of the guest; but it spreads the inodes, which are read one block at a
/// time.
const MAX_FILE_TAIL: u64 = 1024;

/// The place of one inode and its data.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub node: NodeId,
    /// Byte offset of the inode.
    pub offset: u64,
    pub layout: DataLayout,
    /// Size of the file.
    pub size: u64,
    pub xattr_size: u64,
    /// First block, if there are any.
    pub block: u64,
    /// Blocks outside of the inode.
    pub blocks: u64,
    pub nlink: u32,
    /// For directories, the inode of the parent.
    pub parent: NodeId,
}

impl Place {
    /// The number that directories refer to.
    pub(super) fn nid(&self) -> u64 {
        self.offset / INODE_SLOT
    }

    /// Bytes stored with the inode.
    pub(super) fn tail(&self) -> u64 {
        if self.layout == DataLayout::FlatInline { self.size % BLOCK } else { 0 }
    }
}

/// The layout of an image.
pub(super) struct Plan {
    /// In the order of the inodes.
    pub places: Vec<Place>,
    /// Position in `places` by node.
    positions: Vec<u32>,
    /// Size of the image in blocks.
    pub blocks: u64,
    pub chunked: bool,
}

const UNPLACED: u32 = u32::MAX;

impl Plan {
    pub(super) fn new(tree: &Tree, max_bytes: u64) -> Result<Self, RootDiskError> {
        let mut plan = Self { places: Vec::new(), positions: vec![UNPLACED; tree.len()], blocks: 0, chunked: false };
        let mut next = SUPER_OFFSET + size_of::<SuperBlock>() as u64;
        let mut directories = vec![(Tree::ROOT, Tree::ROOT)];
        while let Some((id, parent)) = directories.pop() {
            plan.place(tree, id, parent, &mut next);
            let at = plan.places.len() - 1;
            plan.places[at].nlink = 2;
            for child in tree.children(id).into_iter().flat_map(|children| children.values()) {
                if tree.children(child.node).is_some() {
                    plan.places[at].nlink += 1;
                    continue;
                }
                if plan.positions[child.node.index()] == UNPLACED {
                    plan.place(tree, child.node, id, &mut next);
                }
                let position = plan.positions[child.node.index()] as usize;
                plan.places[position].nlink += 1;
            }
            let children = tree.children(id).into_iter().flat_map(|children| children.values());
            let below = children.filter(|child| tree.children(child.node).is_some());
            directories.extend(below.rev().map(|child| (child.node, id)));
        }
        plan.blocks = next.div_ceil(BLOCK);
        // Maps of sparse files can be large even without data.
        if next > max_bytes {
            return Err(RootDiskError::TooLarge { limit: max_bytes });
        }
        plan.place_blocks(tree, max_bytes, |content| matches!(content, Content::Directory(_)))?;
        plan.place_blocks(tree, max_bytes, |content| !matches!(content, Content::Directory(_)))?;
        Ok(plan)
    }

    pub(super) fn of(&self, node: NodeId) -> &Place {
        &self.places[self.positions[node.index()] as usize]
    }

    /// Assigns the next place to an inode. An inode, and an inode with its tail, must not cross a
    /// block.
    fn place(&mut self, tree: &Tree, id: NodeId, parent: NodeId, next: &mut u64) {
        let node = tree.node(id);
        let xattr_size = xattr::size(&node.metadata.xattrs);
        let inode_size = size_of::<Inode>() as u64;
        let (size, max_tail) = match &node.content {
            Content::Directory(children) => {
                (directory::size(with_dots(children.keys().map(|name| &**name)).map(<[u8]>::len)), BLOCK)
            }
            Content::Symlink(target) => (target.len() as u64, BLOCK),
            Content::Regular { size, .. } => (*size, MAX_FILE_TAIL),
            _ => (0, 0),
        };
        let tail = size % BLOCK;
        let inline = (1..=max_tail).contains(&tail) && inode_size + xattr_size + tail <= BLOCK;
        let mut place = Place {
            node: id,
            offset: *next,
            layout: if inline { DataLayout::FlatInline } else { DataLayout::FlatPlain },
            size,
            xattr_size,
            block: 0,
            blocks: if inline { size / BLOCK } else { size.div_ceil(BLOCK) },
            nlink: 0,
            parent,
        };
        let mut behind = if inline { tail } else { 0 };
        if let Content::Regular { size: 1.., data: Data::Sparse(extents) } = &node.content {
            let chunks = Chunks::of(size, extents);
            place.layout = DataLayout::ChunkBased;
            place.blocks = chunks.stored(extents).map(|chunk| chunks.blocks(chunk)).sum();
            behind = 4 * chunks.count();
            self.chunked = true;
        }
        let whole = if place.layout == DataLayout::FlatInline { inode_size + xattr_size + behind } else { inode_size };
        if place.offset % BLOCK + whole > BLOCK {
            place.offset = place.offset.next_multiple_of(BLOCK);
        }
        *next = (place.offset + inode_size + xattr_size + behind).next_multiple_of(INODE_SLOT);
        self.positions[id.index()] = self.places.len() as u32;
        self.places.push(place);
    }

    /// Assigns blocks to the inodes whose content is `wanted`.
    fn place_blocks(
        &mut self,
        tree: &Tree,
        max_bytes: u64,
        wanted: impl Fn(&Content) -> bool,
    ) -> Result<(), RootDiskError> {
        for place in self.places.iter_mut().filter(|place| wanted(&tree.node(place.node).content)) {
            place.block = self.blocks;
            self.blocks += place.blocks;
            // Checked here: the sizes of sparse files come from the archive.
            if self.blocks > max_bytes / BLOCK {
                return Err(RootDiskError::TooLarge { limit: max_bytes });
            }
        }
        Ok(())
    }
}
