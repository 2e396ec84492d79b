// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Inodes of 256 bytes.

use super::BLOCK;
use crate::file_system::{FileKind, Metadata};

pub(super) const INODE_SIZE: usize = 256;
/// Fields behind the first 128 bytes: the upper parts of times.
pub(super) const EXTRA_SIZE: u16 = 32;
const FLAG_EXTENTS: u32 = 0x8_0000;

/// What the 60 bytes of an inode hold: the root of a tree of extents, a short target, or a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    bytes: [u8; 60],
    has_extents: bool,
    /// Those of the content and of the tree.
    blocks: u64,
}

pub(super) struct Inode<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) map: Map,
    pub(super) size: u64,
    /// 0 if there are no extended attributes.
    pub(super) xattr_block: u64,
}

impl Map {
    pub(super) fn extents(bytes: [u8; 60], blocks: u64) -> Self {
        Self { bytes, has_extents: true, blocks }
    }

    pub(super) fn link(target: &[u8]) -> Self {
        let mut bytes = [0; 60];
        bytes[..target.len()].copy_from_slice(target);
        Self { bytes, has_extents: false, blocks: 0 }
    }

    /// In the form of 8 bits where both numbers fit, as Linux writes it.
    pub(super) fn device((major, minor): (u32, u32)) -> Self {
        let mut bytes = [0; 60];
        match major < 256 && minor < 256 {
            true => bytes[..2].copy_from_slice(&[minor as u8, major as u8]),
            false => {
                let encoded = minor & 0xff | major << 8 | (minor & !0xff) << 12;
                bytes[4..8].copy_from_slice(&encoded.to_le_bytes());
            }
        }
        Self { bytes, has_extents: false, blocks: 0 }
    }

    pub(super) fn bytes(&self) -> [u8; 60] {
        self.bytes
    }
}

impl Inode<'_> {
    pub(super) fn encode(&self) -> [u8; INODE_SIZE] {
        let Self { metadata, map, size, xattr_block } = self;
        let mut inode = [0; INODE_SIZE];
        let mut put = |at: usize, bytes: &[u8]| inode[at..at + bytes.len()].copy_from_slice(bytes);
        let (seconds, extra) = time(metadata.modified);
        let sectors = (map.blocks + u64::from(*xattr_block != 0)) * (BLOCK / 512);
        put(0, &(kind(metadata.kind) << 12 | metadata.permissions).to_le_bytes());
        put(2, &(metadata.uid as u16).to_le_bytes());
        put(4, &(*size as u32).to_le_bytes());
        for at in [8, 12, 16, 144] {
            put(at, &seconds);
        }
        put(24, &(metadata.gid as u16).to_le_bytes());
        put(26, &(metadata.links as u16).to_le_bytes());
        put(28, &(sectors as u32).to_le_bytes());
        put(32, &(if map.has_extents { FLAG_EXTENTS } else { 0 }).to_le_bytes());
        put(40, &map.bytes);
        put(104, &(*xattr_block as u32).to_le_bytes());
        put(108, &((size >> 32) as u32).to_le_bytes());
        put(116, &((sectors >> 32) as u16).to_le_bytes());
        put(120, &((metadata.uid >> 16) as u16).to_le_bytes());
        put(122, &((metadata.gid >> 16) as u16).to_le_bytes());
        put(128, &EXTRA_SIZE.to_le_bytes());
        for at in [132, 136, 140, 148] {
            put(at, &extra);
        }
        inode
    }
}

fn kind(kind: FileKind) -> u16 {
    match kind {
        FileKind::Fifo => 0o1,
        FileKind::CharDevice => 0o2,
        FileKind::Directory => 0o4,
        FileKind::BlockDevice => 0o6,
        FileKind::Regular => 0o10,
        FileKind::Symlink => 0o12,
        FileKind::Socket => 0o14,
    }
}

/// The lower 32 bits of the seconds; two more, which count up from 1970, with the nanoseconds. Other times become the first or the
/// last one.
fn time((seconds, nanoseconds): (i64, u32)) -> ([u8; 4], [u8; 4]) {
    let low = i64::from(i32::MIN);
    let seconds = seconds.clamp(low, low + (4 << 32) - 1);
    let epoch = ((seconds - low) >> 32) as u32;
    ((seconds as u32).to_le_bytes(), (nanoseconds << 2 | epoch).to_le_bytes())
}
