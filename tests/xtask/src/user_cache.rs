// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What takes long to make or to fetch, in `coracle` of the user's cache.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The directory `key` of this kind; `make` fills an empty one if it is missing, which then appears whole.
pub(crate) fn find_or_make(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let parent = cache.join("coracle").join(kind);
    let directory = parent.join(key);
    if !directory.exists() {
        fs::create_dir_all(&parent)?;
        let work = tempfile::Builder::new().prefix(".making").tempdir_in(&parent)?;
        make(work.path())?;
        fs::rename(work.keep(), &directory)?;
    }
    Ok(directory)
}
