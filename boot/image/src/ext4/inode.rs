// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Inodes and where they are.

use super::{BLOCK_SIZE, Ext4, bytes_at, damaged, u16_at, u32_at, wide};
use crate::file_system::{FileKind, FileSystem as _, FileSystemError, Metadata, device_numbers};

/// The fields that every inode has; the extra ones and the attributes follow.
const BASE_SIZE: usize = 128;
const FLAG_EXTENTS: u32 = 0x8_0000;

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) metadata: Metadata,
    pub(super) has_extents: bool,
    pub(super) map: [u8; 60],
    pub(super) xattr_block: u64,
    /// What follows the fields.
    pub(super) tail: Vec<u8>,
}

impl Ext4 {
    pub(super) fn inode(&self, number: u64) -> Result<Inode, FileSystemError> {
        let index = u32::try_from(number).ok().filter(|number| *number <= self.geometry.inodes);
        let index = index.and_then(|number| number.checked_sub(1)).ok_or(damaged("inode number out of range"))?;
        let (group, index) = (index / self.geometry.inodes_per_group, index % self.geometry.inodes_per_group);
        let mut descriptor = [0; 64];
        let descriptor = &mut descriptor[..usize::from(self.geometry.descriptor_size)];
        let offset = u64::from(group) * u64::from(self.geometry.descriptor_size);
        self.read_bytes(1, offset, descriptor)?;
        let high = if self.geometry.has_64bit { u32_at(descriptor, 40)? } else { 0 };
        let table = wide(high, u32_at(descriptor, 8)?);
        let mut bytes = vec![0; usize::from(self.geometry.inode_size)];
        self.read_bytes(table, u64::from(index) * u64::from(self.geometry.inode_size), &mut bytes)?;
        parse(&bytes)
    }

    fn read_bytes(&self, block: u64, offset: u64, bytes: &mut [u8]) -> Result<(), FileSystemError> {
        let end = (self.geometry.blocks * BLOCK_SIZE as u64).checked_sub(bytes.len() as u64);
        let position = block.checked_mul(BLOCK_SIZE as u64).and_then(|position| position.checked_add(offset));
        match (position, end) {
            (Some(position), Some(end)) if block > 0 && position <= end => Ok(self.read_at(bytes, position)?),
            _ => Err(damaged("inode table out of range")),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Inode, FileSystemError> {
    let mode = u16_at(bytes, 0)?;
    let kind = FileKind::of_mode(mode).ok_or_else(|| damaged("inode without a type"))?;
    let links = u16_at(bytes, 26)?;
    // A directory with more children than the field can count has one link.
    if links == 0 {
        return Err(damaged("a removed inode has a name"));
    }
    let extra = usize::from(u16_at(bytes, BASE_SIZE)?);
    let tail = bytes.get(BASE_SIZE + extra..).ok_or(damaged("inode fields out of range"))?;
    let modified_extra = if extra >= 12 { u32_at(bytes, 136)? } else { 0 };
    let seconds = u32_at(bytes, 16)?.cast_signed();
    let map = bytes_at(bytes, 40)?;
    let metadata = Metadata {
        kind,
        permissions: mode & 0o7777,
        uid: u32::from(u16_at(bytes, 120)?) << 16 | u32::from(u16_at(bytes, 2)?),
        gid: u32::from(u16_at(bytes, 122)?) << 16 | u32::from(u16_at(bytes, 24)?),
        size: wide(u32_at(bytes, 108)?, u32_at(bytes, 4)?),
        links: links.into(),
        modified: (i64::from(seconds) + (i64::from(modified_extra & 3) << 32), (modified_extra >> 2).min(999_999_999)),
        device: if kind.is_device() { device(&map)? } else { (0, 0) },
    };
    Ok(Inode {
        metadata,
        has_extents: u32_at(bytes, 32)? & FLAG_EXTENTS != 0,
        map,
        xattr_block: u64::from(u16_at(bytes, 118)?) << 32 | u64::from(u32_at(bytes, 104)?),
        tail: tail.to_vec(),
    })
}

/// The first word holds numbers of 8 bits, the second one those of 12 and 20 bits.
fn device(map: &[u8; 60]) -> Result<(u32, u32), FileSystemError> {
    let (old, new) = (u32_at(map, 0)?, u32_at(map, 4)?);
    if old != 0 {
        return Ok((old >> 8 & 0xff, old & 0xff));
    }
    Ok(device_numbers(new))
}
