// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory that appears at its path once it is complete. Until then it is beside it as `.NAME.ID.partial` and locked (flock) by the
//! process that makes it: what a killed process left is told from what another one still writes, and the next one with the same path
//! removes it.

use super::random::random_id;
use super::system_error::{Cannot as _, SystemError};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions, remove_dir_all, symlink_metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const EXTENSION: &str = ".partial";
/// A new directory is removed again only if another process looks at it before it is locked.
const MAX_TRIES: usize = 8;

/// Removed when this is dropped, unless it is published.
#[derive(Debug)]
pub(crate) struct PartialDirectory {
    path: PathBuf,
    published: PathBuf,
    _lock: File,
}

impl PartialDirectory {
    /// Makes one for the path `published`, whose last component is a name, and removes what killed processes left there.
    ///
    /// # Errors
    /// The directory above is missing or cannot be written.
    pub(crate) fn create(published: &Path) -> Result<Self, SystemError> {
        let prefix = prefix(published);
        let parent = published.parent().filter(|parent| !parent.as_os_str().is_empty());
        remove_left(parent.unwrap_or(Path::new(".")), |name| name.starts_with(&prefix));
        let mut last = None;
        for _ in 0..MAX_TRIES {
            let id = random_id().map_err(io::Error::other).cannot("name a directory")?;
            let path = published.with_file_name(format!("{prefix}{id}{EXTENSION}"));
            let action = format!("create {}", path.display());
            DirBuilder::new().mode(0o700).create(&path).cannot(action.clone())?;
            match lock(&path) {
                Ok(lock) => return Ok(Self { path, published: published.to_owned(), _lock: lock }),
                Err(error) => last = Some(Err(error).cannot(action)),
            }
        }
        last.unwrap_or_else(|| unreachable!("there is a last try"))
    }

    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file in it, for this user only.
    ///
    /// # Errors
    /// The file system is full.
    pub(crate) fn file(&self, name: &str) -> Result<File, SystemError> {
        let path = self.path.join(name);
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        created.cannot(format!("create {}", path.display()))
    }

    /// Gives the directory its name.
    ///
    /// # Errors
    /// The name is taken.
    pub(crate) fn publish(self) -> Result<(), SystemError> {
        let renamed = renameat_with(CWD, &self.path, CWD, &self.published, RenameFlags::NOREPLACE);
        renamed.cannot(format!("rename {} to {}", self.path.display(), self.published.display()))
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        // It is gone after it was renamed.
        let _ = remove_dir_all(&self.path);
    }
}

fn prefix(published: &Path) -> String {
    format!(".{}.", published.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes the partial directories with such a name in `parent` that no process makes any more. One that cannot be removed stays.
pub(crate) fn remove_left(parent: &Path, is_meant: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_partial = name.to_str().is_some_and(|name| name.ends_with(EXTENSION) && is_meant(name));
        if is_partial
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(_lock) = lock(&entry.path())
        {
            let _ = remove_dir_all(entry.path());
        }
    }
}

/// Fails if another process has the lock, or `path` leads to another directory by now.
fn lock(path: &Path) -> io::Result<File> {
    let directory = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(path)?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    let (open, there) = (directory.metadata()?, symlink_metadata(path)?);
    if (open.dev(), open.ino()) == (there.dev(), there.ino()) { Ok(directory) } else { Err(Errno::NOENT.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn entries(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn directory_appears_whole_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("web");
        let partial = PartialDirectory::create(&path).unwrap();
        partial.file("memory").unwrap().write_all(b"x").unwrap();
        assert!(!path.exists());
        partial.publish().unwrap();
        assert_eq!(fs::read(path.join("memory")).unwrap(), b"x");
        drop(PartialDirectory::create(&base.path().join("other")).unwrap());
        assert!(PartialDirectory::create(&path).unwrap().publish().is_err());
        assert_eq!(entries(base.path()), ["web"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_one_writes_is_not() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("web");
        let written = PartialDirectory::create(&path).unwrap();
        for name in [".web.0123456789ab.partial", ".other.0123456789ab.partial", ".web.mine", "web.partial"] {
            fs::create_dir(base.path().join(name)).unwrap();
            fs::write(base.path().join(name).join("memory"), "x").unwrap();
        }
        let second = PartialDirectory::create(&path).unwrap();
        written.publish().unwrap();
        drop(second);
        assert_eq!(entries(base.path()), [".other.0123456789ab.partial", ".web.mine", "web", "web.partial"]);
    }
}
