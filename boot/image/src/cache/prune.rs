// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes what can be made again. An entry gets another name first, and is removed under that: whatever happens in between, it is there
//! or it is not.

use super::entry::{self, is_at, open_directory, try_lock};
use super::root_disks::{self, DESCRIPTION, Stored};
use super::{CacheError, below, layers};
use crate::digest::Digest;
use crate::image::chain_id;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a prune has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub root_disks: usize,
    pub layers: usize,
    pub bytes: u64,
}

/// Removes from the directory `cache` the root disks, and then the layers, that neither an image with one of these lists of diff ids
/// needs, nor a machine that runs, and that were not used for so long. `None` if an image is converted at the moment.
///
/// # Errors
/// The cache cannot be read or changed.
pub fn prune_cache(cache: &Path, images: &[Vec<Digest>], unused_for: Duration) -> Result<Option<Pruned>, CacheError> {
    let [disks, layers] = [root_disks::DIRECTORY, layers::DIRECTORY].map(|name| below(cache, name));
    // Without one there was no start from this cache; there may be layers, which a pull has converted.
    let lock = entry::open(&disks)?;
    if let Some(lock) = &lock
        && !try_lock(lock).map_err(|error| CacheError::new("lock", &disks, error))?
    {
        return Ok(None);
    }
    let mut removal = Removal { unused_for, removed: Vec::new() };
    let chain_ids: BTreeSet<String> = images.iter().map(|diff_ids| layers::name(&chain_id(diff_ids))).collect();
    let mut needed: BTreeSet<String> = images.iter().flatten().map(layers::name).collect();
    let is_needed = |name: &str| chain_ids.contains(name.split('.').next().unwrap_or_default());
    let (kept, root_disks) = removal.take(&disks, &is_needed)?;
    for path in kept {
        let stored = fs::read(path.join(DESCRIPTION)).ok();
        let stored = stored.and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
        let data = stored.into_iter().flat_map(|stored| stored.data);
        needed.extend(data.filter_map(|of| Some(layers::name(&Digest::parse(&of.diff_id).ok()?))));
    }
    let (_, layers_removed) = removal.take(&layers, &|name| needed.contains(name))?;
    for directory in [&disks, &layers].into_iter().flat_map(|directory| of_other_versions(directory)) {
        removal.take(&directory, &|_| false)?;
    }
    drop(lock);
    let bytes = removal.removed.iter().map(remove).sum();
    Ok(Some(Pruned { root_disks, layers: layers_removed, bytes }))
}

/// The directories of entries that an earlier or a later coracle made: `v` and a number. Nothing else beside them is ours.
fn of_other_versions(directory: &Path) -> Vec<PathBuf> {
    let all = directory.parent().into_iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten();
    let is_version = |path: &PathBuf| {
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix('v'));
        number.is_some_and(|number| number.parse::<u32>().is_ok()) && path.is_dir()
    };
    all.filter_map(Result::ok).map(|entry| entry.path()).filter(is_version).filter(|path| path != directory).collect()
}

struct Removal {
    unused_for: Duration,
    /// Entries under another name, each with its lock.
    removed: Vec<(PathBuf, OwnedFd)>,
}

impl Removal {
    /// Takes what is not needed out of a directory. Returns what stays, and how many do not.
    fn take(
        &mut self,
        directory: &Path,
        is_needed: &dyn Fn(&str) -> bool,
    ) -> Result<(Vec<PathBuf>, usize), CacheError> {
        entry::remove_leftovers(directory);
        let (mut kept, before) = (Vec::new(), self.removed.len());
        for found in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            let (path, name) = (found.path(), found.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') {
                continue;
            }
            if is_needed(&name) || self.is_recent(&path) || is_in_use(&path) {
                kept.push(path);
            } else {
                self.removed.extend(hide(&path, &name).map_err(|error| CacheError::new("remove", &path, error))?);
            }
        }
        Ok((kept, self.removed.len() - before))
    }

    fn is_recent(&self, path: &Path) -> bool {
        let Ok(used) = fs::metadata(path).and_then(|metadata| metadata.modified()) else { return false };
        !self.unused_for.is_zero() && SystemTime::now().duration_since(used).is_ok_and(|age| age < self.unused_for)
    }
}

/// Whether a machine has a file of the entry open.
fn is_in_use(path: &Path) -> bool {
    let files = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    files.filter_map(|file| File::open(file.path()).ok()).any(|file| !try_lock(&file.into()).unwrap_or(true))
}

/// Gives an entry a name that the next conversion removes, if this process does not. `None` if it stays, or is gone.
fn hide(path: &Path, name: &str) -> Result<Option<(PathBuf, OwnedFd)>, Errno> {
    let lock = match open_directory(path) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let hidden = path.with_file_name(format!(".{name}.removed.tmp"));
    if !try_lock(&lock)? || !is_at(&lock, path) {
        return Ok(None);
    }
    match rustix::fs::renameat_with(CWD, path, CWD, &hidden, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Some((hidden, lock))),
        // Gone, or a prune before this one still removes what had the name.
        Err(Errno::NOENT | Errno::EXIST) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the bytes that are free then: not those of files with another name, which kept machines have.
fn remove((path, _lock): &(PathBuf, OwnedFd)) -> u64 {
    let files = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let metadata = files.filter_map(|file| file.metadata().ok()).filter(|metadata| metadata.nlink() == 1);
    let bytes = metadata.map(|metadata| metadata.len()).sum();
    // What stays is removed by the next conversion.
    let _ = fs::remove_dir_all(path);
    bytes
}
