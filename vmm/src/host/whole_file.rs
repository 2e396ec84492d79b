// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A document that is there whole or not at all: written beside its place and renamed. Used by whoever writes one.

use rustix::fs::{Access, access};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Puts `text` in the place of the file at `path`: a reader sees the old file or the new one.
///
/// # Errors
/// The host refused; the old file is still there.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // What is no file (`/dev/stderr`, a FIFO) cannot be replaced.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return File::options().write(true).open(path)?.write_all(text);
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether [`replace`] could put something at `path` now, without doing it.
///
/// # Errors
/// It could not: what the host would say.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(there) if !there.is_file() => Ok(access(path, Access::WRITE_OK)?),
        _ if path.file_name().is_none() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Ok(access(path.with_file_name("."), Access::WRITE_OK | Access::EXEC_OK)?),
    }
}
