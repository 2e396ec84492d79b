// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories. The index of a large one lies in entries without an inode, so that all are read as a list.

use super::{BLOCK_SIZE, Ext4, Ext4Error, FileKind, Inode, u16_at, u32_at};

const HEADER_SIZE: usize = 8;

impl Ext4 {
    /// Names and inode numbers, without `.` and `..`, in the order of the disk.
    ///
    /// # Errors
    /// It is not a directory, or is damaged.
    pub fn entries(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u32)>, Ext4Error> {
        if inode.kind != FileKind::Directory {
            return Err(Ext4Error::Damaged("not a directory"));
        }
        let mut entries = Vec::new();
        let size = BLOCK_SIZE as u64;
        for extent in self.extents(inode)? {
            for index in 0..extent.length.div_ceil(size) {
                let block = self.read_block(extent.position / size + index)?;
                self.read_entries(&block[..], &mut entries)?;
            }
        }
        Ok(entries)
    }

    fn read_entries(&self, mut rest: &[u8], entries: &mut Vec<(Vec<u8>, u32)>) -> Result<(), Ext4Error> {
        let damaged = || Ext4Error::Damaged("directory entry");
        while !rest.is_empty() {
            let length = usize::from(u16_at(rest, 4)?);
            if length < HEADER_SIZE || length % 4 != 0 {
                return Err(damaged());
            }
            let (entry, others) = rest.split_at_checked(length).ok_or_else(damaged)?;
            rest = others;
            let inode = u32_at(entry, 0)?;
            if inode == 0 {
                continue;
            }
            let name = entry[HEADER_SIZE..].get(..usize::from(entry[6])).ok_or_else(damaged)?;
            match name {
                b"." | b".." => continue,
                [] => return Err(damaged()),
                name if name.iter().any(|byte| matches!(byte, 0 | b'/')) => return Err(damaged()),
                name => {
                    self.charge(name.len() + size_of::<(Vec<u8>, u32)>())?;
                    entries.push((name.to_vec(), inode));
                }
            }
        }
        Ok(())
    }
}
