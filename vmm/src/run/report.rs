// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a run leaves behind: the result document, the last status, the message on stderr, the table of `--timings`, the exit
//! status. Three values, each complete when it is made: [`Report`] before anything else happens, [`Recorder`] once the run
//! directory is claimed, [`Outcome`] at the end. Used by `main`.

use super::failure::{self, FailsAs as _, Failure};
use super::progress;
use crate::api::control_socket::ControlSocket;
use crate::config::destination::Destination;
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::config::size::MemorySize;
use crate::host::atomic_write;
use crate::host::descriptor;
use crate::host::process::ProcessId;
use crate::host::system_error::Cannot as _;
use crate::state::counters::Counters;
use crate::state::end::{End, EndReason};
use crate::state::event_outlet::EventOutlet;
use crate::state::lifecycle::Lifecycle;
use crate::state::logs::LogNotifier;
use crate::state::result::{Digests, Host, ResultDestination, ResultDocument};
use crate::state::run_dir::RunDirectory;
use crate::state::stages::Stages;
use crate::state::status::{self, State, Status, container_id};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Where the result goes, and what else is fixed before a run begins.
#[derive(Debug)]
pub(super) struct Report {
    id: String,
    timings: bool,
    destinations: Vec<ResultDestination>,
}

/// A machine's run directory and the status in it.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) run_directory: RunDirectory,
    pub(super) lifecycle: Lifecycle,
    /// `None` if the host refused it.
    pub(super) socket: Option<ControlSocket>,
    /// Where the last status of a kept machine is written, too.
    pub(super) kept: Option<PathBuf>,
}

/// How a run ended, and what is known of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) digests: Digests,
    /// The kind of KVM, if the run got that far.
    pub(super) kvm: Option<&'static str>,
    /// `None` if the machine did not run to its end; the last counters of the status then count.
    pub(super) counters: Option<Counters>,
    /// In the order of their number.
    pub(super) completions: Vec<(String, u64)>,
    /// Each layer and its state.
    pub(super) sandbox: BTreeMap<String, String>,
}

impl From<End> for Outcome {
    /// The outcome of a run of which nothing else is known.
    fn from(end: End) -> Self {
        Self {
            end,
            digests: Digests::default(),
            kvm: None,
            counters: None,
            completions: Vec::new(),
            sandbox: BTreeMap::new(),
        }
    }
}

impl Report {
    /// Fails if the result's descriptor is not open for writing, or its file cannot be made.
    pub(super) fn open(request: &Request, id: &MachineName) -> Result<Self, Failure> {
        let destination = match &request.result {
            None => None,
            Some(Destination::File(path)) => {
                atomic_write::check_writable(path)
                    .map_err(file_error("--result", path))
                    .fails_as(EndReason::ConfigError)?;
                Some(ResultDestination::File(path.clone()))
            }
            Some(Destination::Descriptor(number)) => {
                Some(ResultDestination::Descriptor(inherited("--result", *number)?, *number))
            }
        };
        let destinations = destination.into_iter().collect();
        Ok(Self { id: id.to_string(), timings: request.timings, destinations })
    }

    /// Prints why the run ended, writes the documents, removes what is not kept; returns the exit status.
    pub(super) fn finish(mut self, outcome: Outcome, stages: Stages, recorder: Option<Recorder>) -> u8 {
        let Outcome { end, digests, kvm, counters, completions, sandbox } = outcome;
        let status = end.status;
        progress::end();
        if end.is_printed() {
            failure::print_error(end.summary());
        }
        let last = || recorder.as_ref().map(|recorder| recorder.lifecycle.status().counters.clone());
        let counters = counters.or_else(last).unwrap_or_default();
        let timings = self.timings.then(|| stages.clone());
        let mut document = ResultDocument::new(&self.id, end, stages);
        document.counters = counters.clone();
        document.digests = digests;
        document.sandbox = sandbox;
        document.host = Host { kvm: kvm.map(str::to_owned), completions: completions.iter().cloned().collect() };
        if let Some(recorder) = &recorder {
            self.destinations.push(ResultDestination::File(recorder.run_directory.path().join("result.json")));
        }
        // The run has its end, whether that can be written down or not.
        if let Err(error) = document.write(&self.destinations) {
            failure::print_error(&Failure::new(EndReason::HostError, error).message());
        }
        if let Some(mut recorder) = recorder {
            // A reader of the last status finds the result.
            recorder.lifecycle.end(&document.end, counters);
            if let Some(path) = &recorder.kept
                && let Err(error) = atomic_write::atomic_write(path, recorder.lifecycle.status().to_line().as_bytes())
            {
                log::warn!("cannot write {}: {error}", path.display());
            }
            if let Some(socket) = recorder.socket {
                socket.finish(recorder.lifecycle.status());
            }
        }
        if let Some(stages) = timings {
            let table = stages.table(&completions);
            let _ = std::io::stderr().write_all(table.as_bytes());
        }
        status
    }
}

