// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tables of inodes and directories. A directory refers to its children by their places, so it
//! comes after them: directories are written from the last to the first, each after its files.

use super::directory::{self, Name};
use super::format::*;
use super::owners::Owners;
use super::plan::{Inode, Plan};
use super::table::Table;
use super::xattr::XattrSets;
use crate::layer_files::FilePlace;
use crate::root_disk::{Chunks, RootDiskError};
use crate::tree::{Content, Node, NodeId, Tree};
use zerocopy::IntoBytes as _;

/// All tables of an image.
pub(super) struct Tables {
    pub inodes: Table,
    pub directories: Table,
    pub owners: Owners,
    pub xattrs: XattrSets,
    /// Reference of the root's inode.
    pub root: u64,
}

impl Tables {
    pub(super) fn new(tree: &Tree, plan: &Plan) -> Result<Self, RootDiskError> {
        let mut tables = Self {
            inodes: Table::default(),
            directories: Table::default(),
            owners: Owners::default(),
            xattrs: XattrSets::default(),
            root: 0,
        };
        let mut references = vec![None; tree.len()];
        for (id, parent) in plan.directories.iter().rev() {
            let children = tree.children(*id).expect("the plan lists directories");
            for child in children.values().map(|child| child.node) {
                if references[child.index()].is_none() {
                    references[child.index()] = Some(tables.inode(tree.node(child), plan.of(child))?);
                }
            }
            let names = children.iter().map(|(name, child)| Name {
                name,
                kind: kind(tree.node(child.node)),
                number: plan.of(child.node).number,
                inode: references[child.node.index()].expect("children come before their directory"),
            });
            let names: Vec<Name<'_>> = names.collect();
            let reference = tables.directory(tree, plan, *id, *parent, &names)?;
            references[id.index()] = Some(reference);
            tables.root = reference;
        }
        Ok(tables)
    }

    fn directory(
        &mut self,
        tree: &Tree,
        plan: &Plan,
        id: NodeId,
        parent: NodeId,
        names: &[Name<'_>],
    ) -> Result<u64, RootDiskError> {
        let listing = self.directories.reference();
        let bytes = directory::append(names, &mut self.directories);
        let (node, inode) = (tree.node(id), plan.of(id));
        let reference = self.header(node, inode)?;
        let inode = DirInode {
            nlink: inode.nlink.into(),
            // Three more than the listing, for the two names that are not listed.
            file_size: (bytes + 3).into(),
            start_block: u32::try_from(listing >> 16).expect("the number of entries bounds the listings").into(),
            parent_inode: plan.of(parent).number.into(),
            i_count: 0.into(),
            offset: ((listing & 0xffff) as u16).into(),
            xattr: self.xattrs.index(&node.metadata.xattrs).into(),
        };
        self.inodes.push(inode.as_bytes());
        Ok(reference)
    }

    /// Adds an inode other than a directory's.
    fn inode(&mut self, node: &Node, inode: Inode) -> Result<u64, RootDiskError> {
        let reference = self.header(node, inode)?;
        let xattr = self.xattrs.index(&node.metadata.xattrs);
        match &node.content {
            Content::Directory(_) => unreachable!("directories are written when their children are"),
            Content::Regular { size, place, .. } => {
                let chunks = Chunks::of_bytes(*size, BLOCK);
                let (list, stored) = block_list(chunks, place);
                let regular = RegInode {
                    start_block: inode.start.into(),
                    file_size: (*size).into(),
                    sparse: (*size - stored).into(),
                    nlink: inode.nlink.into(),
                    fragment: INVALID.into(),
                    offset: 0.into(),
                    xattr: xattr.into(),
                };
                self.inodes.push(regular.as_bytes());
                self.inodes.push(&list);
            }
            Content::Symlink(target) => {
                self.inodes.push(&inode.nlink.to_le_bytes());
                self.inodes.push(&u32::try_from(target.len()).expect("targets are bounded").to_le_bytes());
                self.inodes.push(target);
                self.inodes.push(&xattr.to_le_bytes());
            }
            Content::CharacterDevice { major, minor } | Content::BlockDevice { major, minor } => {
                let device = (minor & 0xff) | major << 8 | (minor & !0xff) << 12;
                self.inodes.push(&[inode.nlink, device, xattr].map(u32::to_le_bytes).concat());
            }
            Content::Fifo => self.inodes.push(&[inode.nlink, xattr].map(u32::to_le_bytes).concat()),
        }
        Ok(reference)
    }

    /// Adds the start of an inode and returns its place.
    fn header(&mut self, node: &Node, inode: Inode) -> Result<u64, RootDiskError> {
        let metadata = &node.metadata;
        let header = InodeHeader {
            inode_type: (kind(node) + EXTENDED).into(),
            mode: metadata.mode.into(),
            uid: self.owners.index(metadata.uid)?.into(),
            guid: self.owners.index(metadata.gid)?.into(),
            mtime: (metadata.mtime.seconds.clamp(0, u32::MAX.into()) as u32).into(),
            inode_number: inode.number.into(),
        };
        let reference = self.inodes.reference();
        self.inodes.push(header.as_bytes());
        Ok(reference)
    }
}

/// Returns the lengths of a file's blocks, 0 for a hole, and the total size of the stored ones.
fn block_list(chunks: Chunks, place: &FilePlace) -> (Vec<u8>, u64) {
    let extents = match place {
        FilePlace::Contiguous { .. } => None,
        FilePlace::Sparse { extents, .. } => Some(extents),
    };
    let mut stored = extents.map(|extents| chunks.stored(extents).peekable());
    let (mut list, mut bytes) = (Vec::with_capacity(4 * chunks.count() as usize), 0);
    for chunk in 0..chunks.count() {
        let is_stored = stored.as_mut().is_none_or(|stored| stored.next_if_eq(&chunk).is_some());
        let entry = if is_stored { UNCOMPRESSED_BLOCK | chunks.length(chunk) as u32 } else { 0 };
        list.extend_from_slice(&entry.to_le_bytes());
        bytes += u64::from(entry & !UNCOMPRESSED_BLOCK);
    }
    (list, bytes)
}

/// Type of a file in directories.
fn kind(node: &Node) -> u16 {
    match node.content {
        Content::Directory(_) => DIR,
        Content::Regular { .. } => REG,
        Content::Symlink(_) => SYMLINK,
        Content::BlockDevice { .. } => BLKDEV,
        Content::CharacterDevice { .. } => CHRDEV,
        Content::Fifo => FIFO,
    }
}
