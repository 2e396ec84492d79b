// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The volumes of this user: `NAME.ext4` in one directory, each a sparse ext4 file system.
//!
//! Two locks, both flock(2). The directory's is held for moments, while a volume is made, taken or removed. A volume's own is held by
//! each machine that has it, exclusive if it may write: a file that is locked is not removed, and one that is removed is not locked.

use crate::config::name::VolumeName;
use crate::config::size::DiskSize;
use crate::host::atomic_write::AtomicFile;
use crate::host::ext4::{self, FormatError};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::{Errno, retry_on_intr};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const EXTENSION: &str = "ext4";
/// The extension of a volume that is being made; the process that made it was killed.
const TEMPORARY: &str = "tmp";
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("cannot {verb} {path}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make volume {name}")]
    Format { name: VolumeName, source: FormatError },
    #[error("volume {0} is in use by another machine; machines share a volume only if all of them have it `:ro`")]
    InUse(VolumeName),
    #[error("volume {volume} belongs to machine {machine}, which is kept: `coracle rm {machine}` removes it")]
    OfMachine { volume: VolumeName, machine: String },
    #[error("no volume {0}")]
    Missing(VolumeName),
}

/// The directory of volumes; it need not exist.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
}

#[derive(Debug)]
pub(crate) struct StoredVolume {
    pub(crate) name: VolumeName,
    pub(crate) path: PathBuf,
    /// Of the file system.
    pub(crate) size: u64,
    /// Space on the host.
    pub(crate) used: u64,
    /// `None` if the host's file system does not know it.
    pub(crate) created: Option<SystemTime>,
}

