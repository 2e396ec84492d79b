// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `snapshot`: opens the files of a snapshot, has the machine write them, and gives the directory its name once it is
//! complete. And its group of verbs for snapshots.

use super::list::ListArguments;
use super::machines::{self, RunDirArgument, machine_failure, print_outcome};
use super::snapshot_inspect::{self, InspectArguments};
use super::snapshot_store::{self, RmArguments};
use crate::config::name::MachineName;
use crate::config::text_form::Given;
use crate::host::partial_directory::PartialDirectory;
use crate::host::system_error::Cannot as _;
use crate::host::watch::{DirectoryWatch, WakeReason};
use crate::machine::SnapshotReport;
use crate::machine::snapshot::{MEMORY_FILE, SCRATCH_FILE, STATE_FILE, finish};
use crate::run::failure::{FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::machines::{MachineInfo, MachineState};
use clap::{Args, Subcommand};
use std::fs::remove_file;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Save the state of a running or paused machine
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
The machine runs on. Without DIR the snapshot is in the store, with a name.
`coracle run --from SNAPSHOT` and `coracle restore SNAPSHOT` start copies of it,
which need the root disk in the cache, or the image. A snapshot holds all that
the machine knows, secrets included.

Examples:
  coracle snapshot web ./web.snapshot && coracle restore -d ./web.snapshot
  coracle snapshot --when-ready --name warm web && coracle run --from warm"
)]
pub(super) struct SnapshotArguments {
    #[command(subcommand)]
    verb: Option<SnapshotVerb>,
    /// Name or container ID of the machine, or an unambiguous beginning
    #[arg(value_name = "MACHINE", required = true)]
    machine: Option<String>,
    #[command(flatten)]
    run_dir: RunDirArgument,
    /// Wait until the machine is ready, as `run -d` does
    #[arg(long)]
    when_ready: bool,
    /// Name of the snapshot in the store [default: the name of the machine]
    #[arg(long, value_name = "NAME", conflicts_with = "directory")]
    name: Option<Given<MachineName>>,
    /// The directory to make, in place of a snapshot in the store
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// List the snapshots in the store
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    Inspect(InspectArguments),
    #[command(visible_alias = "remove")]
    Rm(RmArguments),
}

/// Where a snapshot is made.
struct Target {
    directory: PathBuf,
    /// As it is printed.
    shown: String,
}

#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error("{0} exists")]
    Exists(PathBuf),
    #[error("{0} has no name")]
    NoName(PathBuf),
    #[error("{0}: not ready: it is {1}")]
    NotReady(String, MachineState),
    #[error("standard output was closed before the machine was ready")]
    Closed,
    #[error("{0} was removed before it was ready")]
    Removed(String),
}

/// Returns the exit status.
pub(super) fn snapshot(arguments: &SnapshotArguments) -> u8 {
    match &arguments.verb {
        Some(SnapshotVerb::Ls(arguments)) => snapshot_store::ls(arguments),
        Some(SnapshotVerb::Inspect(arguments)) => snapshot_inspect::inspect(arguments),
        Some(SnapshotVerb::Rm(arguments)) => snapshot_store::rm(arguments),
        None => print_outcome(take(arguments)),
    }
}

/// Returns what is printed.
fn take(arguments: &SnapshotArguments) -> Result<String, Failure> {
    let given = arguments.directory.as_ref().map(|directory| Target::directory(directory)).transpose()?;
    let machine = arguments.machine.as_deref().unwrap_or_default();
    let (machine, mut client) = arguments.run_dir.connect_to_starting(machine)?;
    let Target { directory, shown } = match given {
        Some(target) => target,
        None => Target::stored(arguments.name.as_ref().and_then(Given::get), &machine.name)?,
    };
    if arguments.when_ready {
        wait_until_ready(&arguments.run_dir.absolute_path()?, &machine.name)?;
        // The machine closes a connection on which nothing is sent.
        client = machines::connect(&machine)?;
    }
    let partial = PartialDirectory::create(&directory).fails_as(EndReason::HostError)?;
    let file = |name| partial.file(name).fails_as(EndReason::HostError);
    let (state, memory, scratch) = (file(STATE_FILE)?, file(MEMORY_FILE)?, file(SCRATCH_FILE)?);
    let files = [state.as_fd(), memory.as_fd(), scratch.as_fd()];
    let report = client.request_with_files::<SnapshotReport>("/v1/snapshot", &(), &files);
    let report = report.map_err(|error| machine_failure(&machine, error))?;
    log::info!("{}: the machine was paused for {} ms", machine.name, report.paused_us / 1000);
    let has_scratch = finish(partial.path(), state, &memory, &scratch).fails_as(EndReason::SnapshotError)?;
    if !has_scratch {
        let path = partial.path().join(SCRATCH_FILE);
        remove_file(&path).cannot(format!("remove {}", path.display())).fails_as(EndReason::HostError)?;
    }
    partial.publish().fails_as(EndReason::HostError)?;
    Ok(shown)
}

