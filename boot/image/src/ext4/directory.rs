// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories. The index of a large one lies in entries without an inode, so that all are read as a list.

use super::{BLOCK_SIZE, Ext4, FILE_SYSTEM, damaged, inode::Inode, u16_at, u32_at};
use crate::file_system::{self, FileKind, FileSystemError, Name, extents_cost, sorted};

const HEADER_SIZE: usize = 8;

impl Ext4 {
    pub(super) fn read_directory(&self, inode: &Inode) -> Result<Vec<Name>, FileSystemError> {
        if inode.metadata.kind != FileKind::Directory {
            return Err(damaged("not a directory"));
        }
        let mut entries = Vec::new();
        let size = BLOCK_SIZE as u64;
        let extents = self.read_extents(inode)?;
        for extent in &extents {
            for index in 0..extent.length.div_ceil(size) {
                let block = self.read_block(extent.position / size + index)?;
                self.read_entries(&block[..], &mut entries)?;
            }
        }
        self.budget.release(extents_cost(&extents));
        sorted(entries, FILE_SYSTEM)
    }

    fn read_entries(&self, mut rest: &[u8], entries: &mut Vec<Name>) -> Result<(), FileSystemError> {
        let malformed = || damaged("directory entry");
        while !rest.is_empty() {
            let length = usize::from(u16_at(rest, 4)?);
            if length < HEADER_SIZE || length % 4 != 0 {
                return Err(malformed());
            }
            let (entry, others) = rest.split_at_checked(length).ok_or_else(malformed)?;
            rest = others;
            let inode = u32_at(entry, 0)?;
            if inode == 0 {
                continue;
            }
            match entry[HEADER_SIZE..].get(..usize::from(entry[6])).ok_or_else(malformed)? {
                b"." | b".." => {}
                name if !file_system::is_name(name) => return Err(malformed()),
                name => {
                    self.charge(file_system::entry_cost(name))?;
                    entries.push((name.into(), inode.into()));
                }
            }
        }
        Ok(())
    }
}
