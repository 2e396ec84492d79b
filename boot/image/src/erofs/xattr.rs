// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extended attributes, stored with their inode.

use super::format::{XattrEntry, XattrHeader};
use crate::tree::{Xattrs, xattr_namespace as namespace};
use zerocopy::IntoBytes as _;

/// Size of the output of [`encode`], a multiple of 4.
pub(super) fn size(xattrs: &Xattrs) -> u64 {
    if xattrs.is_empty() {
        return 0;
    }
    let entry = |name: &[u8], value: &[u8]| {
        let rest = namespace(name).map_or(0, |(_, rest)| rest.len());
        (size_of::<XattrEntry>() + rest + value.len()).next_multiple_of(4)
    };
    let entries: usize = xattrs.iter().map(|(name, value)| entry(name, value)).sum();
    (size_of::<XattrHeader>() + entries) as u64
}

/// `Inode::xattr_icount` for attributes of that size.
pub(super) fn count(size: u64) -> u16 {
    match size {
        0 => 0,
        size => {
            u16::try_from((size - size_of::<XattrHeader>() as u64) / 4 + 1).expect("attributes of an entry are bounded")
        }
    }
}

/// Appends the attributes of one inode.
pub(super) fn encode(xattrs: &Xattrs, into: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    into.extend_from_slice(XattrHeader::default().as_bytes());
    for (name, value) in xattrs.iter() {
        let (index, rest) = namespace(name).expect("attributes without a number were left out");
        let name_len = u8::try_from(rest.len()).expect("names of attributes are bounded");
        let value_size = u16::try_from(value.len()).expect("values of attributes are bounded").into();
        into.extend_from_slice(XattrEntry { name_len, name_index: index, value_size }.as_bytes());
        into.extend_from_slice(rest);
        into.extend_from_slice(value);
        into.resize(into.len().next_multiple_of(4), 0);
    }
}
