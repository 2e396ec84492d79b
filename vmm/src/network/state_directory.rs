// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory of what machines change in network namespaces, so that the next start can undo what a killed process left.

use crate::host::directories::IN_CONTAINER;
use crate::host::file_lock::lock_within;
use std::fs::{self, File};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Independent of the user's environment, because a namespace is.
const STATE_DIRECTORY: &str = "/run/coracle/networks";

/// In a container of an engine the files of the root are the container's.
pub(super) fn state_directory() -> PathBuf {
    let own = Path::new(IN_CONTAINER);
    if own.is_dir() { own.join("networks") } else { STATE_DIRECTORY.into() }
}

/// A start has the lock for less than a second, unless its process is stopped (SIGSTOP) meanwhile.
const MAX_LOCK_TIME: Duration = Duration::from_secs(20);

/// Excludes other starts until the file is dropped. Returns `None` if no process has left anything here.
///
/// # Errors
/// Another process does not release it; the error names it.
pub(super) fn lock_directory() -> Result<Option<File>> {
    let path = state_directory();
    let directory = match File::open(&path) {
        Ok(directory) => directory,
        // Only root has a state.
        Err(error) if [ErrorKind::NotFound, ErrorKind::PermissionDenied].contains(&error.kind()) => return Ok(None),
        Err(error) => return Err(error),
    };
    lock_within(&directory, &path, MAX_LOCK_TIME)?;
    Ok(Some(directory))
}

pub(super) fn create_state_directory() -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_directory())
}

/// The number by which the kernel identifies the network namespace of this thread.
pub(super) fn network_namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino())
}
