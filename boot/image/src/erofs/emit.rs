// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the image according to the plan.

use super::format::*;
use super::plan::{Place, Plan};
use super::{BLOCK, crc32c, directory, xattr};
use crate::layer_files::{Extent, FilePlace, LayerFiles};
use crate::root_disk::{Chunks, Output, RootDiskError, Volume, Written, write_output};
use crate::tree::{Content, Node, Tree};
use std::fs::File;
use zerocopy::IntoBytes as _;

/// Writes the metadata of `tree`, whose data is in `layers`, to the empty `file`; the disk may have at most `max_bytes`. `progress`
/// gets the bytes written and the size.
pub(crate) fn write(
    tree: &Tree,
    layers: &[LayerFiles],
    volume: &Volume,
    file: &File,
    max_bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<Written, RootDiskError> {
    let plan = Plan::new(tree, layers, max_bytes)?;
    let bytes = plan.metadata_blocks * BLOCK;
    let emitter = Emitter { tree, layers, plan: &plan };
    let digest = write_output(file, seal, &|written| progress(written, bytes), |output| {
        emitter.superblock(volume, output)?;
        plan.places.iter().try_for_each(|place| emitter.inode(place, output))?;
        plan.places.iter().try_for_each(|place| emitter.directory_blocks(place, output))?;
        plan.places.iter().try_for_each(|place| emitter.symlink_blocks(place, output))?;
        output.zeros_to((plan.metadata_blocks - (plan.list.len() as u64).div_ceil(BLOCK)) * BLOCK)?;
        output.bytes(&plan.list)?;
        output.zeros_to(bytes).map_err(RootDiskError::Write)
    })?;
    Ok(Written { digest, bytes, layers: plan.layers })
}

/// Stores the checksum in the first block.
fn seal(start: &mut [u8]) {
    let block = &mut start[SUPER_OFFSET as usize..BLOCK as usize];
    let checksum = crc32c::crc32c(block);
    block[4..8].copy_from_slice(&checksum.to_le_bytes());
}

struct Emitter<'a> {
    tree: &'a Tree,
    layers: &'a [LayerFiles],
    plan: &'a Plan,
}

