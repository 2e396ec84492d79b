// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The snapshots of this user that have a name: directories in the user's data directory.

use crate::config::name::MachineName;
use crate::host::directories::{Directories, DirectoryError};
use crate::host::partial_directory;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotStoreError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot {verb} {path}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("no snapshot has the name {0}")]
    Missing(MachineName),
    #[error("the snapshot {0} exists: `coracle snapshot rm {0}` removes it")]
    Taken(MachineName),
}

/// The directory of the snapshots; it need not exist.
#[derive(Debug)]
pub(crate) struct Snapshots {
    directory: PathBuf,
}

#[derive(Debug)]
pub(crate) struct StoredSnapshot {
    pub(crate) name: MachineName,
    pub(crate) path: PathBuf,
    /// Space on the host.
    pub(crate) bytes: u64,
}

impl Snapshots {
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn of(directories: &Directories) -> Result<Self, DirectoryError> {
        Ok(Self { directory: directories.snapshots()? })
    }

    /// The directory of a new snapshot. What killed processes left is removed.
    ///
    /// # Errors
    /// There is one with this name, or the data directory cannot be written.
    pub(crate) fn new_path(&self, name: &MachineName) -> Result<PathBuf, SnapshotStoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|source| SnapshotStoreError::File { verb: "make", path: self.directory.clone(), source })?;
        partial_directory::remove_left(&self.directory, |_| true);
        match self.path(name) {
            Some(_) => Err(SnapshotStoreError::Taken(name.clone())),
            None => Ok(self.directory.join(name.as_str())),
        }
    }

    /// The directory of the snapshot, if there is one with this name.
    #[must_use]
    pub(crate) fn path(&self, name: &MachineName) -> Option<PathBuf> {
        let path = self.directory.join(name.as_str());
        fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()).then_some(path)
    }

    /// All snapshots, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<StoredSnapshot>, SnapshotStoreError> {
        let failed = |source| SnapshotStoreError::File { verb: "read", path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut snapshots = Vec::new();
        for entry in entries {
            // One that is being made has no valid name.
            let name = entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(name) = name
                && let Some(path) = self.path(&name)
            {
                snapshots.push(StoredSnapshot { name, bytes: size(&path), path });
            }
        }
        snapshots.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Ok(snapshots)
    }

    /// Removes a snapshot; machines that were started from it keep what they have mapped.
    ///
    /// # Errors
    /// It is missing, or the directory cannot be written.
    pub(crate) fn remove(&self, name: &MachineName) -> Result<(), SnapshotStoreError> {
        let path = self.path(name).ok_or_else(|| SnapshotStoreError::Missing(name.clone()))?;
        fs::remove_dir_all(&path).map_err(|source| SnapshotStoreError::File { verb: "remove", path, source })
    }
}

/// Space of the files in `directory`.
fn size(directory: &Path) -> u64 {
    let blocks = |entry: io::Result<fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.blocks() * 512);
    fs::read_dir(directory).into_iter().flatten().filter_map(blocks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::partial_directory::PartialDirectory;
    use std::io::Write as _;

    #[test]
    fn snapshot_has_its_name_once_and_until_it_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let snapshots = Snapshots { directory: base.path().join("coracle/snapshots") };
        let name = |text: &str| text.parse::<MachineName>().unwrap();
        assert!(snapshots.list().unwrap().is_empty());
        for text in ["web", "db"] {
            let partial = PartialDirectory::create(&snapshots.new_path(&name(text)).unwrap()).unwrap();
            partial.file("memory").unwrap().write_all(&[1; 4096]).unwrap();
            assert!(snapshots.path(&name(text)).is_none());
            partial.publish().unwrap();
        }
        fs::create_dir(snapshots.directory.join(".db.0123456789ab.partial")).unwrap();
        let listed = snapshots.list().unwrap();
        assert_eq!(listed.iter().map(|snapshot| snapshot.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
        assert!(listed[0].bytes >= 4096);
        assert!(matches!(snapshots.new_path(&name("web")), Err(SnapshotStoreError::Taken(_))));
        snapshots.remove(&name("web")).unwrap();
        assert!(matches!(snapshots.remove(&name("web")), Err(SnapshotStoreError::Missing(_))));
        assert_eq!(fs::read_dir(&snapshots.directory).unwrap().count(), 1, "what a killed process left is removed");
    }
}