/// Ends with the value.
struct DirectoryLock(#[expect(dead_code, reason = "its end unlocks")] File);

impl Volumes {
    #[must_use]
    pub(crate) fn open(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(crate) fn path(&self, name: &VolumeName) -> PathBuf {
        self.directory.join(format!("{name}.{EXTENSION}"))
    }

    /// Makes the volume `name` unless it is there. Returns whether it was made.
    ///
    /// # Errors
    /// The directory cannot be written, or `mke2fs` is missing or fails.
    pub(crate) fn create(&self, name: &VolumeName, size: DiskSize) -> Result<bool, VolumeError> {
        let lock = self.lock()?;
        self.create_locked(name, size, &lock)
    }

    fn create_locked(&self, name: &VolumeName, size: DiskSize, _lock: &DirectoryLock) -> Result<bool, VolumeError> {
        let path = self.path(name);
        if path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        self.remove_left();
        let failed = |source| VolumeError::File { verb: "make", path: path.clone(), source };
        let bytes = size.bytes();
        let file = AtomicFile::create(&path).map_err(failed)?;
        file.file().set_len(bytes).map_err(failed)?;
        ext4::format_with_journal(file.file(), bytes)
            .map_err(|source| VolumeError::Format { name: name.clone(), source })?;
        file.publish().map_err(failed)?;
        Ok(true)
    }

    /// Removes what killed processes left, while no other makes a volume.
    fn remove_left(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == TEMPORARY) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Opens a volume for a machine, after making it if it is missing. The lock on it ends with the file.
    ///
    /// # Errors
    /// Another machine has it and one of them may write, or it cannot be made or opened.
    pub(crate) fn take(&self, name: &VolumeName, read_only: bool) -> Result<File, VolumeError> {
        let directory = self.lock()?;
        self.create_locked(name, DiskSize::default(), &directory)?;
        self.lock_volume(name, read_only)
    }

    /// Like [`take`](Self::take), but makes nothing: `None` if the volume is missing.
    pub(crate) fn take_existing(&self, name: &VolumeName, read_only: bool) -> Result<Option<File>, VolumeError> {
        if self.path(name).symlink_metadata().is_err() {
            return Ok(None);
        }
        let _directory = self.lock()?;
        self.lock_volume(name, read_only).map(Some)
    }

    /// While the directory is locked.
    fn lock_volume(&self, name: &VolumeName, read_only: bool) -> Result<File, VolumeError> {
        let path = self.path(name);
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = open(&path, flags, Mode::empty());
        let file = opened.map(File::from).map_err(|error| match error {
            Errno::NOENT => VolumeError::Missing(name.clone()),
            error => VolumeError::File { verb: "open", path: path.clone(), source: error.into() },
        })?;
        let kind =
            if read_only { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
        match flock(&file, kind) {
            Ok(()) => Ok(file),
            Err(Errno::WOULDBLOCK) => Err(VolumeError::InUse(name.clone())),
            Err(error) => Err(VolumeError::File { verb: "lock", path, source: error.into() }),
        }
    }

    /// Removes a volume that no machine has. `of_machines` are the volumes of kept machines, with the machine's name: one that
    /// does not run holds no lock. Returns the space that the volume took.
    ///
    /// # Errors
    /// It is missing, in use or a kept machine's, or the directory cannot be written.
    pub(crate) fn remove(
        &self,
        name: &VolumeName,
        of_machines: &BTreeMap<VolumeName, String>,
    ) -> Result<u64, VolumeError> {
        let path = self.path(name);
        if path.symlink_metadata().is_err() {
            return Err(VolumeError::Missing(name.clone()));
        }
        let _directory = self.lock()?;
        let file = self.lock_volume(name, false)?;
        if let Some(machine) = of_machines.get(name) {
            return Err(VolumeError::OfMachine { volume: name.clone(), machine: machine.clone() });
        }
        let failed = |source| VolumeError::File { verb: "remove", path: path.clone(), source };
        let used = file.metadata().map_err(failed)?.blocks() * 512;
        fs::remove_file(&path).map_err(failed)?;
        Ok(used)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<StoredVolume>, VolumeError> {
        let failed = |source| VolumeError::File { verb: "read", path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            volumes.extend(name_of(&path).and_then(|name| describe(name, path)));
        }
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(volumes)
    }

    /// # Errors
    /// There is no such volume.
    pub(crate) fn find(&self, name: &VolumeName) -> Result<StoredVolume, VolumeError> {
        describe(name.clone(), self.path(name)).ok_or_else(|| VolumeError::Missing(name.clone()))
    }

    fn lock(&self) -> Result<DirectoryLock, VolumeError> {
        let failed = |verb, source| VolumeError::File { verb, path: self.directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(|error| failed("make", error))?;
        let directory = File::open(&self.directory).map_err(|error| failed("open", error))?;
        retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))
            .map_err(|error| failed("lock", error.into()))?;
        Ok(DirectoryLock(directory))
    }
}

fn name_of(path: &Path) -> Option<VolumeName> {
    let is_volume = path.extension().is_some_and(|extension| extension == EXTENSION);
    path.file_stem().filter(|_| is_volume)?.to_str()?.parse().ok()
}

fn describe(name: VolumeName, path: PathBuf) -> Option<StoredVolume> {
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
    let (size, used) = (metadata.len(), metadata.blocks() * 512);
    Some(StoredVolume { name, path, size, used, created: metadata.created().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    fn size() -> DiskSize {
        "16m".parse().unwrap()
    }

    #[test]
    fn volume_is_made_once_and_is_sparse() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().join("coracle/volumes"));
        assert!(volumes.list().unwrap().is_empty());
        fs::create_dir_all(directory.path().join("coracle/volumes")).unwrap();
        fs::write(directory.path().join("coracle/volumes/a.ext4.1.tmp"), "left by a killed process").unwrap();
        assert!(volumes.create(&name("b"), size()).unwrap());
        assert!(!volumes.create(&name("b"), size()).unwrap());
        drop(volumes.take(&name("a"), true).unwrap());
        let listed = volumes.list().unwrap();
        assert_eq!(listed.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((listed[0].size, listed[1].size), (8 << 30, 16 << 20));
        assert!(listed.iter().all(|volume| volume.used < 8 << 20), "{listed:?}");
        assert_eq!(fs::read_dir(directory.path().join("coracle/volumes")).unwrap().count(), 2);
        assert_eq!(volumes.find(&name("b")).unwrap().size, 16 << 20);
        assert!(matches!(volumes.find(&name("c")), Err(VolumeError::Missing(_))));
    }

    #[test]
    fn only_readers_share_a_volume_and_none_is_removed_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().into());
        assert!(volumes.take_existing(&name("a"), true).unwrap().is_none());
        let writer = volumes.take(&name("a"), false).unwrap();
        for read_only in [true, false] {
            assert!(matches!(volumes.take(&name("a"), read_only), Err(VolumeError::InUse(_))));
        }
        let kept = BTreeMap::from([(name("a"), "web".to_owned())]);
        let none = BTreeMap::new();
        // A running machine is kept, too: what stands in the way of its volume is that it runs.
        assert!(matches!(volumes.remove(&name("a"), &kept), Err(VolumeError::InUse(_))));
        drop(writer);
        let error = volumes.remove(&name("a"), &kept).unwrap_err();
        assert!(matches!(&error, VolumeError::OfMachine { machine, .. } if machine == "web"), "{error}");
        let readers = [volumes.take(&name("a"), true).unwrap(), volumes.take(&name("a"), true).unwrap()];
        assert!(matches!(volumes.take(&name("a"), false), Err(VolumeError::InUse(_))));
        drop(readers);
        assert!(volumes.remove(&name("a"), &none).unwrap() > 0);
        assert!(matches!(volumes.remove(&name("a"), &none), Err(VolumeError::Missing(_))));
    }

    #[test]
    fn link_is_no_volume() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().into());
        std::os::unix::fs::symlink("/etc/passwd", volumes.path(&name("a"))).unwrap();
        assert!(matches!(volumes.take(&name("a"), true), Err(VolumeError::File { verb: "open", .. })));
        assert!(volumes.list().unwrap().is_empty());
    }
}
