// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the content of a file is.

use super::{BLOCK_SIZE, Ext4, damaged, inode::Inode, u16_at, u32_at};
use crate::file_system::{EXTENT_COST, Extent, FileKind, FileSystem as _, FileSystemError, extents_cost};

const MAGIC: u16 = 0xf30a;
const MAX_DEPTH: u16 = 5;
const ENTRY_SIZE: usize = 12;
/// A longer extent is allocated but not written: it reads as zeroes.
const MAX_WRITTEN: u16 = 0x8000;
/// What symlinks hold at most, as on Linux.
const MAX_LINK: u64 = 4096;
/// Blocks of a file are counted in 32 bits.
const MAX_FILE_SIZE: u64 = (BLOCK_SIZE as u64) << 32;

impl Ext4 {
    /// The stored bytes of `inode`, in order, up to its size.
    pub(super) fn read_extents(&self, inode: &Inode) -> Result<Vec<Extent>, FileSystemError> {
        let size = inode.metadata.size;
        let mut extents = Vec::new();
        if size > MAX_FILE_SIZE {
            return Err(damaged("size of a file"));
        }
        if inode.has_extents {
            self.read_node(&inode.map, None, &mut 0, &mut extents)?;
        } else if size > 0 {
            return Err(damaged("content without extents"));
        }
        let all = extents.len() as u64;
        extents.retain_mut(|extent: &mut Extent| {
            extent.length = extent.length.min(size.saturating_sub(extent.offset));
            extent.length > 0
        });
        self.budget.release((all - extents.len() as u64) * EXTENT_COST);
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
    ) -> Result<(), FileSystemError> {
        let (count, own_depth) = (u16_at(node, 2)?, u16_at(node, 6)?);
        let is_sound = u16_at(node, 0)? == MAGIC
            && depth.map_or(own_depth <= MAX_DEPTH, |depth| own_depth == depth && count > 0)
            && usize::from(count) < node.len() / ENTRY_SIZE;
        if !is_sound {
            return Err(damaged("extent header"));
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
            if length == 0 || first < *next || start == 0 || start + length > self.geometry.blocks {
                return Err(damaged("extent out of range"));
            }
            *next = first + length;
            if is_written {
                self.charge(EXTENT_COST)?;
                let size = BLOCK_SIZE as u64;
                extents.push(Extent { offset: first * size, length: length * size, position: start * size });
            }
        }
        Ok(())
    }

    pub(super) fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, FileSystemError> {
        let size = inode.metadata.size;
        if inode.metadata.kind != FileKind::Symlink || size == 0 || size >= MAX_LINK {
            return Err(damaged("length of a symlink"));
        }
        let length = size as usize;
        let target = if inode.has_extents {
            let mut target = vec![0; length];
            let extents = self.read_extents(inode)?;
            match extents[..] {
                [extent] if extent.offset == 0 && extent.length == size => {
                    self.read_at(&mut target, extent.position)?
                }
                _ => return Err(damaged("content of a symlink")),
            }
            self.budget.release(extents_cost(&extents));
            target
        } else {
            inode.map.get(..length).ok_or(damaged("length of a symlink"))?.to_vec()
        };
        if target.contains(&0) { Err(damaged("content of a symlink")) } else { Ok(target) }
    }
}
