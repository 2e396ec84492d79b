// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One run: the steps from the request to the exit status, in order.

pub(crate) mod failure;
mod hint;
pub(crate) mod modules;
mod parts;
pub(crate) mod prepare;
pub(crate) mod progress;
mod report;

use crate::config::environment::{self, Variable};
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::host::daemonize::{self, Daemon, Spawned};
use crate::host::directories::Directories;
use crate::host::inherited_sockets::{self, InheritedSocketError};
use crate::host::interruptible::{self, interruptible};
use crate::host::panics;
use crate::host::service_manager::ServiceManager;
use crate::host::signals::Signals;
use crate::host::terminal::RawTerminal;
use crate::machine::{self, RunContext, ServiceNotifier, StreamOutput, Streams};
use crate::state::end::{End, EndReason, STATUS_FAILED};
use crate::state::logs::{LogNotifier, StreamLog};
use crate::state::run_dir::{RunDirectory, RunDirectoryError};
use crate::state::stages::{Stage, Stages};
use failure::{FailsAs as _, Failure};
use hint::Lacks;
use kvm::Profile;
use prepare::{Preparation, Prepared};
use report::{Report, file_error};
use std::fs::File;
use std::io::{PipeWriter, Write as _};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// What coracle says about itself in a detached process once that runs.
const OWN_LOG: &str = "coracle.log";
/// Most of that; the guest may cause some of it.
const OWN_LOG_BYTES: usize = 1 << 20;

/// The process that started this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A user, script or driver.
    User,
    /// Another `coracle run --detach`, which waits until the workload runs.
    Detach,
}

/// Runs `request` from the first check to the exit status, which is returned.
///
/// # Errors
/// The run failed before the place of its result was known. Until the signals are taken over they have their usual
/// effect, so that nothing can hang before: a document may come through a pipe.
pub(crate) fn run(request: Request, caller: Caller, mut stages: Stages) -> Result<u8, Failure> {
    let detached = caller == Caller::Detach;
    // Now, while nothing that this process opened itself can be mistaken for it.
    let socket = inherited_sockets::control();
    if request.detach && !detached {
        return detach(&request, socket);
    }
    // Before anything else: a signal to the starter's group is not for this process.
    let starter = if detached { Some(Daemon::detach().fails_as(EndReason::HostError)?) } else { None };
    let id = match request.given_name() {
        Some(name) => name.clone(),
        None => MachineName::random().fails_as(EndReason::HostError)?,
    };
    stages.mark(Stage::Parsed);
    let mut report = Report::new(&request, id.as_str(), stages)?;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        report.inherited_socket = socket.fails_as(EndReason::ConfigError)?;
        let files = environment::read_files(&request.env_file).fails_as(EndReason::ConfigError)?;
        live(request, files, id, starter, &mut report)
    }));
    let end = match lived {
        Ok(outcome) if panics::first().is_none() => outcome.unwrap_or_else(|failure| failure.end()),
        // Whatever else came of it: nobody knows what the mistake has spoilt.
        _ => Failure::of_panic().end(),
    };
    Ok(report.finish(end))
}

/// Starts the same request as a process of its own, and waits until its workload runs.
fn detach(request: &Request, socket: Result<Option<UnixListener>, InheritedSocketError>) -> Result<u8, Failure> {
    if socket.fails_as(EndReason::ConfigError)?.is_some() {
        return Err(Failure::new(EndReason::ConfigError, DetachError::Sockets));
    }
    let document = request.to_document().fails_as(EndReason::ConfigError)?;
    let words = ["run", "--detached", "--config", "-"];
    match daemonize::spawn(&words, &document).map_err(DetachError::Start).fails_as(EndReason::HostError)? {
        Spawned::Running(name) => {
            // A closed standard output is not an error.
            let _ = writeln!(std::io::stdout(), "{name}");
            Ok(0)
        }
        Spawned::Ended(status) => Ok(status),
    }
}