impl Recorder {
    /// Writes the first status to `run_directory`, and from now on each change of it to `events`, too. Opens the control socket,
    /// whose clients may also come from an `inherited` one.
    pub(super) fn begin(
        run_directory: RunDirectory,
        id: &MachineName,
        request: &Request,
        memory: MemorySize,
        stages: &Stages,
        events: Option<EventOutlet>,
        inherited: Option<UnixListener>,
    ) -> Result<Self, Failure> {
        let now = SystemTime::now();
        let process = ProcessId::own();
        let status = Status {
            version: status::VERSION,
            sequence: 0,
            id: id.to_string(),
            container_id: container_id(id.as_str()).fails_as(EndReason::HostError)?,
            state: State::Starting,
            since: now,
            created: now.checked_sub(stages.elapsed()).unwrap_or(now),
            pid: process.pid,
            pid_started: process.started,
            ready: false,
            health: None,
            image: request.image.clone(),
            command: request.command.clone(),
            ports: Vec::new(),
            published: Vec::new(),
            detached: request.detach,
            terminal: request.tty,
            interactive: request.interactive,
            cpus: request.cpus.unwrap_or_default().get(),
            memory_bytes: memory.bytes(),
            addresses: Vec::new(),
            links: Vec::new(),
            counters: Counters::default(),
            end: None,
        };
        let lifecycle = Lifecycle::begin(run_directory.path(), status, events);
        let socket = listen(run_directory.path(), inherited)?;
        Ok(Self { run_directory, lifecycle, socket, kept: None })
    }

    /// Serves the output of a detached workload from now on.
    pub(super) fn serve_logs(&mut self, notifier: Arc<LogNotifier>) {
        if let Some(socket) = &mut self.socket {
            socket.serve_logs(self.run_directory.path(), notifier);
        }
    }
}

/// Opens the control socket. A host that refuses it costs the run nothing else, unless it refuses every descriptor.
fn listen(entry: &Path, inherited: Option<UnixListener>) -> Result<Option<ControlSocket>, Failure> {
    let listening = ControlSocket::listen(entry).and_then(|mut socket| {
        inherited.map_or(Ok(()), |inherited| socket.server.add_listener(inherited))?;
        Ok(socket)
    });
    match listening {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            Err(error).cannot(format!("open the control socket in {}", entry.display())).fails_as(EndReason::HostError)
        }
        Err(error) => {
            log::warn!("no control socket in {}: {error}", entry.display());
            Ok(None)
        }
    }
}

/// Opens the destination of `--events`.
pub(super) fn open_events(request: &Request) -> Result<Option<EventOutlet>, Failure> {
    let file = match &request.events {
        None => return Ok(None),
        Some(Destination::File(path)) => {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(file_error("--events", path)).fails_as(EndReason::ConfigError)?
        }
        Some(Destination::Descriptor(number)) => inherited("--events", *number)?.into(),
    };
    Ok(Some(EventOutlet::new(file)))
}

/// A descriptor that the parent process opened.
fn inherited(option: &'static str, number: i32) -> Result<OwnedFd, Failure> {
    let descriptor = descriptor::inherited_for_writing(number);
    descriptor.map_err(|source| DescriptorOptionError { option, source }).fails_as(EndReason::ConfigError)
}

#[derive(Debug, thiserror::Error)]
#[error("{option}")]
struct DescriptorOptionError {
    option: &'static str,
    source: descriptor::DescriptorError,
}

/// The file that an option names cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{option} {path}")]
pub(super) struct FileOptionError {
    option: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

pub(super) fn file_error(option: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileOptionError {
    let path = path.to_owned();
    move |source| FileOptionError { option, path, source }
}
