// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory of a snapshot: completed by the client that asked for it, opened and checked before a machine is restored from it.
//! Nothing of the guest runs before all of it was checked.

use super::document::{DocumentError, MAX_STATE_BYTES, Part, SavedMachine, SnapshotDocument};
use super::unnamed::UnnamedSnapshot;
use super::{MEMORY_FILE, SCRATCH_FILE, STATE_FILE};
use crate::host::bounded_read;
use crate::host::sparse_file;
use crate::host::system_error::{Cannot as _, SystemError};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::path::Arg;
use std::fs::{File, Metadata};
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("{path}: {source}")]
    Document { path: PathBuf, source: DocumentError },
    #[error("{path} has {bytes} bytes, not {expected}")]
    Size { path: PathBuf, bytes: u64, expected: u64 },
    #[error("{0} was altered: its digest differs")]
    Digest(PathBuf),
}

/// Where a snapshot is.
#[derive(Clone, Debug)]
pub(crate) enum SnapshotPlace {
    Directory(PathBuf),
    Unnamed(Arc<UnnamedSnapshot>),
}

/// A snapshot whose files were checked.
#[derive(Debug)]
pub(crate) struct OpenSnapshot {
    pub(crate) document: SnapshotDocument,
    pub(crate) memory: File,
    pub(crate) scratch: Option<File>,
}

impl SnapshotPlace {
    /// The path in messages about it.
    pub(crate) fn shown(&self) -> &Path {
        match self {
            Self::Directory(directory) => directory,
            Self::Unnamed(_) => Path::new("the snapshot"),
        }
    }
}

/// A snapshot as a reader sees it, without its digests checked but that of the state.
#[derive(Debug)]
pub(crate) struct InspectedSnapshot {
    pub(crate) document: SnapshotDocument,
    /// Space of the files on the host.
    pub(crate) memory_space: u64,
    pub(crate) scratch_space: Option<u64>,
}

/// What a machine is restored from.
#[derive(Debug)]
pub(crate) struct Restore {
    pub(crate) state: SavedMachine,
    pub(crate) memory: File,
    /// The disks and the ends of the interfaces are others than those of the machine that was saved.
    pub(crate) has_other_devices: bool,
}

impl OpenSnapshot {
    /// Reads and checks the state in `directory`, without its other files.
    ///
    /// # Errors
    /// The state cannot be read, or is invalid.
    pub(crate) fn read(directory: &Path) -> Result<SnapshotDocument, OpenError> {
        read_state(&open_directory(directory)?, directory, SnapshotDocument::parse)
    }

    /// Reads and checks all files of a snapshot.
    ///
    /// # Errors
    /// A file cannot be read, is missing, or is not the one of the state.
    pub(crate) fn open(place: &SnapshotPlace) -> Result<Self, OpenError> {
        match place {
            SnapshotPlace::Directory(directory) => Self::open_directory(directory),
            SnapshotPlace::Unnamed(files) => files.open(),
        }
    }

    /// Reads the state in `directory`, which another version of coracle may have made, and examines its other files.
    ///
    /// # Errors
    /// The state cannot be read, or is invalid; another file is missing, or has another size.
    pub(crate) fn inspect(directory: &Path) -> Result<InspectedSnapshot, OpenError> {
        let opened = open_directory(directory)?;
        let document = read_state(&opened, directory, SnapshotDocument::parse_any)?;
        let space = |name: &str, part: &Part| {
            let (_, metadata) = open_sized(&opened, &directory.join(name), name, part)?;
            Ok::<_, OpenError>(metadata.blocks() * 512)
        };
        let memory_space = space(MEMORY_FILE, &document.memory)?;
        let scratch_space = document.scratch.as_ref().map(|scratch| space(SCRATCH_FILE, scratch)).transpose()?;
        Ok(InspectedSnapshot { document, memory_space, scratch_space })
    }

