// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot: a directory with the state of a machine at one moment, from which copies of it are restored. `vmm/docs/snapshots.md`
//! has its format. [`document`] is the state as a file, [`save`] takes it from a machine, [`open`] checks it. [`unnamed`] is one without a
//! directory, for the copies of `fork`.

mod document;
mod open;
mod save;
#[cfg(test)]
pub(crate) mod testing;
mod unnamed;

pub(crate) use document::{DocumentError, MAX_STATE_BYTES, SavedMachine, SnapshotDocument, VERSION};
pub(super) use document::{Sealed, StreamCounts};
pub(super) use open::open_file;
pub(crate) use open::{InspectedSnapshot, OpenSnapshot, Restore, SnapshotPlace, finish};
pub(crate) use save::Source;
pub(super) use save::{Savable, SaveError, SnapshotFiles, write_memory, write_scratch};
pub(crate) use unnamed::UnnamedSnapshot;

/// Files of the directory.
pub(crate) const STATE_FILE: &str = "state";
pub(crate) const MEMORY_FILE: &str = "memory";
pub(crate) const SCRATCH_FILE: &str = "scratch";

/// Descriptors of a request to take a snapshot, in this order: [`STATE_FILE`], [`MEMORY_FILE`], [`SCRATCH_FILE`].
pub(crate) const DESCRIPTORS: usize = 3;
