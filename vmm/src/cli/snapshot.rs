// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `snapshot`: opens the files of a snapshot, has the machine write them, and gives the directory its name once it is
//! complete.

use super::machines::{MachineArgument, machine_failure, print};
use crate::host::random::random_id;
use crate::host::system_error::{Cannot as _, SystemError};
use crate::machine::SnapshotReport;
use crate::machine::snapshot::{MEMORY_FILE, SCRATCH_FILE, STATE_FILE, finish};
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{DirBuilder, File, OpenOptions, remove_dir_all, remove_file};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Save the state of a running or paused machine to a directory
#[derive(Debug, Args)]
#[command(after_help = "\
The machine runs on. `coracle restore DIR` starts copies of it, as long as the
image is in the local store. The directory holds all that the machine knows,
secrets included.

Example:
  coracle snapshot web ./web.snapshot && coracle restore -d ./web.snapshot")]
pub(super) struct SnapshotArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// The directory to make
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error("{0} exists")]
    Exists(PathBuf),
    #[error("{0} has no name")]
    NoName(PathBuf),
}

/// Returns the exit status.
pub(super) fn snapshot(arguments: &SnapshotArguments) -> u8 {
    match take(arguments) {
        Ok(()) => {
            print(&format!("{}\n", arguments.directory.display()));
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

fn take(arguments: &SnapshotArguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    if directory.symlink_metadata().is_ok() {
        return Err(Failure::new(EndReason::ConfigError, SnapshotError::Exists(directory.clone())));
    }
    let (machine, mut client) = arguments.machine.connect_to_starting()?;
    let partial = Partial::create(directory)?;
    let file = |name| partial.file(name).fails_as(EndReason::HostError);
    let (state, memory, scratch) = (file(STATE_FILE)?, file(MEMORY_FILE)?, file(SCRATCH_FILE)?);
    let files = [state.as_fd(), memory.as_fd(), scratch.as_fd()];
    let report = client.request_with_files::<SnapshotReport>("/v1/snapshot", &files);
    let report = report.map_err(|error| machine_failure(&machine, error))?;
    log::info!("{}: the machine was paused for {} ms", machine.name, report.paused_us / 1000);
    let has_scratch = finish(&partial.path, state, &memory, &scratch).fails_as(EndReason::SnapshotError)?;
    if !has_scratch {
        let path = partial.path.join(SCRATCH_FILE);
        remove_file(&path).cannot(format!("remove {}", path.display())).fails_as(EndReason::HostError)?;
    }
    partial.complete(directory).fails_as(EndReason::HostError)
}

/// A directory beside the one that is asked for, removed unless it is completed.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(directory: &Path) -> Result<Self, Failure> {
        let no_name = || Failure::new(EndReason::ConfigError, SnapshotError::NoName(directory.to_owned()));
        let name = directory.file_name().ok_or_else(no_name)?.to_string_lossy();
        let id = random_id().fails_as(EndReason::HostError)?;
        let path = directory.with_file_name(format!(".{name}.{id}.partial"));
        let created = DirBuilder::new().mode(0o700).create(&path);
        created.cannot(format!("create {}", path.display())).fails_as(EndReason::HostError)?;
        Ok(Self { path })
    }

    fn file(&self, name: &str) -> Result<File, SystemError> {
        let path = self.path.join(name);
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        created.cannot(format!("create {}", path.display()))
    }

    fn complete(self, directory: &Path) -> Result<(), SystemError> {
        let renamed = renameat_with(CWD, &self.path, CWD, directory, RenameFlags::NOREPLACE);
        renamed.cannot(format!("rename {} to {}", self.path.display(), directory.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is gone after it was renamed.
        let _ = remove_dir_all(&self.path);
    }
}
