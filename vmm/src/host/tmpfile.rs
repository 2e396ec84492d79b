// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files without a name: their space is free again once the last descriptor and the last mapping are gone, however the processes end.

use super::random::random_id;
use rustix::fs::{CWD, Mode, OFlags, open, openat, unlink};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// A new file in `directory`, for this user only, open for reading and writing.
///
/// # Errors
/// The directory is missing or cannot be written.
pub(crate) fn tmpfile(directory: &Path) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        // The file system does not support O_TMPFILE; kernels before 3.11 return ISDIR.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        result => return Ok(result?.into()),
    }
    let name = random_id().map_err(|_| Errno::IO)?;
    let path = directory.join(format!(".coracle-{name}"));
    let file = openat(CWD, &path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode)?;
    unlink(&path)?;
    Ok(file.into())
}
