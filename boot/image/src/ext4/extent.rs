// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the content of a file is.

use super::{BLOCK_SIZE, Ext4, Ext4Error, FileKind, Inode, u16_at, u32_at};
use std::os::unix::fs::FileExt;

const MAGIC: u16 = 0xf30a;
const MAX_DEPTH: u16 = 5;
const ENTRY_SIZE: usize = 12;
/// A longer extent is allocated but not written: it reads as zeroes.
const MAX_WRITTEN: u16 = 0x8000;
/// What symlinks hold at most, as on Linux.
const MAX_LINK: u64 = 4096;

/// Bytes of a file that are stored; what lies between extents reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In the file.
    pub offset: u64,
    pub length: u64,
    /// In the file system's own file.
    pub position: u64,
}

impl Ext4 {
    /// The stored bytes of `inode`, in order, up to its size.
    ///
    /// # Errors
    /// The tree of extents is damaged or too large.
    pub fn extents(&self, inode: &Inode) -> Result<Vec<Extent>, Ext4Error> {
        let mut extents = Vec::new();
        if inode.has_extents {
            self.read_node(&inode.map, None, &mut 0, &mut extents)?;
        } else if inode.size > 0 {
            return Err(Ext4Error::Damaged("content without extents"));
        }
        extents.retain_mut(|extent| {
            extent.length = extent.length.min(inode.size.saturating_sub(extent.offset));
            extent.length > 0
        });
        Ok(extents)
    }

    /// `depth` is None at the root. `next` is the first block of the file that has not been seen yet: extents ascend, so that no
    /// tree is endless.
    fn read_node(
        &self,
        node: &[u8],
        depth: Option<u16>,
        next: &mut u64,
        extents: &mut Vec<Extent>,
    ) -> Result<(), Ext4Error> {
        let (count, own_depth) = (u16_at(node, 2)?, u16_at(node, 6)?);
        let is_sound = u16_at(node, 0)? == MAGIC
            && depth.map_or(own_depth <= MAX_DEPTH, |depth| own_depth == depth && count > 0)
            && usize::from(count) < node.len() / ENTRY_SIZE;
        if !is_sound {
            return Err(Ext4Error::Damaged("extent header"));
        }
        for entry in node.chunks_exact(ENTRY_SIZE).skip(1).take(usize::from(count)) {
            if let Some(depth) = own_depth.checked_sub(1) {
                let block = u64::from(u16_at(entry, 8)?) << 32 | u64::from(u32_at(entry, 4)?);
                self.read_node(&self.read_block(block)?[..], Some(depth), next, extents)?;
                continue;
            }
            let length = u16_at(entry, 4)?;
            let is_written = length <= MAX_WRITTEN;
            let length = u64::from(if is_written { length } else { length - MAX_WRITTEN });
            let first = u64::from(u32_at(entry, 0)?);
            let start = u64::from(u16_at(entry, 6)?) << 32 | u64::from(u32_at(entry, 8)?);
            if length == 0 || first < *next || start == 0 || start + length > self.blocks {
                return Err(Ext4Error::Damaged("extent out of range"));
            }
            *next = first + length;
            if is_written {
                self.charge(size_of::<Extent>())?;
                let size = BLOCK_SIZE as u64;
                extents.push(Extent { offset: first * size, length: length * size, position: start * size });
            }
        }
        Ok(())
    }

    /// # Errors
    /// It is not a symlink, or is damaged.
    pub fn link_target(&self, inode: &Inode) -> Result<Vec<u8>, Ext4Error> {
        if inode.kind != FileKind::Symlink || inode.size == 0 || inode.size >= MAX_LINK {
            return Err(Ext4Error::Damaged("length of a symlink"));
        }
        let damaged = Ext4Error::Damaged("content of a symlink");
        let length = usize::try_from(inode.size).unwrap_or(usize::MAX);
        self.charge(length)?;
        let target = if inode.has_extents {
            let mut target = vec![0; length];
            match self.extents(inode)?[..] {
                [extent] if extent.offset == 0 && extent.length == inode.size => {
                    self.file.read_exact_at(&mut target, extent.position)?;
                }
                _ => return Err(damaged),
            }
            target
        } else {
            inode.map.get(..length).ok_or(Ext4Error::Damaged("length of a symlink"))?.to_vec()
        };
        if target.contains(&0) { Err(damaged) } else { Ok(target) }
    }
}