impl Emitter<'_> {
    fn superblock(&self, volume: &Volume, output: &mut Output<'_>) -> Result<(), RootDiskError> {
        let root = self.plan.of(Tree::ROOT).nid();
        let superblock = SuperBlock {
            magic: SUPER_MAGIC.into(),
            feature_compat: (FEATURE_COMPAT_SB_CHKSUM | FEATURE_COMPAT_MTIME).into(),
            blkszbits: BLOCK.ilog2() as u8,
            root_nid: u16::try_from(root).expect("the root is the first inode").into(),
            inos: (self.plan.places.len() as u64).into(),
            blocks: u32::try_from(self.plan.blocks).expect("the size of the image is bounded").into(),
            uuid: volume.uuid,
            volume_name: volume.name,
            feature_incompat: if self.plan.chunked { FEATURE_INCOMPAT_CHUNKED_FILE } else { 0 }.into(),
            ..SuperBlock::default()
        };
        output.zeros_to(SUPER_OFFSET)?;
        Ok(output.bytes(superblock.as_bytes())?)
    }

    /// Writes the inode with its attributes and its inline data.
    fn inode(&self, place: &Place, output: &mut Output<'_>) -> Result<(), RootDiskError> {
        let node = self.tree.node(place.node);
        let metadata = &node.metadata;
        let inode = Inode {
            format: (1 | (place.layout as u16) << 1).into(),
            xattr_icount: xattr::count(place.xattr_size).into(),
            mode: (file_type(node).0 | metadata.mode).into(),
            size: place.size.into(),
            u: self.union(node, place).into(),
            ino: u32::try_from(place.nid()).unwrap_or(u32::MAX).into(),
            uid: metadata.uid.into(),
            gid: metadata.gid.into(),
            // Times before 1970 are negative; the kernel reads the field as signed.
            mtime: (metadata.mtime.seconds as u64).into(),
            mtime_nsec: metadata.mtime.nanoseconds.into(),
            nlink: place.nlink.into(),
            ..Inode::default()
        };
        output.zeros_to(place.offset)?;
        output.bytes(inode.as_bytes())?;
        let mut xattrs = Vec::with_capacity(place.xattr_size as usize);
        xattr::encode(&metadata.xattrs, &mut xattrs);
        output.bytes(&xattrs)?;
        match &node.content {
            Content::Regular { size: 1.., layer, place: FilePlace::Sparse { bits, extents } } => {
                chunk_map(Chunks::new(place.size, *bits), extents, self.plan.data(*layer), output)
            }
            _ if place.tail() == 0 => Ok(()),
            Content::Directory(_) => {
                let bytes = self.directory(place);
                Ok(output.bytes(&bytes[(place.blocks * BLOCK) as usize..])?)
            }
            Content::Symlink(target) => Ok(output.bytes(target)?),
            Content::Regular { layer, place: FilePlace::Contiguous { tail, .. }, .. } => {
                let layer = &self.layers[*layer as usize];
                output.take_from(place.tail(), |into, offset| {
                    layer.read_tail(tail + offset, into).map_err(RootDiskError::Layer)
                })
            }
            _ => Ok(()),
        }
    }

    /// The inode's field whose meaning depends on the type.
    fn union(&self, node: &Node, place: &Place) -> u32 {
        match &node.content {
            &Content::CharacterDevice { major, minor } | &Content::BlockDevice { major, minor } => {
                (minor & 0xff) | major << 8 | (minor & !0xff) << 12
            }
            Content::Regular { size: 1.., place: FilePlace::Sparse { bits, .. }, .. } => *bits,
            _ if place.blocks > 0 => place.block as u32,
            _ => 0,
        }
    }

    fn directory(&self, place: &Place) -> Vec<u8> {
        let children = self.tree.children(place.node).expect("called for directories");
        let names = directory::with_dots(children.keys().map(|name| &**name));
        let names = names.map(|name| {
            let node = match name {
                b"." => place.node,
                b".." => place.parent,
                name => children[name].node,
            };
            (name, self.plan.of(node).nid(), file_type(self.tree.node(node)).1)
        });
        directory::encode(&names.collect::<Vec<_>>())
    }

    fn directory_blocks(&self, place: &Place, output: &mut Output<'_>) -> Result<(), RootDiskError> {
        if place.blocks == 0 || self.tree.children(place.node).is_none() {
            return Ok(());
        }
        let bytes = self.directory(place);
        output.zeros_to(place.block * BLOCK)?;
        Ok(output.bytes(&bytes[..bytes.len().min((place.blocks * BLOCK) as usize)])?)
    }

    fn symlink_blocks(&self, place: &Place, output: &mut Output<'_>) -> Result<(), RootDiskError> {
        match &self.tree.node(place.node).content {
            Content::Symlink(target) if place.blocks > 0 => {
                output.zeros_to(place.block * BLOCK)?;
                Ok(output.bytes(target)?)
            }
            _ => Ok(()),
        }
    }
}

/// Writes the block addresses of the chunks, whose data begins behind the block `data`.
fn chunk_map(chunks: Chunks, extents: &[Extent], data: u64, output: &mut Output<'_>) -> Result<(), RootDiskError> {
    let mut next = 0;
    for extent in extents {
        let (first, count) = (extent.offset / chunks.bytes(), extent.length.div_ceil(chunks.bytes()));
        holes(first - next, output)?;
        for chunk in 0..count {
            let address = data + (extent.position + chunk * chunks.bytes()) / BLOCK;
            output.bytes(&(address as u32).to_le_bytes())?;
        }
        next = first + count;
    }
    holes(chunks.count() - next, output)
}

fn holes(count: u64, output: &mut Output<'_>) -> Result<(), RootDiskError> {
    (0..count).try_for_each(|_| Ok(output.bytes(&NULL_ADDR.to_le_bytes())?))
}

/// Bits of the inode's mode (`S_IFMT`), and the type number in directories.
fn file_type(node: &Node) -> (u16, u8) {
    match node.content {
        Content::Regular { .. } => (0o100_000, 1),
        Content::Directory(_) => (0o040_000, 2),
        Content::CharacterDevice { .. } => (0o020_000, 3),
        Content::BlockDevice { .. } => (0o060_000, 4),
        Content::Fifo => (0o010_000, 5),
        Content::Symlink(_) => (0o120_000, 7),
    }
}
