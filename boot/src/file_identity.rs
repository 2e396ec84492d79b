// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is remembered of a file's contents is remembered under this name. Runs wherever a file is opened.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Changes with the contents: a write changes its times, of which the second (ctime) cannot be set. The one gap, a
/// second write of the same length within a tick of the kernel's clock, is one that a cache of what is only looked at can have.
#[must_use]
pub fn file_identity(metadata: &Metadata) -> String {
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
    format!("{device:x}-{inode:x}-{length:x}-{}.{:09}-{}.{:09}", modified.0, modified.1, changed.0, changed.1)
}
