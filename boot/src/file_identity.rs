// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The key under which data about a file's contents is cached. Any thread.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Returns a string that changes with the contents: a write changes both times, and ctime cannot be
/// set. It misses a second write of the same length within a tick of the kernel's clock, which a
/// cache of derived data can tolerate.
#[must_use]
pub fn file_identity(metadata: &Metadata) -> String {
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
    format!("{device:x}-{inode:x}-{length:x}-{}.{:09}-{}.{:09}", modified.0, modified.1, changed.0, changed.1)
}
