// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extended attributes: inodes refer to sets of them by an index; equal sets are stored once.

use super::format::{INVALID, XattrId};
use super::table::Table;
use crate::tree::Xattrs;
use std::collections::HashMap;
use zerocopy::IntoBytes as _;

#[derive(Debug, Default)]
pub(super) struct XattrSets {
    indexes: HashMap<Vec<u8>, u32>,
    pub values: Table,
    /// Start of each set in `values`.
    pub ids: Table,
}

impl XattrSets {
    /// Index of the set of the attributes that the format supports.
    pub(super) fn index(&mut self, xattrs: &Xattrs) -> u32 {
        let (mut bytes, mut count) = (Vec::new(), 0_u32);
        for (name, value) in xattrs.iter() {
            let Some((number, rest)) = namespace(name) else {
                log::debug!(
                    "extended attribute {} is left out: squashfs has none of its kind",
                    crate::tar::printable(name)
                );
                continue;
            };
            count += 1;
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(rest.len()).expect("names are bounded").to_le_bytes());
            bytes.extend_from_slice(rest);
            bytes.extend_from_slice(&u32::try_from(value.len()).expect("values are bounded").to_le_bytes());
            bytes.extend_from_slice(value);
        }
        if count == 0 {
            return INVALID;
        }
        if let Some(index) = self.indexes.get(&bytes) {
            return *index;
        }
        let next = self.indexes.len() as u32;
        let size = u32::try_from(bytes.len()).expect("attributes of an entry are bounded");
        let id = XattrId { xattr: self.values.reference().into(), count: count.into(), size: size.into() };
        self.ids.push(id.as_bytes());
        self.values.push(&bytes);
        self.indexes.insert(bytes, next);
        next
    }

    pub(super) fn count(&self) -> u32 {
        self.indexes.len() as u32
    }
}

/// Number of the namespace, and the name without its prefix.
fn namespace(name: &[u8]) -> Option<(u16, &[u8])> {
    const PREFIXES: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];
    let found = |(prefix, number): &(&[u8], u16)| name.strip_prefix(*prefix).map(|rest| (*number, rest));
    PREFIXES.iter().find_map(found)
}
