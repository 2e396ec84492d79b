// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file `state` of a template, and the checks before a machine starts from it. The memory is not read: that it is the file that was
//! written is known by its size and by the time of its last change.

use super::super::snapshot::{DocumentError, MAX_STATE_BYTES, Restore, SavedMachine, Sealed, open_file};
use super::{MEMORY_FILE, STATE_FILE, Shape};
use crate::config::rfc3339;
use crate::host::bounded_read;
use crate::host::system_error::{Cannot as _, SystemError};
use guest_protocol::protocol;
use rustix::fs::CWD;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The version is increased with every change of the document.
const TEMPLATE: Sealed = Sealed { what: "template", version: 1 };
/// Write permission of the group or of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("{path}: {source}")]
    Document { path: PathBuf, source: DocumentError },
    #[error("{0} is of another machine")]
    Shape(PathBuf),
    #[error("{0} was altered")]
    Altered(PathBuf),
    #[error("{0} is not a file of this user's alone")]
    Owner(PathBuf),
}

/// A template besides its memory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateDocument {
    pub(crate) shape: Shape,
    /// Version of the protocol with PID 1, which is in the memory.
    protocol: u32,
    #[serde(with = "rfc3339")]
    pub(crate) created: SystemTime,
    memory: MemoryFile,
    state: SavedMachine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryFile {
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl MemoryFile {
    fn of(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), modified_s: metadata.mtime(), modified_ns: metadata.mtime_nsec() }
    }
}

impl TemplateDocument {
    /// For the complete file `memory`.
    ///
    /// # Errors
    /// The file cannot be examined.
    pub(crate) fn new(shape: Shape, memory: &File, state: SavedMachine) -> io::Result<Self> {
        let memory = MemoryFile::of(&memory.metadata()?);
        Ok(Self { shape, protocol: protocol::VERSION, created: SystemTime::now(), memory, state })
    }

    /// Writes the document to the empty file `file`.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn write(&self, mut file: &File) -> io::Result<()> {
        file.write_all(&TEMPLATE.seal(self))?;
        file.sync_data()
    }

    /// Reads the document of the template in `directory`.
    ///
    /// # Errors
    /// It cannot be read, or is invalid.
    pub(crate) fn read(directory: &Path) -> Result<Self, OpenError> {
        let (path, file) = open_own_file(directory, STATE_FILE)?;
        let bytes = bounded_read::read(&file, MAX_STATE_BYTES).cannot(format!("read {}", path.display()))?;
        let parsed = TEMPLATE.unseal::<Self>(&bytes.unwrap_or_default());
        let document = parsed.map_err(|source| OpenError::Document { path: path.clone(), source })?;
        if document.protocol != protocol::VERSION {
            return Err(OpenError::Document { path, source: DocumentError::Protocol(document.protocol) });
        }
        Ok(document)
    }
}

/// Opens the template of `shape` in `directory`.
///
/// # Errors
/// It cannot be read, is not whole, or is of another shape.
pub(crate) fn open(directory: &Path, shape: &Shape) -> Result<Restore, OpenError> {
    let document = TemplateDocument::read(directory)?;
    if document.shape != *shape {
        return Err(OpenError::Shape(directory.join(STATE_FILE)));
    }
    let (path, memory) = open_own_file(directory, MEMORY_FILE)?;
    let metadata = memory.metadata().cannot(format!("read {}", path.display()))?;
    if MemoryFile::of(&metadata) != document.memory || metadata.len() != shape.memory_bytes {
        return Err(OpenError::Altered(path));
    }
    Ok(Restore { state: document.state, memory, has_other_devices: true })
}

/// The file is this user's or root's, and no other user can write it: it becomes the machine.
fn open_own_file(directory: &Path, name: &str) -> Result<(PathBuf, File), OpenError> {
    let path = directory.join(name);
    let file = open_file(CWD, &path, &path)?;
    let metadata = file.metadata().cannot(format!("read {}", path.display()))?;
    let own = rustix::process::geteuid().as_raw();
    let is_own = [0, own].contains(&metadata.uid()) && metadata.mode() & WRITABLE_BY_OTHERS == 0;
    if is_own && metadata.is_file() { Ok((path, file)) } else { Err(OpenError::Owner(path)) }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
