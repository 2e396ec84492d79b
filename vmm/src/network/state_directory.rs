// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory of what machines change in network namespaces, so that the next start can undo what a killed process left.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::Result;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

/// Independent of the user's environment, because a namespace is.
pub(super) const STATE_DIRECTORY: &str = "/run/coracle/networks";

/// Excludes other starts until the file is dropped. Returns `None` if no process has left anything here.
pub(super) fn lock_directory() -> Option<File> {
    let directory = File::open(STATE_DIRECTORY).ok()?;
    flock(&directory, FlockOperation::LockExclusive).ok()?;
    Some(directory)
}

pub(super) fn create_state_directory() -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(STATE_DIRECTORY)
}

/// The number by which the kernel identifies the network namespace of this thread.
pub(super) fn network_namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino())
}