    fn open_directory(directory: &Path) -> Result<Self, OpenError> {
        let opened = open_directory(directory)?;
        let document = read_state(&opened, directory, SnapshotDocument::parse)?;
        let part = |name, part: &Part| open_part(&opened, directory, name, part);
        let memory = part(MEMORY_FILE, &document.memory)?;
        let scratch = document.scratch.as_ref().map(|scratch| part(SCRATCH_FILE, scratch)).transpose()?;
        Ok(Self { document, memory, scratch })
    }
}

/// Completes the files of a snapshot in `directory`, whose state has no digests of the others yet. Returns whether the machine has a
/// scratch disk.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn finish(directory: &Path, mut state: File, memory: &File, scratch: &File) -> Result<bool, OpenError> {
    let path = |name: &str| directory.join(name);
    let cannot_write = || format!("write {}", path(STATE_FILE).display());
    state.rewind().cannot(cannot_write())?;
    let bytes = bounded_read::read(&state, MAX_STATE_BYTES).cannot(cannot_write())?.unwrap_or_default();
    let parsed = SnapshotDocument::parse(&bytes);
    let mut document = parsed.map_err(|source| OpenError::Document { path: path(STATE_FILE), source })?;
    let digest = |name: &str, file: &File, part: &mut Part| {
        part.sha256 = sparse_file::digest(file, part.bytes).cannot(format!("read {}", path(name).display()))?;
        file.sync_data().cannot(format!("write {}", path(name).display()))
    };
    digest(MEMORY_FILE, memory, &mut document.memory)?;
    if let Some(part) = &mut document.scratch {
        digest(SCRATCH_FILE, scratch, part)?;
    }
    let mut write = || {
        state.set_len(0)?;
        state.rewind()?;
        state.write_all(&document.to_bytes())?;
        state.sync_data()
    };
    write().cannot(cannot_write())?;
    Ok(document.scratch.is_some())
}

fn open_directory(directory: &Path) -> Result<OwnedFd, SystemError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(directory, flags, Mode::empty()).cannot(format!("open {}", directory.display()))
}

/// Opens the file `name`, whose path for messages is `path`.
pub(in crate::machine) fn open_file(directory: impl AsFd, path: &Path, name: impl Arg) -> Result<File, SystemError> {
    // A FIFO must not make the caller wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(File::from).cannot(format!("open {}", path.display()))
}

fn read_state(
    opened: &OwnedFd,
    directory: &Path,
    parse: impl FnOnce(&[u8]) -> Result<SnapshotDocument, DocumentError>,
) -> Result<SnapshotDocument, OpenError> {
    let path = directory.join(STATE_FILE);
    let file = open_file(opened, &path, STATE_FILE)?;
    let bytes = bounded_read::read(&file, MAX_STATE_BYTES).cannot(format!("read {}", path.display()))?;
    let parsed = bytes.map_or(Err(DocumentError::NoState("snapshot")), |bytes| parse(&bytes));
    parsed.map_err(|source| OpenError::Document { path, source })
}

/// Opens a file of the size that is in the state.
fn open_sized(opened: &OwnedFd, path: &Path, name: &str, part: &Part) -> Result<(File, Metadata), OpenError> {
    let file = open_file(opened, path, name)?;
    let metadata = file.metadata().cannot(format!("read {}", path.display()))?;
    match metadata.len() {
        bytes if bytes == part.bytes => Ok((file, metadata)),
        bytes => Err(OpenError::Size { path: path.to_owned(), bytes, expected: part.bytes }),
    }
}

fn open_part(opened: &OwnedFd, directory: &Path, name: &str, part: &Part) -> Result<File, OpenError> {
    let path = directory.join(name);
    let (file, _) = open_sized(opened, &path, name, part)?;
    let digest = sparse_file::digest(&file, part.bytes).cannot(format!("read {}", path.display()))?;
    if digest == part.sha256 { Ok(file) } else { Err(OpenError::Digest(path)) }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
