// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Replaces a file atomically: a reader sees the old content or the new one, never a part. The content is written to a file
//! beside it and renamed. It is not synced: a power failure ends the machine as well.

use rustix::fs::{Access, access};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces the file at `path` by one that holds `content`.
///
/// # Errors
/// The file is unchanged.
pub(crate) fn atomic_write(path: &Path, content: &[u8]) -> io::Result<()> {
    // A device or FIFO (`/dev/stderr`) is written to, not replaced.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return File::options().write(true).open(path)?.write_all(content);
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether [`atomic_write`] to `path` would succeed now, without doing it.
///
/// # Errors
/// The error that it would return.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(there) if !there.is_file() => Ok(access(path, Access::WRITE_OK)?),
        _ if path.file_name().is_none() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Ok(access(path.with_file_name("."), Access::WRITE_OK | Access::EXEC_OK)?),
    }
}
