// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file `state` of a template, and the checks before a machine starts from it. The other files are not read: that they are those
//! that were written is known by their sizes and by the times of their last changes.

use super::super::snapshot::{DocumentError, MAX_STATE_BYTES, Restore, SavedMachine, Sealed, open_file};
use super::{MEMORY_FILE, SCRATCH_FILE, STATE_FILE, Shape};
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
const TEMPLATE: Sealed = Sealed { what: "template", version: 2 };
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
    /// What the image of the shape was called by the run for which the template was made.
    pub(crate) image_name: Option<String>,
    memory: WrittenFile,
    /// The scratch disk, if it is mounted.
    scratch: Option<WrittenFile>,
    state: SavedMachine,
}

/// The files of a template beside its document, complete or still empty.
#[derive(Debug)]
pub(crate) struct TemplateFiles {
    pub(crate) memory: File,
    pub(crate) scratch: Option<File>,
}

/// A template from which a machine starts.
#[derive(Debug)]
pub(crate) struct OpenTemplate {
    pub(crate) restore: Restore,
    /// What the machine's scratch disk has; it gets a copy.
    pub(crate) scratch: Option<File>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl WrittenFile {
    fn of(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), modified_s: metadata.mtime(), modified_ns: metadata.mtime_nsec() }
    }

    /// Opens it in `directory`, if it has this size.
    fn open(self, directory: &Path, name: &str, bytes: u64) -> Result<File, OpenError> {
        let (path, file) = open_own_file(directory, name)?;
        let metadata = file.metadata().cannot(format!("read {}", path.display()))?;
        let is_whole = Self::of(&metadata) == self && self.bytes == bytes;
        if is_whole { Ok(file) } else { Err(OpenError::Altered(path)) }
    }
}

impl TemplateDocument {
    /// For complete `files`.
    ///
    /// # Errors
    /// A file cannot be examined.
    pub(crate) fn new(
        shape: Shape,
        image_name: Option<String>,
        files: &TemplateFiles,
        state: SavedMachine,
    ) -> io::Result<Self> {
        let written = |file: &File| Ok::<_, io::Error>(WrittenFile::of(&file.metadata()?));
        Ok(Self {
            shape,
            protocol: protocol::VERSION,
            created: SystemTime::now(),
            image_name,
            memory: written(&files.memory)?,
            scratch: files.scratch.as_ref().map(written).transpose()?,
            state,
        })
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
pub(crate) fn open(directory: &Path, shape: &Shape) -> Result<OpenTemplate, OpenError> {
    let document = TemplateDocument::read(directory)?;
    if document.shape != *shape {
        return Err(OpenError::Shape(directory.join(STATE_FILE)));
    }
    let memory = document.memory.open(directory, MEMORY_FILE, shape.memory_bytes)?;
    let scratch_bytes = shape.image.as_ref().and_then(|image| image.scratch_bytes);
    let scratch = match (document.scratch, scratch_bytes) {
        (Some(scratch), Some(bytes)) => Some(scratch.open(directory, SCRATCH_FILE, bytes)?),
        (None, None) => None,
        _ => return Err(OpenError::Altered(directory.join(SCRATCH_FILE))),
    };
    Ok(OpenTemplate { restore: Restore { state: document.state, memory, has_other_devices: true }, scratch })
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
