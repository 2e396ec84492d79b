// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machines below a base directory (`--run-dir`), as other processes see them: which ones there are, whether their processes
//! are alive, which one a name means. Read-only. Used by the verbs.
//!
//! A machine is alive if the process in its status is (process ID *and* start time), or if its lock is held: the status may not be
//! written yet, and the process may be in a container with process IDs of its own.

use super::kept::KeptMachines;
use super::lifecycle::STATUS_FILE;
use super::run_dir;
use super::status::{SHORT_ID_DIGITS, State, Status};
use crate::host::directories::Directories;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A machine at the moment when it was read.
#[derive(Clone, Debug)]
pub(crate) struct MachineInfo {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// None just after the start, or if the disk was full.
    pub(crate) status: Option<Status>,
    pub(crate) is_alive: bool,
    /// It was made by `create` and has never run.
    pub(crate) is_created: bool,
}

/// State of a machine, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MachineState {
    /// According to its status.
    Reported(State),
    /// Its process was killed: how the workload ended is unknown.
    Dead,
    /// It has not run yet.
    Created,
}

/// A name that means no machine, or more than one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("no machine has the name {0}")]
    Unknown(String),
    #[error("{wanted} could be {}", .found.join(", "))]
    Ambiguous { wanted: String, found: Vec<String> },
    #[error("cannot read the run directory {path}")]
    Read { path: PathBuf, source: io::Error },
}

impl MachineInfo {
    /// Reads the run directory of `name` below `base`, or what is kept of the machine without one. None if neither exists, or it
    /// vanishes meanwhile.
    #[must_use]
    pub(crate) fn read(base: &Path, name: &str) -> Option<Self> {
        match Self::read_run_directory(base, name) {
            Some(machine) if machine.status.is_some() || machine.is_alive => Some(machine),
            // One with nothing but a lock is of a process that was killed before it started the machine.
            left => Self::read_kept(base, name).or(left),
        }
    }

    fn read_kept(base: &Path, name: &str) -> Option<Self> {
        let kept = KeptMachines::of(base, &Directories::from_environment()).ok()?;
        if !kept.contains(name) {
            return None;
        }
        let path = kept.path(name);
        let text = fs::read(path.join(STATUS_FILE)).ok();
        let status = text.and_then(|text| serde_json::from_slice::<Status>(&text).ok());
        let is_created = status.is_none();
        Some(Self { name: name.to_owned(), path, status, is_alive: false, is_created })
    }

    fn read_run_directory(base: &Path, name: &str) -> Option<Self> {
        let path = base.join(name);
        let text = fs::read(path.join(STATUS_FILE));
        let status = text.ok().and_then(|text| serde_json::from_slice::<Status>(&text).ok());
        let process_is_alive = status.as_ref().is_some_and(|status| status.process().is_alive());
        // The lock of a machine that has ended does not matter.
        let has_ended = status.as_ref().is_some_and(|status| status.state.is_end());
        let is_alive = process_is_alive || !has_ended && run_dir::is_locked(&path).ok()?;
        Some(Self { name: name.to_owned(), path, status, is_alive, is_created: false })
    }

    #[must_use]
    pub(crate) fn state(&self) -> MachineState {
        match self.status.as_ref().map(|status| status.state) {
            _ if self.is_created => MachineState::Created,
            Some(state) if self.is_alive || state.is_end() => MachineState::Reported(state),
            None if self.is_alive => MachineState::Reported(State::Starting),
            _ => MachineState::Dead,
        }
    }

    /// The beginning of the container ID, as a table shows it. Empty without a status.
    #[must_use]
    pub(crate) fn short_id(&self) -> &str {
        let id = self.status.as_ref().map_or("", |status| &status.container_id);
        id.get(..SHORT_ID_DIGITS).unwrap_or(id)
    }

    /// Whether the workload has ended or never ran.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        match self.state() {
            MachineState::Reported(state) => state.is_end(),
            MachineState::Dead | MachineState::Created => true,
        }
    }
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reported(state) => state.fmt(f),
            Self::Dead => f.write_str("dead"),
            Self::Created => f.write_str("created"),
        }
    }
}

/// All machines below `base`, by name. A directory that does not exist has none.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn list(base: &Path) -> Result<Vec<MachineInfo>, FindError> {
    Ok(names(base)?.iter().filter_map(|name| MachineInfo::read(base, name)).collect())
}

/// The machine that `wanted` means: its name, or the beginning of exactly one machine's name or container ID.
///
/// # Errors
/// None or several.
pub(crate) fn find(base: &Path, wanted: &str) -> Result<MachineInfo, FindError> {
    let names = names(base)?;
    let unknown = || FindError::Unknown(wanted.to_owned());
    if names.iter().any(|name| name == wanted) {
        return MachineInfo::read(base, wanted).ok_or_else(unknown);
    }
    if wanted.is_empty() {
        return Err(unknown());
    }
    let has_id = |name: &str| {
        let machine = MachineInfo::read(base, name);
        machine.and_then(|machine| machine.status).is_some_and(|status| status.container_id.starts_with(wanted))
    };
    let is_meant = |name: &String| name.starts_with(wanted) || has_id(name);
    let found: Vec<String> = names.into_iter().filter(is_meant).collect();
    match &*found {
        [] => Err(unknown()),
        [one] => MachineInfo::read(base, one).ok_or_else(unknown),
        _ => Err(FindError::Ambiguous { wanted: wanted.to_owned(), found }),
    }
}

fn names(base: &Path) -> Result<Vec<String>, FindError> {
    let failed = |source| FindError::Read { path: base.to_owned(), source };
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        other => Some(other.map_err(failed)?),
    };
    let kept = KeptMachines::of(base, &Directories::from_environment());
    let mut names = kept.map(|kept| kept.names()).unwrap_or_default();
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
#[path = "machines_tests.rs"]
mod tests;
