// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is left of a run: the result document, the table of `--timings`, the line on stderr, the exit status.

use super::failure::{self, FailsAs as _, Failure};
use super::progress;
use crate::api::control_socket::ControlSocket;
use crate::config::destination::Destination;
use crate::config::request::Request;
use crate::host::atomic_write;
use crate::host::descriptor;
use crate::host::process::ProcessId;
use crate::state::counters::Counters;
use crate::state::end::{End, EndReason};
use crate::state::event_outlet::EventOutlet;
use crate::state::lifecycle::Lifecycle;
use crate::state::logs::LogNotifier;
use crate::state::result::{Digests, Host, ResultDestination, ResultDocument};
use crate::state::run_dir::RunDirectory;
use crate::state::stages::Stages;
use crate::state::status::{self, State, Status};
use crate::state::timings;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Collects what is known while the run goes on.
#[derive(Debug)]
pub(super) struct Report {
    id: String,
    timings: bool,
    destinations: Vec<ResultDestination>,
    pub(super) stages: Stages,
    events: Option<EventOutlet>,
    pub(super) run_directory: Option<RunDirectory>,
    /// From the moment on at which there is an entry.
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) socket: Option<ControlSocket>,
    /// Where else clients come from: a service manager's socket.
    pub(super) inherited_socket: Option<UnixListener>,
    pub(super) digests: Digests,
    pub(super) host: Host,
    pub(super) counters: Counters,
    /// Completions in the order of their number, for people.
    pub(super) completions: Vec<(String, u64)>,
}

impl Report {
    /// Fails if the result's descriptor is not open for writing, or there is no place for its file.
    pub(super) fn new(request: &Request, id: &str, stages: Stages) -> Result<Self, Failure> {
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
        let events = match &request.events {
            None => None,
            Some(Destination::File(path)) => {
                let opened = File::options().append(true).create(true).open(path);
                Some(opened.map_err(file_error("--events", path)).fails_as(EndReason::ConfigError)?)
            }
            Some(Destination::Descriptor(number)) => Some(inherited("--events", *number)?.into()),
        };
        Ok(Self {
            id: id.to_owned(),
            timings: request.timings,
            destinations: destination.into_iter().collect(),
            stages,
            events: events.map(EventOutlet::new),
            run_directory: None,
            lifecycle: None,
            socket: None,
            inherited_socket: None,
            digests: Digests::default(),
            host: Host::default(),
            counters: Counters::default(),
            completions: Vec::new(),
        })
    }

    /// The run has an entry: from now on others are told of it.
    pub(super) fn begin(&mut self, entry: RunDirectory, request: &Request) -> &RunDirectory {
        let now = SystemTime::now();
        let process = ProcessId::own();
        let status = Status {
            version: status::VERSION,
            sequence: 0,
            id: self.id.clone(),
            state: State::Starting,
            since: now,
            created: now.checked_sub(self.stages.elapsed()).unwrap_or(now),
            pid: process.pid,
            pid_started: process.started,
            ready: false,
            health: None,
            image: request.image.clone(),
            command: request.command.clone(),
            detached: request.detach,
            terminal: request.tty,
            interactive: request.interactive,
            cpus: request.cpus.unwrap_or_default().get(),
            memory_bytes: request.memory.unwrap_or_default().bytes(),
            addresses: Vec::new(),
            counters: Counters::default(),
            end: None,
        };
        self.lifecycle = Some(Lifecycle::begin(entry.path(), status, self.events.take()));
        self.run_directory.insert(entry)
    }

    /// From now on whoever wants something of the machine can ask, its logs too if there is a bell for them. A host that refuses
    /// the socket costs the run nothing else.
    pub(super) fn listen(&mut self, bell: Option<Arc<LogNotifier>>) {
        let Some(entry) = &self.run_directory else { return };
        let listening = ControlSocket::listen(entry.path(), bell).and_then(|mut socket| {
            self.inherited_socket.take().map_or(Ok(()), |inherited| socket.server.also_listen(inherited))?;
            Ok(socket)
        });
        match listening {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => log::warn!("no control socket in {}: {error}", entry.path().display()),
        }
    }

    /// Tells the person and writes the document; takes away what is not to stay; returns the exit status.
    pub(super) fn finish(mut self, end: End) -> u8 {
        let status = end.status;
        progress::end();
        if end.is_printed() {
            failure::say(end.summary());
        }
        // After a panic nobody has counted.
        if let Some(lifecycle) = self.lifecycle.as_ref().filter(|_| self.counters == Counters::default()) {
            self.counters = lifecycle.status().counters.clone();
        }
        let mut document = ResultDocument::new(&self.id, end, self.stages.clone());
        document.counters = self.counters.clone();
        document.digests = self.digests;
        self.host.completions = self.completions.iter().cloned().collect();
        document.host = self.host;
        if let Some(entry) = &self.run_directory {
            self.destinations.push(ResultDestination::File(entry.path().join("result.json")));
        }
        // The run has its end, whether that can be written down or not.
        if let Err(error) = document.write(&self.destinations) {
            failure::say(&Failure::new(EndReason::HostError, error).line());
        }
        if let Some(lifecycle) = &mut self.lifecycle {
            // Who sees the end finds the result.
            lifecycle.end(&document.end, self.counters);
            if let Some(socket) = self.socket {
                socket.finish(lifecycle.status());
            }
        }
        if self.timings {
            let table = timings::table(&self.stages, &self.completions);
            let _ = std::io::stderr().write_all(table.as_bytes());
        }
        status
    }
}

/// A descriptor of the parent's.
fn inherited(option: &'static str, number: i32) -> Result<OwnedFd, Failure> {
    let descriptor = descriptor::inherited_for_writing(number);
    descriptor.map_err(|source| DescriptorOptionError { option, source }).fails_as(EndReason::ConfigError)
}

/// An option names a descriptor that is none.
#[derive(Debug, thiserror::Error)]
#[error("{option}")]
struct DescriptorOptionError {
    option: &'static str,
    source: descriptor::DescriptorError,
}

/// A file that an option names cannot be written.
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
