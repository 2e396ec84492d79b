// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Users and groups: inodes refer to them by a 16-bit index into one table for both.

use super::table::Table;
use crate::root_disk::RootDiskError;
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Owners {
    indexes: HashMap<u32, u16>,
    table: Table,
}

impl Owners {
    /// Index of `id`, in the order of first use.
    pub(super) fn index(&mut self, id: u32) -> Result<u16, RootDiskError> {
        if let Some(index) = self.indexes.get(&id) {
            return Ok(*index);
        }
        let next = u16::try_from(self.indexes.len()).ok().filter(|next| *next < u16::MAX);
        let next = next.ok_or(RootDiskError::Owners)?;
        self.table.push(&id.to_le_bytes());
        self.indexes.insert(id, next);
        Ok(next)
    }

    /// Returns the number of ids, and their table.
    pub(super) fn finish(self) -> (u16, Table) {
        (self.indexes.len() as u16, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_one_index_each_and_are_bounded() {
        let mut owners = Owners::default();
        for id in 0..u32::from(u16::MAX) {
            assert_eq!(u32::from(owners.index(id + 5).unwrap()), id);
        }
        assert_eq!(owners.index(5).unwrap(), 0);
        assert!(matches!(owners.index(0), Err(RootDiskError::Owners)));
        assert_eq!(owners.finish().0, u16::MAX);
    }
}
