// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Selects the extended attributes of an entry that are kept, and bounds them.

use super::Xattrs;
use super::fault::Fault;
use crate::limits;

const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
/// Attributes whose names are complete.
const NAMES: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];

/// Returns the number of the namespace and the name without its prefix. `None` for a namespace
/// without a number in EROFS.
pub(crate) fn namespace(name: &[u8]) -> Option<(u8, &[u8])> {
    let complete = NAMES.iter().find(|(known, _)| *known == name);
    complete.map(|(_, index)| (*index, &b""[..])).or_else(|| {
        PREFIXES.iter().find_map(|(prefix, index)| {
            name.strip_prefix(*prefix).filter(|rest| !rest.is_empty()).map(|rest| (*index, rest))
        })
    })
}

/// What names in the namespace `index` begin with.
pub(crate) fn prefix(index: u8) -> Option<&'static [u8]> {
    PREFIXES.iter().chain(&NAMES).find(|(_, known)| *known == index).map(|(prefix, _)| *prefix)
}

/// Keeps attributes whose namespace EROFS and Linux know, and drops the others, as a file system
/// without them does. `trusted.overlay.` is dropped too: it is overlayfs's own metadata, by which
/// an image could redirect the guest's overlay.
pub(super) fn filter(xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Xattrs, Fault> {
    let mut bytes = 0;
    let mut kept = Vec::new();
    for (name, value) in xattrs {
        if name.starts_with(b"trusted.overlay.") || namespace(&name).is_none() {
            log::debug!("extended attribute {} is dropped", crate::tar::printable(&name));
            continue;
        }
        bytes += name.len() + value.len() + 8;
        // EROFS stores the length of a value in 16 bits; Linux accepts one byte more.
        if name.contains(&0) || name.len() > limits::MAX_NAME_LENGTH || value.len() > usize::from(u16::MAX) {
            return Err(Fault::Xattr(crate::tar::printable(&name)));
        }
        if bytes > limits::MAX_XATTR_BYTES_PER_ENTRY {
            return Err(Fault::TooManyXattrs);
        }
        kept.push((name.into(), value.into()));
    }
    Ok(kept.into())
}
