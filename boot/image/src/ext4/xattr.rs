// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extended attributes: behind the fields of the inode, and in one block that several inodes may share.

use super::{Ext4, damaged, inode::Inode, u16_at, u32_at};
use crate::file_system::{FileSystemError, Xattr};

/// Versions of access control lists, on the disk and of `getxattr`.
const DISK_VERSION: u32 = 1;
const LIST_VERSION: u32 = 2;
const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER_SIZE: usize = 32;
const ENTRY_HEADER_SIZE: usize = 16;
/// Each takes 16 bytes of a block and of an inode at least, and most of 20 bytes.
const MAX_XATTRS: usize = 256;

impl Ext4 {
    pub(super) fn read_attributes(&self, inode: &Inode) -> Result<Vec<Xattr>, FileSystemError> {
        let mut xattrs = Vec::new();
        // An inode without attributes has anything but the magic number there.
        if inode.tail.len() >= 8 && u32_at(&inode.tail, 0)? == MAGIC {
            let area = &inode.tail[4..];
            self.read_xattrs(area, area, &mut xattrs)?;
        }
        if inode.xattr_block != 0 {
            let block = self.read_block(inode.xattr_block)?;
            if u32_at(&block[..], 0)? != MAGIC || u32_at(&block[..], 8)? != 1 {
                return Err(damaged("block of extended attributes"));
            }
            self.read_xattrs(&block[..], &block[BLOCK_HEADER_SIZE..], &mut xattrs)?;
        }
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(xattrs)
    }

    /// `area` is what the places of the values count in.
    fn read_xattrs(&self, area: &[u8], mut rest: &[u8], xattrs: &mut Vec<Xattr>) -> Result<(), FileSystemError> {
        let malformed = || damaged("extended attribute");
        while rest.len() >= 4 && u32_at(rest, 0)? != 0 {
            let name_length = usize::from(rest[0]);
            let prefix: &[u8] = match rest[1] {
                0 => b"",
                1 => b"user.",
                2 => b"system.posix_acl_access",
                3 => b"system.posix_acl_default",
                4 => b"trusted.",
                6 => b"security.",
                7 => b"system.",
                _ => return Err(malformed()),
            };
            let suffix = rest.get(ENTRY_HEADER_SIZE..ENTRY_HEADER_SIZE + name_length).ok_or_else(malformed)?;
            let (start, length) = (usize::from(u16_at(rest, 2)?), u32_at(rest, 8)?);
            let length = usize::try_from(length).map_err(|_| malformed())?;
            // Values in inodes of their own are a feature that is not on.
            if u32_at(rest, 4)? != 0 {
                return Err(malformed());
            }
            let value = area.get(start..).and_then(|area| area.get(..length)).ok_or_else(malformed)?;
            // Before `push`: values may overlap, so that their number is bounded and not their sum.
            if xattrs.len() == MAX_XATTRS {
                return Err(malformed());
            }
            let value = if matches!(rest[1], 2 | 3) { access_control_list(value)? } else { value.to_vec() };
            xattrs.push(Xattr { name: [prefix, suffix].concat(), value });
            rest = rest.get((ENTRY_HEADER_SIZE + name_length).next_multiple_of(4)..).ok_or_else(malformed)?;
        }
        Ok(())
    }
}

/// Converts a list of the disk, in which only named users and groups have a number, to that of `getxattr`.
fn access_control_list(disk: &[u8]) -> Result<Vec<u8>, FileSystemError> {
    let malformed = || damaged("access control list");
    let mut rest = disk.strip_prefix(&DISK_VERSION.to_le_bytes()).ok_or_else(malformed)?;
    let mut list = LIST_VERSION.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let is_named = matches!(u16_at(rest, 0)?, 2 | 8);
        let (entry, others) = rest.split_at_checked(if is_named { 8 } else { 4 }).ok_or_else(malformed)?;
        list.extend_from_slice(entry);
        if !is_named {
            list.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        rest = others;
    }
    Ok(list)
}
