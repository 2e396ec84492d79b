// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which extended attributes of an entry are kept, and their limits.

use super::Xattrs;
use super::fault::Fault;
use crate::limits;

/// Number of the namespace and what follows its prefix. `None` for a namespace without a number in EROFS.
pub(crate) fn namespace(name: &[u8]) -> Option<(u8, &[u8])> {
    const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    match name {
        b"system.posix_acl_access" => Some((2, b"")),
        b"system.posix_acl_default" => Some((3, b"")),
        _ => PREFIXES.iter().find_map(|(prefix, index)| {
            name.strip_prefix(*prefix).filter(|rest| !rest.is_empty()).map(|rest| (*index, rest))
        }),
    }
}

/// Attributes that EROFS and Linux know the namespace of; the rest is left out, as a file system without them would do.
/// `trusted.overlay.` is left out too: it is overlayfs's own book-keeping and would let an image redirect the overlay
/// that the guest puts over it.
pub(super) fn kept(xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Xattrs, Fault> {
    let mut bytes = 0;
    let mut kept = Vec::new();
    for (name, value) in xattrs {
        if name.starts_with(b"trusted.overlay.") || namespace(&name).is_none() {
            log::debug!("extended attribute {} is left out", crate::tar::printable(&name));
            continue;
        }
        bytes += name.len() + value.len() + 8;
        // EROFS holds the length of a value in 16 bits; Linux accepts one byte more.
        if name.contains(&0) || name.len() > limits::NAME_BYTES || value.len() > usize::from(u16::MAX) {
            return Err(Fault::Xattr(crate::tar::printable(&name)));
        }
        if bytes > limits::XATTR_BYTES_PER_ENTRY {
            return Err(Fault::TooManyXattrs);
        }
        kept.push((name.into(), value.into()));
    }
    Ok(kept.into())
}
