// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel's `/dev` lacks of the one that programs expect. There is one devtmpfs in the machine: what is made
//! here is seen by all who mount it, and nobody else does.

use super::failure::{Failure, Step};
use super::files::make_folder;
use rustix::fs::symlink;

/// Adds the links of the standard descriptors and the mount points beneath `/dev`.
pub(crate) fn complete() -> Result<(), Failure> {
    const STEP: &str = "prepare /dev";
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link).step(STEP, link)?;
    }
    for folder in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        make_folder(folder).step(STEP, folder)?;
    }
    Ok(())
}
