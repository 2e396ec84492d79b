// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Converted images. Each entry is a directory, which appears complete or not at all:
//!
//! | path below the cache | what |
//! |---|---|
//! | `layers/v1/sha256-HEX/{data,entries}` | a layer, by its diff id: see `layer_files` |
//! | `images/v3/sha256-HEX/root.erofs` | the metadata of a root disk, by the chain of its layers' diff ids |
//! | `images/v3/sha256-HEX/disk.json` | its digest, and the layers whose data follows it |
//! | `images/v3/sha256-HEX.squashfs/` | the same with `root.squashfs`, which is a whole disk |
//! | `*/.NAME.tmp/` | an entry in progress; its process holds a lock on the directory |
//!
//! A version changes whenever the same layer or image would give other bytes. A killed conversion leaves an unlocked directory, which
//! the next one removes; one that is interrupted by a signal removes its own. What `prune_cache` removes has such a name first. It locks
//! `images/v3`, as does a start until its files are open; the own file of a root disk is locked while it is open. Nothing is synced to
//! the disk: after a crash of the host a file with the wrong size, or entries with the wrong digest, are made again.

mod entry;
mod layers;
mod prune;
mod root_disks;

pub use entry::abandon_conversions;
pub(crate) use entry::{Claim, Workspace};
pub(crate) use layers::LayerCache;
pub use prune::{Pruned, prune_cache};
pub(crate) use root_disks::{DataOf, FoundDisk, RootDiskCache, Stored};

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path} in the image cache")]
pub struct CacheError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl CacheError {
    fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }
}

/// The directory `name` of a cache, as an absolute path.
fn below(cache: &Path, name: &str) -> PathBuf {
    std::path::absolute(cache).unwrap_or_else(|_| cache.to_owned()).join(name)
}

#[cfg(test)]
mod cache_tests;