impl Target {
    fn directory(directory: &Path) -> Result<Self, Failure> {
        if directory.symlink_metadata().is_ok() {
            return Err(Failure::new(EndReason::ConfigError, SnapshotError::Exists(directory.to_owned())));
        }
        if directory.file_name().is_none() {
            return Err(Failure::new(EndReason::ConfigError, SnapshotError::NoName(directory.to_owned())));
        }
        Ok(Self { directory: directory.to_owned(), shown: directory.display().to_string() })
    }

    /// In the store, with the name of the machine unless another is given.
    fn stored(name: Option<&MachineName>, machine: &str) -> Result<Self, Failure> {
        let name = name.cloned().map_or_else(|| machine.parse(), Ok).fails_as(EndReason::ConfigError)?;
        let directory = snapshot_store::open()?.new_path(&name).map_err(snapshot_store::fails)?;
        Ok(Self { directory, shown: name.to_string() })
    }
}

/// Waits until the status of the machine `name` below `base` says that it is ready.
fn wait_until_ready(base: &Path, name: &str) -> Result<(), Failure> {
    let removed = || Failure::new(EndReason::ConfigError, SnapshotError::Removed(name.to_owned()));
    let watch = DirectoryWatch::new(&base.join(name)).fails_as(EndReason::HostError)?;
    loop {
        let machine = MachineInfo::read(base, name).ok_or_else(removed)?;
        if machine.has_ended() {
            let error = SnapshotError::NotReady(machine.name.clone(), machine.state());
            return Err(Failure::new(EndReason::ConfigError, error));
        }
        if machine.status.as_ref().is_some_and(|status| status.ready) {
            return Ok(());
        }
        let process = machine.status.as_ref().and_then(|status| status.process().open());
        if watch.wait(process.as_ref()).fails_as(EndReason::HostError)? == WakeReason::OutputClosed {
            return Err(Failure::new(EndReason::HostError, SnapshotError::Closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::{Arguments, Verb};
    use crate::host::process::ProcessId;
    use crate::state::counters::Counters;
    use crate::state::end::End;
    use crate::state::lifecycle::Lifecycle;
    use crate::state::run_dir::RunDirectory;
    use crate::state::status::{State, Status};
    use clap::Parser as _;

    /// The verb, the machine and the directory.
    fn parsed(words: &[&str]) -> Option<(bool, Option<String>, Option<PathBuf>)> {
        let words = ["coracle", "snapshot"].iter().chain(words);
        match Arguments::try_parse_from(words).ok()?.verb {
            Verb::Snapshot(arguments) => Some((arguments.verb.is_some(), arguments.machine, arguments.directory)),
            _ => unreachable!("the verb is snapshot"),
        }
    }

    #[test]
    fn words_are_a_verb_or_a_machine() {
        let machine = |machine: &str, directory: Option<&str>| {
            Some((false, Some(machine.to_owned()), directory.map(PathBuf::from)))
        };
        assert_eq!(parsed(&["web", "./s"]), machine("web", Some("./s")));
        assert_eq!(parsed(&["--when-ready", "--name", "warm", "web"]), machine("web", None));
        assert_eq!(parsed(&["--", "inspect", "./s"]), machine("inspect", Some("./s")));
        for words in [&["inspect", "./s"][..], &["ls", "-q"], &["rm", "warm"]] {
            assert_eq!(parsed(words), Some((true, None, None)), "{words:?}");
        }
        for words in [&[][..], &["--when-ready"], &["--name", "warm", "web", "./s"], &["inspect"], &["web", "a", "b"]] {
            assert_eq!(parsed(words), None, "{words:?}");
        }
    }
    #[test]
    fn readiness_is_awaited_and_an_end_before_it_is_an_error() {
        let base = tempfile::tempdir().unwrap();
        let begin = |id: &str| {
            let directory = RunDirectory::claim(base.path(), id, true).unwrap();
            let ProcessId { pid, started } = ProcessId::own();
            let status = Status { id: id.into(), pid, pid_started: started, ready: false, ..Status::sample() };
            let mut lifecycle = Lifecycle::begin(directory.path(), status, None);
            lifecycle.enter(State::Running, Counters::default());
            (directory, lifecycle)
        };
        let wait = |name: &str| wait_until_ready(base.path(), name).map_err(|failure| failure.message());
        let (_ready, mut lifecycle) = begin("web");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait("web"));
            lifecycle.set_ready();
            waiting.join().unwrap().unwrap();
        });
        wait("web").unwrap();
        let (_ended, mut lifecycle) = begin("job");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait("job"));
            lifecycle.end(&End { status: 3, ..End::killed("") }, Counters::default());
            assert_eq!(waiting.join().unwrap().unwrap_err(), "job: not ready: it is exited");
        });
        assert!(wait("unknown").is_err());
    }
}
