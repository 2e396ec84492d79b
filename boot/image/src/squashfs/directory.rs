// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directory listings: runs of names, each with a header that holds the place of their inodes.

use super::format::{DirEntry, DirHeader};
use super::table::Table;
use zerocopy::IntoBytes as _;

/// The kernel rejects a run with more names.
const MAX_RUN: usize = 256;

/// A name with the type and the place of its inode.
pub(super) struct Name<'a> {
    pub name: &'a [u8],
    pub kind: u16,
    pub number: u32,
    /// Reference into the table of inodes.
    pub inode: u64,
}

impl Name<'_> {
    fn block(&self) -> u32 {
        u32::try_from(self.inode >> 16).expect("the number of entries bounds the table of inodes")
    }
}

/// Appends the listing of sorted `names` and returns its size.
pub(super) fn append(names: &[Name<'_>], to: &mut Table) -> u32 {
    let mut bytes = 0;
    let mut push = |part: &[u8]| {
        to.push(part);
        bytes += part.len() as u32;
    };
    let mut rest = names;
    while let Some(first) = rest.first() {
        let near = |name: &Name<'_>| i16::try_from(i64::from(name.number) - i64::from(first.number)).ok();
        let fits = |name: &&Name<'_>| name.block() == first.block() && near(name).is_some();
        let count = rest.iter().take(MAX_RUN).take_while(fits).count();
        let (run, later) = rest.split_at(count);
        let header = DirHeader {
            count: (count as u32 - 1).into(),
            start_block: first.block().into(),
            inode_number: first.number.into(),
        };
        push(header.as_bytes());
        for name in run {
            let difference = near(name).expect("only such names are in the run");
            let entry = DirEntry {
                offset: ((name.inode & 0xffff) as u16).into(),
                inode_number: (difference as u16).into(),
                inode_type: name.kind.into(),
                size: u16::try_from(name.name.len() - 1).expect("names are bounded").into(),
            };
            push(entry.as_bytes());
            push(name.name);
        }
        rest = later;
    }
    bytes
}
