// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that end with the process, however that ends.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// A file without a name in `directory`. Where the file system has none of the kind, one whose name is gone at once.
pub(super) fn tmpfile(directory: &Path) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        // The last is what a kernel says that knows no such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        result => return Ok(result?.into()),
    }
    let name = super::random::random_id().map_err(|_| Errno::IO)?;
    let path = directory.join(format!(".coracle-scratch-{name}"));
    let file = rustix::fs::openat(CWD, &path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode)?;
    rustix::fs::unlink(&path)?;
    Ok(file.into())
}
