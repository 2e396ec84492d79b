// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extended attributes: behind the fields of the inode, and in one block that several inodes may share.

use super::{Ext4, Ext4Error, Inode, u16_at, u32_at};

const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER_SIZE: usize = 32;
const ENTRY_HEADER_SIZE: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    pub name: Vec<u8>,
    /// As `getxattr` returns it, but access control lists, which are as on the disk.
    pub value: Vec<u8>,
}

impl Ext4 {
    /// # Errors
    /// The attributes are damaged or too large.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Ext4Error> {
        let mut xattrs = Vec::new();
        // An inode without attributes has anything but the magic number there.
        if inode.tail.len() >= 8 && u32_at(&inode.tail, 0)? == MAGIC {
            let area = &inode.tail[4..];
            self.read_xattrs(area, area, &mut xattrs)?;
        }
        if inode.xattr_block != 0 {
            let block = self.read_block(inode.xattr_block)?;
            if u32_at(&block[..], 0)? != MAGIC || u32_at(&block[..], 8)? != 1 {
                return Err(Ext4Error::Damaged("block of extended attributes"));
            }
            self.read_xattrs(&block[..], &block[BLOCK_HEADER_SIZE..], &mut xattrs)?;
        }
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(xattrs)
    }

    /// `area` is what the places of the values count in.
    fn read_xattrs(&self, area: &[u8], mut rest: &[u8], xattrs: &mut Vec<Xattr>) -> Result<(), Ext4Error> {
        let damaged = || Ext4Error::Damaged("extended attribute");
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
                _ => return Err(damaged()),
            };
            let suffix = rest.get(ENTRY_HEADER_SIZE..ENTRY_HEADER_SIZE + name_length).ok_or_else(damaged)?;
            let (start, length) = (usize::from(u16_at(rest, 2)?), u32_at(rest, 8)?);
            let length = usize::try_from(length).map_err(|_| damaged())?;
            // Values in inodes of their own are a feature that is not on.
            if u32_at(rest, 4)? != 0 {
                return Err(damaged());
            }
            let value = area.get(start..).and_then(|area| area.get(..length)).ok_or_else(damaged)?;
            self.charge(prefix.len() + suffix.len() + length + size_of::<Xattr>())?;
            xattrs.push(Xattr { name: [prefix, suffix].concat(), value: value.to_vec() });
            rest = rest.get((ENTRY_HEADER_SIZE + name_length).next_multiple_of(4)..).ok_or_else(damaged)?;
        }
        Ok(())
    }
}
