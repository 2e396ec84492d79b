// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot in files without a name, which one process has a machine write and the processes that it starts inherit. Nothing else
//! can write them, so they have no digests, and nothing of them is left when the last machine has ended.

use super::document::{DocumentError, MAX_STATE_BYTES, Part, SnapshotDocument};
use super::open::{OpenError, OpenSnapshot};
use super::{MEMORY_FILE, SCRATCH_FILE, STATE_FILE};
use crate::host::descriptor;
use crate::host::system_error::{Cannot as _, SystemError};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// The files, open for reading only.
#[derive(Debug)]
pub(crate) struct UnnamedSnapshot {
    state: File,
    memory: File,
    scratch: Option<File>,
}

#[derive(Debug, thiserror::Error)]
#[error("descriptors {0}: not those of a snapshot")]
pub(crate) struct DescriptorsError(String);

impl UnnamedSnapshot {
    /// Of the files that a machine has written. They are open in the processes that this one executes.
    ///
    /// # Errors
    /// A file cannot be opened again, or the state is invalid.
    pub(crate) fn written(state: &File, memory: &File, scratch: &File) -> Result<(Self, SnapshotDocument), OpenError> {
        let document = read_state(state)?;
        let reopen = |file: &File, name: &str| {
            let reopened = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
                .and_then(|file| fcntl_setfd(&file, FdFlags::empty()).map(|()| file).map_err(Into::into));
            reopened.cannot(format!("open the {name} of the snapshot"))
        };
        let has_scratch = document.scratch.is_some();
        let scratch = has_scratch.then(|| reopen(scratch, SCRATCH_FILE)).transpose()?;
        let (state, memory) = (reopen(state, STATE_FILE)?, reopen(memory, MEMORY_FILE)?);
        Ok((Self { state, memory, scratch }, document))
    }

    /// The numbers of the descriptors, for the command line of a process that inherits them.
    #[must_use]
    pub(crate) fn numbers(&self) -> String {
        let files = [Some(&self.state), Some(&self.memory), self.scratch.as_ref()];
        let numbers: Vec<_> = files.into_iter().flatten().map(|file| file.as_raw_fd().to_string()).collect();
        numbers.join(",")
    }

    /// Takes over the descriptors with the [`numbers`](Self::numbers), before this process opens anything. They are closed on exec from
    /// here on.
    ///
    /// # Errors
    /// One of them is not open.
    pub(crate) fn inherited(numbers: &str) -> Result<Self, DescriptorsError> {
        let invalid = || DescriptorsError(numbers.to_owned());
        let take = |number: &str| descriptor::take_inherited(number.parse().ok()?).ok().map(File::from);
        let files: Option<Vec<File>> = numbers.split(',').map(take).collect();
        let mut files = files.ok_or_else(invalid)?.into_iter();
        match (files.next(), files.next(), files.next(), files.next()) {
            (Some(state), Some(memory), scratch, None) => Ok(Self { state, memory, scratch }),
            _ => Err(invalid()),
        }
    }

    /// Reads the state and checks the sizes of the files.
    ///
    /// # Errors
    /// A file cannot be read, or is not the one of the state.
    pub(super) fn open(&self) -> Result<OpenSnapshot, OpenError> {
        let document = read_state(&self.state)?;
        let memory = same_size(&self.memory, MEMORY_FILE, &document.memory)?;
        let scratch = match (&self.scratch, &document.scratch) {
            (Some(file), Some(part)) => Some(same_size(file, SCRATCH_FILE, part)?),
            _ => None,
        };
        Ok(OpenSnapshot { document, memory, scratch })
    }
}

/// The position of the descriptor, which processes share, stays as it is.
fn read_state(file: &File) -> Result<SnapshotDocument, OpenError> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let length = file.metadata()?.len();
        if length > MAX_STATE_BYTES {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    };
    let bytes = read().cannot(format!("read the {STATE_FILE} of the snapshot"))?;
    let parsed = bytes.map_or(Err(DocumentError::NoState("snapshot")), |bytes| SnapshotDocument::parse(&bytes));
    parsed.map_err(|source| OpenError::Document { path: PathBuf::from(STATE_FILE), source })
}

fn same_size(file: &File, name: &str, part: &Part) -> Result<File, OpenError> {
    let failed = || format!("read the {name} of the snapshot");
    let bytes = file.metadata().cannot(failed())?.len();
    if bytes != part.bytes {
        return Err(OpenError::Size { path: name.into(), bytes, expected: part.bytes });
    }
    file.try_clone().cannot(failed()).map_err(SystemError::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::snapshot::testing::document;
    use std::io::Write as _;

    const SIZE: u64 = 1 << 20;

    /// And the memory file, open for writing.
    fn written(scratch: Option<Part>) -> (UnnamedSnapshot, File) {
        let file = || tempfile::tempfile().unwrap();
        let (mut state, memory, scratch_file) = (file(), file(), file());
        memory.set_len(SIZE).unwrap();
        scratch_file.set_len(SIZE).unwrap();
        let document = SnapshotDocument { scratch, ..document() };
        state.write_all(&document.to_bytes()).unwrap();
        (UnnamedSnapshot::written(&state, &memory, &scratch_file).unwrap().0, memory)
    }

    #[test]
    fn inherited_snapshot_opens_and_cannot_be_written() {
        let (snapshot, _memory) = written(Some(Part { bytes: SIZE, sha256: String::new() }));
        let numbers = snapshot.numbers();
        // As in a process that inherited them.
        std::mem::forget(snapshot);
        let inherited = UnnamedSnapshot::inherited(&numbers).unwrap();
        let opened = inherited.open().unwrap();
        assert!(opened.scratch.is_some());
        assert!(opened.memory.write_at(b"x", 0).is_err());
        assert_eq!(written(None).0.numbers().split(',').count(), 2);
    }

    #[test]
    fn files_of_other_sizes_and_invalid_numbers_are_rejected() {
        let (snapshot, memory) = written(None);
        memory.set_len(SIZE - 1).unwrap();
        assert!(matches!(snapshot.open(), Err(OpenError::Size { .. })));
        for numbers in ["", "x", "100000,100001", "-1,-2"] {
            assert!(UnnamedSnapshot::inherited(numbers).is_err(), "{numbers}");
        }
    }
}
