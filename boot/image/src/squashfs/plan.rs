// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers and names of inodes and places of the data, computed before anything is written.

use super::format::{BLOCK, SuperBlock};
use crate::layer_files::FilePlace;
use crate::limits;
use crate::root_disk::{Chunks, RootDiskError};
use crate::tree::{Content, NodeId, Tree};

/// Properties of an inode before the tables are built.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inode {
    /// From 1; 0 for a node without a name in the image.
    pub number: u32,
    pub nlink: u32,
    /// Offset of a file's data.
    pub start: u64,
}

pub(super) struct Plan {
    /// Directories with their parents, each before its children.
    pub directories: Vec<(NodeId, NodeId)>,
    /// Files, in the order of their data.
    pub files: Vec<NodeId>,
    /// The index is the number of the node.
    inodes: Vec<Inode>,
    pub count: u32,
    /// End of the last file's data.
    pub data_end: u64,
}

impl Plan {
    pub(super) fn new(tree: &Tree, max_bytes: u64) -> Result<Self, RootDiskError> {
        let mut plan = Self {
            directories: Vec::new(),
            files: Vec::new(),
            inodes: vec![Inode::default(); tree.len()],
            count: 0,
            data_end: size_of::<SuperBlock>() as u64,
        };
        let mut below = vec![(Tree::ROOT, Tree::ROOT)];
        let mut sparse_bytes = 0;
        while let Some((id, parent)) = below.pop() {
            plan.number(id);
            plan.inodes[id.index()].nlink += 2;
            plan.directories.push((id, parent));
            let children = || tree.children(id).into_iter().flat_map(|children| children.values());
            for child in children().map(|child| child.node) {
                if tree.children(child).is_some() {
                    plan.inodes[id.index()].nlink += 1;
                    continue;
                }
                plan.inodes[child.index()].nlink += 1;
                if plan.number(child)
                    && let Content::Regular { size, place, .. } = &tree.node(child).content
                {
                    plan.place(child, *size, place, &mut sparse_bytes)?;
                }
            }
            let directories = children().filter(|child| tree.children(child.node).is_some());
            below.extend(directories.rev().map(|child| (child.node, id)));
        }
        if plan.data_end > max_bytes { Err(RootDiskError::TooLarge { limit: max_bytes }) } else { Ok(plan) }
    }

    pub(super) fn of(&self, node: NodeId) -> Inode {
        self.inodes[node.index()]
    }

    /// Assigns a number to `node`; returns false if it has one.
    fn number(&mut self, node: NodeId) -> bool {
        let inode = &mut self.inodes[node.index()];
        if inode.number > 0 {
            return false;
        }
        // The number of entries is far below 2^32.
        self.count += 1;
        inode.number = self.count;
        true
    }

    fn place(
        &mut self,
        file: NodeId,
        size: u64,
        place: &FilePlace,
        sparse_bytes: &mut u64,
    ) -> Result<(), RootDiskError> {
        self.inodes[file.index()].start = self.data_end;
        self.files.push(file);
        let stored = match place {
            FilePlace::Contiguous { .. } => size,
            FilePlace::Sparse { extents, .. } => {
                *sparse_bytes = size.saturating_add(*sparse_bytes);
                if *sparse_bytes > limits::MAX_SQUASHFS_SPARSE_BYTES {
                    return Err(RootDiskError::Sparse);
                }
                let chunks = Chunks::of_bytes(size, BLOCK);
                chunks.stored(extents).map(|chunk| chunks.length(chunk)).sum()
            }
        };
        self.data_end = self.data_end.saturating_add(stored);
        Ok(())
    }
}
