// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The layout of an image, computed before the first byte is written: first all inodes, then the
//! blocks.

use super::directory::{self, with_dots};
use super::format::{DataLayout, INODE_SLOT, Inode, SUPER_OFFSET, SuperBlock};
use super::{BLOCK, xattr};
use crate::layer_files::{FilePlace, LayerFiles, tail_bytes};
use crate::root_disk::{Chunks, RootDiskError};
use crate::tree::{Content, NodeId, Tree};

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
    /// Blocks outside of the inode. They are not counted for sparse files.
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
    /// Blocks of the metadata, which are written.
    pub metadata_blocks: u64,
    /// Blocks of the whole disk.
    pub blocks: u64,
    pub chunked: bool,
    /// The layers with data that is part of the disk, by number.
    pub layers: Vec<usize>,
    /// What the disk says of them.
    pub list: Vec<u8>,
    /// First block of each layer's data, by number.
    data: Vec<u64>,
}

const UNPLACED: u32 = u32::MAX;

impl Plan {
    pub(super) fn new(tree: &Tree, layers: &[LayerFiles], max_bytes: u64) -> Result<Self, RootDiskError> {
        let mut plan = Self {
            places: Vec::new(),
            positions: vec![UNPLACED; tree.len()],
            metadata_blocks: 0,
            blocks: 0,
            chunked: false,
            layers: Vec::new(),
            list: Vec::new(),
            data: vec![0; layers.len()],
        };
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
        plan.place_blocks(tree, |content| matches!(content, Content::Directory(_)));
        plan.place_blocks(tree, |content| matches!(content, Content::Symlink(_)));
        plan.place_data(tree, layers);
        // Maps of sparse files can be large even without data.
        if plan.blocks > max_bytes / BLOCK { Err(RootDiskError::TooLarge { limit: max_bytes }) } else { Ok(plan) }
    }

    pub(super) fn of(&self, node: NodeId) -> &Place {
        &self.places[self.positions[node.index()] as usize]
    }

    /// First block of the data of the layer with this number.
    pub(super) fn data(&self, layer: u32) -> u64 {
        self.data[layer as usize]
    }

    /// Assigns the next place to an inode. An inode must not cross a block, nor may its tail.
    fn place(&mut self, tree: &Tree, id: NodeId, parent: NodeId, next: &mut u64) {
        let node = tree.node(id);
        let xattr_size = xattr::size(&node.metadata.xattrs);
        let inode_size = size_of::<Inode>() as u64;
        let size = match &node.content {
            Content::Directory(children) => {
                directory::size(with_dots(children.keys().map(|name| &**name)).map(<[u8]>::len))
            }
            Content::Symlink(target) => target.len() as u64,
            Content::Regular { size, .. } => *size,
            _ => 0,
        };
        let tail = match &node.content {
            Content::Regular { .. } => tail_bytes(size),
            _ if inode_size + xattr_size + size % BLOCK <= BLOCK => size % BLOCK,
            _ => 0,
        };
        let mut place = Place {
            node: id,
            offset: *next,
            layout: if tail > 0 { DataLayout::FlatInline } else { DataLayout::FlatPlain },
            size,
            xattr_size,
            block: 0,
            blocks: if tail > 0 { size / BLOCK } else { size.div_ceil(BLOCK) },
            nlink: 0,
            parent,
        };
        let mut behind = tail;
        if let Content::Regular { size: 1.., place: FilePlace::Sparse { bits, .. }, .. } = &node.content {
            place.layout = DataLayout::ChunkBased;
            behind = 4 * Chunks::new(size, *bits).count();
            self.chunked = true;
        }
        let crosses = |start: u64, length: u64| start % BLOCK + length > BLOCK;
        let is_inline = place.layout == DataLayout::FlatInline;
        let whole = if is_inline { inode_size + xattr_size + behind } else { inode_size };
        if whole <= BLOCK && crosses(place.offset, whole) {
            place.offset = place.offset.next_multiple_of(BLOCK);
        }
        // Attributes may take several blocks.
        while whole > BLOCK
            && (crosses(place.offset, inode_size) || crosses(place.offset + inode_size + xattr_size, behind))
        {
            place.offset += INODE_SLOT;
        }
        *next = (place.offset + inode_size + xattr_size + behind).next_multiple_of(INODE_SLOT);
        self.positions[id.index()] = self.places.len() as u32;
        self.places.push(place);
    }

    /// Assigns blocks of the metadata to the inodes whose content is `wanted`.
    fn place_blocks(&mut self, tree: &Tree, wanted: impl Fn(&Content) -> bool) {
        for place in self.places.iter_mut().filter(|place| wanted(&tree.node(place.node).content)) {
            place.block = self.blocks;
            self.blocks += place.blocks;
        }
    }

    /// Puts the data of the layers that some file needs behind the metadata.
    fn place_data(&mut self, tree: &Tree, layers: &[LayerFiles]) {
        let mut is_used = vec![false; layers.len()];
        for place in &self.places {
            if let Content::Regular { layer, place: data, .. } = &tree.node(place.node).content {
                is_used[*layer as usize] |= match data {
                    FilePlace::Contiguous { .. } => place.blocks > 0,
                    FilePlace::Sparse { extents, .. } => !extents.is_empty(),
                };
            }
        }
        self.layers = (0..layers.len()).filter(|number| is_used[*number]).collect();
        let line = |number: &usize| format!("{} {}\n", layers[*number].diff_id, layers[*number].data_bytes());
        self.list = self.layers.iter().map(line).collect::<String>().into_bytes();
        self.metadata_blocks = self.blocks + (self.list.len() as u64).div_ceil(BLOCK);
        self.blocks = self.metadata_blocks;
        for number in &self.layers {
            self.data[*number] = self.blocks;
            self.blocks += layers[*number].data_bytes() / BLOCK;
        }
        for place in &mut self.places {
            if let Content::Regular { layer, place: FilePlace::Contiguous { position, .. }, .. } =
                &tree.node(place.node).content
                && place.blocks > 0
            {
                place.block = self.data[*layer as usize] + position / BLOCK;
            }
        }
    }
}
