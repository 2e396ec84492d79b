// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The run directory as others see it: which entries there are, whose process lives, which one a name means. Used by the
//! verbs; changes nothing.
//!
//! An entry lives if the process that its status names does (number *and* start time), or if somebody holds its lock: the
//! status may not be there yet, and the process may be in a container whose numbers are not ours.

use super::lifecycle::STATUS_FILE;
use super::run_dir;
use super::status::{State, Status};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// One entry, as it was a moment ago.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Name of the run.
    pub(crate) id: String,
    /// Its folder.
    pub(crate) path: PathBuf,
    /// What it says of itself; none just after the start, or where the disk was full.
    pub(crate) status: Option<Status>,
    /// Whether its process lives.
    pub(crate) lives: bool,
}

/// How far a run is, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// As it says.
    State(State),
    /// Its process was killed: nobody knows how the workload ended.
    Dead,
}

/// No entry is meant, or more than one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    /// None has the name.
    #[error("no machine has the name {0}")]
    Unknown(String),
    /// The beginning of several names.
    #[error("{wanted} could be {}", .found.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// What it could be.
        found: Vec<String>,
    },
    /// The run directory cannot be read.
    #[error("cannot read the run directory {path}")]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Entry {
    /// Looks at the entry `id` below `base`. Nothing if there is none, or it went away meanwhile.
    #[must_use]
    pub(crate) fn look(base: &Path, id: &str) -> Option<Self> {
        let path = base.join(id);
        let text = fs::read(path.join(STATUS_FILE));
        let status = text.ok().and_then(|text| serde_json::from_slice::<Status>(&text).ok());
        let says = status.as_ref().is_some_and(|status| status.process().lives());
        // What has ended is not asked for its lock.
        let is_over = status.as_ref().is_some_and(|status| status.state.is_end());
        let lives = says || !is_over && run_dir::is_locked(&path).ok()?;
        Some(Self { id: id.to_owned(), path, status, lives })
    }

    /// How far it is.
    #[must_use]
    pub(crate) fn life(&self) -> Life {
        match self.status.as_ref().map(|status| status.state) {
            Some(state) if self.lives || state.is_end() => Life::State(state),
            None if self.lives => Life::State(State::Starting),
            _ => Life::Dead,
        }
    }

    /// Whether the workload has ended or never ran.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        match self.life() {
            Life::State(state) => state.is_end(),
            Life::Dead => true,
        }
    }
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State(state) => state.fmt(f),
            Self::Dead => f.write_str("dead"),
        }
    }
}

/// All entries below `base`, by name; a folder that is not there has none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn list(base: &Path) -> Result<Vec<Entry>, EntryError> {
    Ok(names(base)?.iter().filter_map(|name| Entry::look(base, name)).collect())
}

/// The entry that `wanted` names, whole or, if that is not ambiguous, by its beginning.
///
/// # Errors
/// None or several.
pub(crate) fn find(base: &Path, wanted: &str) -> Result<Entry, EntryError> {
    let names = names(base)?;
    let unknown = || EntryError::Unknown(wanted.to_owned());
    if names.iter().any(|name| name == wanted) {
        return Entry::look(base, wanted).ok_or_else(unknown);
    }
    let found: Vec<String> = names.into_iter().filter(|name| !wanted.is_empty() && name.starts_with(wanted)).collect();
    match &*found {
        [] => Err(unknown()),
        [one] => Entry::look(base, one).ok_or_else(unknown),
        _ => Err(EntryError::Ambiguous { wanted: wanted.to_owned(), found }),
    }
}

fn names(base: &Path) -> Result<Vec<String>, EntryError> {
    let failed = |source| EntryError::Read { path: base.to_owned(), source };
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