/// There is no process of its own.
#[derive(Debug, thiserror::Error)]
enum DetachError {
    #[error("cannot start a process for --detach")]
    Start(#[source] std::io::Error),
    #[error("--detach contradicts LISTEN_FDS: the process that was given sockets is the one that serves them")]
    Sockets,
}

/// From the signals to the end.
fn live(
    request: Request,
    files: Vec<Variable>,
    id: MachineName,
    mut starter: Option<Daemon>,
    report: &mut Report,
) -> Result<End, Failure> {
    let signals = Signals::block().fails_as(EndReason::HostError)?;
    let folders = Directories::from_environment();
    let console = claim(&request, &id, &folders, report)?;
    let terminal = request.tty && request.interactive && !request.detach;
    let WorkloadStreams { streams, input, bell } = streams(&request, report)?;
    if let (Some(starter), Some(entry)) = (&mut starter, &report.run_directory) {
        starter.log_to(entry.create(OWN_LOG).fails_as(EndReason::HostError)?);
        failure::say_at_most(OWN_LOG_BYTES);
    }
    let profile = request.profile.clone();
    let manager = ServiceManager::from_environment().fails_as(EndReason::ConfigError)?;
    let watchdog = manager.as_ref().and_then(ServiceManager::watchdog);
    let notifier = ServiceNotifier::new(manager, request.ready_notify);

    let preparation = Preparation { request, files, id, folders, stages: report.stages.clone(), watchdog };
    let prepared = interruptible(&signals, move || preparation.prepare()).fails_as(EndReason::HostError)?;
    let Prepared { config, host, digests, kernel_digest, stages } = match prepared {
        interruptible::Outcome::Done(prepared) => prepared?,
        interruptible::Outcome::Interrupted(signal) => return Ok(End::signalled_before_workload(signal)),
    };
    report.stages = stages;
    report.digests = digests;
    report.host.kvm = Some(host.kind().name().to_owned());
    let kernel_path = config.kernel.path().to_owned();
    let lacks = Lacks::of(&config.kernel);
    if let Some(lifecycle) = &mut report.lifecycle {
        lifecycle.know(&config.run_spec);
    }

    let samples = profile.is_some().then(Arc::<Profile>::default);
    let (config, supervisor) = parts::parts(config, console, streams, samples.clone())?;
    let machine = machine::build(&host, config).map_err(|error| Failure::new(error.reason(), error))?;
    report.stages.mark(Stage::MachineBuilt);
    let terminal = match terminal {
        true => Some(RawTerminal::enter(std::io::stdin()).fails_as(EndReason::HostError)?),
        false => None,
    };
    report.listen(bell);
    let Report { stages, lifecycle: Some(lifecycle), socket, .. } = report else {
        unreachable!("the entry was claimed above")
    };
    let outcome = machine.run(
        supervisor,
        RunContext {
            signals: &signals,
            terminal,
            notifier,
            stages,
            lifecycle,
            socket: socket.as_mut(),
            starter,
            input,
        },
    );

    report.counters = outcome.counters;
    report.completions = outcome.completions.by_name();
    report.digests.kernel = kernel_digest.wait().ok();
    let came_to_nothing = outcome.end.status == STATUS_FAILED || outcome.end.reason == EndReason::Timeout;
    if came_to_nothing && !report.stages.has_reached(Stage::WorkloadExecuted) {
        let hint = lacks.and_then(|lacks| lacks.hint(outcome.end.reason, &outcome.unclaimed, outcome.devices));
        hint.iter().for_each(|hint| failure::say(hint));
    }
    if let (Some(path), Some(samples)) = (profile, samples) {
        write_profile(&path, &samples, &kernel_path)?;
    }
    Ok(outcome.end)
}

/// Makes the entry in the run directory and the files that are there from the start; returns the console's.
fn claim(
    request: &Request,
    id: &MachineName,
    folders: &Directories,
    report: &mut Report,
) -> Result<Option<File>, Failure> {
    let base = request.run_dir.clone().unwrap_or_else(|| folders.run());
    let keep = (request.given_name().is_some() || request.detach) && !request.rm;
    let entry = RunDirectory::claim(&base, id.as_str(), keep).map_err(|error| {
        let reason = match error {
            RunDirectoryError::InUse { .. } => EndReason::ConfigError,
            _ => EndReason::HostError,
        };
        Failure::new(reason, error)
    })?;
    let document = request.to_document().fails_as(EndReason::ConfigError)?;
    let written = entry.create("config.json").fails_as(EndReason::HostError)?.write_all(document.as_bytes());
    written.fails_as(EndReason::HostError)?;
    let entry = report.begin(entry, request);
    if let Some(path) = &request.cidfile {
        let created = File::create_new(path).and_then(|mut file| file.write_all(id.as_str().as_bytes()));
        created.map_err(file_error("--cidfile", path)).fails_as(EndReason::ConfigError)?;
    }
    let console = match &request.console {
        Some(path) => File::create(path).map_err(file_error("--console", path)).fails_as(EndReason::ConfigError)?,
        None => entry.create("console.log").fails_as(EndReason::HostError)?,
    };
    Ok(Some(console))
}

/// The workload's streams, and what belongs to them where they are those of a detached one.
struct WorkloadStreams {
    streams: Streams,
    /// Where its input comes from, open for as long as the machine runs.
    input: Option<PipeWriter>,
    /// Tells that its logs have grown.
    bell: Option<Arc<LogNotifier>>,
}

/// This process's own streams or, of a detached one, its logs and an input that attached clients write to.
fn streams(request: &Request, report: &Report) -> Result<WorkloadStreams, Failure> {
    let entry = report.run_directory.as_ref().filter(|_| request.detach);
    let Some(entry) = entry else {
        return Ok(WorkloadStreams { streams: parts::own_streams(request.interactive)?, input: None, bell: None });
    };
    let limit = request.log_size.unwrap_or_default().bytes();
    let bell = LogNotifier::new().map(Arc::new).map_err(LogError).fails_as(EndReason::HostError)?;
    let logs = StreamLog::create(entry.path(), limit, &bell).map_err(LogError).fails_as(EndReason::HostError)?;
    let [output, error] = logs.map(|log| Some(StreamOutput::Log(log)));
    let (reader, input) = match request.interactive {
        true => Some(std::io::pipe().map_err(LogError).fails_as(EndReason::HostError)?).unzip(),
        false => (None, None),
    };
    let streams = Streams { input: reader.map(Into::into), output, error };
    Ok(WorkloadStreams { streams, input, bell: Some(bell) })
}

/// The output cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the logs of a detached machine")]
struct LogError(#[source] std::io::Error);

fn write_profile(path: &Path, samples: &Profile, kernel: &Path) -> Result<(), Failure> {
    // The kernel's own build leaves it there.
    let system_map = std::fs::read_to_string(kernel.with_file_name("System.map")).ok();
    let written = File::create(path).and_then(|mut file| samples.write(system_map.as_deref(), &mut file));
    written.map_err(file_error("--profile", path)).fails_as(EndReason::HostError)
}
