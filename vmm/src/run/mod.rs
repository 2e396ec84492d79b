// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One run: the steps from the request to the exit status, in order. Runs on `main`.

pub(crate) mod check;
pub(crate) mod commit;
mod confinement;
mod context;
pub(crate) mod copy;
pub(crate) mod copy_into;
mod early_clients;
pub(crate) mod export;
pub(crate) mod failure;
pub(crate) mod fork;
mod health;
mod host_directory;
pub(crate) mod kept;
pub(crate) mod layers;
pub(crate) mod machine_files;
mod modules;
pub(crate) mod prepare;
pub(crate) mod progress;
mod report;
pub(crate) mod resolve;
pub(crate) mod restore;
mod root_disk;
mod run_spec;
mod shares;
pub(crate) mod stored_image;
mod template;
pub(crate) mod template_maker;
mod volumes;
mod workload;

use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::host::daemonize::{self, Daemon, Spawned};
use crate::host::directories::Directories;
use crate::host::file_size_limit;
use crate::host::forbidden_call::{self, ForbiddenCall};
use crate::host::inherited_sockets::{self, InheritedSocketError};
use crate::host::interruptible::{self, interruptible};
use crate::host::panics;
use crate::host::process;
use crate::host::service_manager::ServiceManager;
use crate::host::signals::Signals;
use crate::host::system_error::Cannot as _;
use crate::host::terminal::RawTerminal;
use crate::machine::snapshot::{SnapshotPlace, Source};
use crate::machine::supervisor::Supervisor;
use crate::machine::{self, Machine, MachineConfig, RunContext, ServiceNotifier};
use crate::sandbox::{self, Confinement, Sandbox};
use crate::state::end::{End, EndReason, STATUS_FAILED};
use crate::state::event_outlet::EventOutlet;
use crate::state::kept::KeptImage;
use crate::state::run_dir::{self, RunDirectory, RunDirectoryError};
use crate::state::stages::{Stage, Stages};
use context::Inputs;
use early_clients::EarlyClients;
use failure::{FailsAs as _, Failure};
use kept::{Keeping, Kept, Wanted};
use kvm::{KvmHost, Profile};
use modules::MissingDrivers;
use prepare::{Preparation, Prepared, WorkloadStreams};
use report::{Outcome, Recorder, Report, file_error};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeWriter, Write as _};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

/// A detached process's own messages, from the moment on at which its workload runs.
const OWN_LOG: &str = "coracle.log";
/// The guest may cause some of the messages.
const MAX_OWN_LOG_BYTES: usize = 1 << 20;

/// The process that started this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A user, script or driver.
    User,
    /// Another `coracle run --detach`, which waits until the workload runs.
    Detach,
}

/// Which machine a run starts.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    New,
    /// One that is kept, on its layer.
    Kept,
    /// A copy of a machine, from its snapshot.
    Restored(SnapshotPlace),
}

/// Runs `request` from the first check to the exit status, which is returned.
///
/// # Errors
/// The run failed before the destination of its result was open.
pub(crate) fn run(request: Request, caller: Caller, origin: Origin, mut stages: Stages) -> Result<u8, Failure> {
    // First, while no descriptor of this process itself can be mistaken for an inherited one.
    let socket = inherited_sockets::control();
    if request.detach && caller == Caller::User {
        return detach(&request, &origin, socket);
    }
    // Before anything else: a signal to the caller's process group is not for this process.
    let daemon = match caller {
        Caller::Detach => Some(Daemon::detach().fails_as(EndReason::HostError)?),
        Caller::User => None,
    };
    let id = match request.given_name() {
        Some(name) => name.clone(),
        None => MachineName::random().fails_as(EndReason::HostError)?,
    };
    stages.mark(Stage::Parsed);
    let report = Report::open(&request, &id)?;
    let events = report::open_events(&request)?;
    let mut run = Run { request, id, origin, stages };
    let (mut outcome, recorder) = match caught(|| run.claim(socket, events)) {
        Err(end) => (end.into(), None),
        Ok((mut recorder, claimed)) => (run.start(claimed, daemon, &mut recorder), Some(recorder)),
    };
    // After a panic or a forbidden system call of any thread nothing else can be relied on.
    if let Some(call) = forbidden_call::take_unreported() {
        outcome.end = forbidden(&call).into();
    } else if panics::first().is_some() {
        outcome.end = Failure::from_panic().into();
    }
    let status = report.finish(outcome, run.stages, recorder);
    // One that was made since then.
    Ok(forbidden_call::take_unreported().map_or(status, |call| failure::fail(&forbidden(&call))))
}

fn forbidden(call: &ForbiddenCall) -> Failure {
    Failure::new(EndReason::SandboxError, sandbox::describe(call))
}

/// Does one step; a panic in it is an end like any other.
fn caught<T>(step: impl FnOnce() -> Result<T, End>) -> Result<T, End> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(Failure::from_panic().into()))
}

struct Run {
    request: Request,
    id: MachineName,
    origin: Origin,
    stages: Stages,
}

/// What [`Run::claim`] leaves for the next steps.
struct Claimed {
    signals: Signals,
    found: Found,
}

/// What [`Run::prepare`] needs of it.
struct Found {
    inputs: Inputs,
    directories: Directories,
    keeping: Keeping,
    /// Opened before anything else needs it, because its kind decides how much memory the status shows. A failure counts
    /// where the run needs it.
    host: Result<KvmHost, Failure>,
}

/// What [`Run::prepare`] leaves for the next steps.
struct Ready {
    prepared: Prepared,
    notifier: ServiceNotifier,
    /// The input of a detached workload, which attached clients write.
    input: Option<PipeWriter>,
    samples: Option<Arc<Profile>>,
    sandbox: Arc<Sandbox>,
}

impl Run {
    /// Step 1: reads what can block, takes the signals over, claims the run directory, and opens the control socket in it.
    fn claim(
        &self,
        socket: Result<Option<UnixListener>, InheritedSocketError>,
        events: Option<EventOutlet>,
    ) -> Result<(Recorder, Claimed), End> {
        let socket = socket.fails_as(EndReason::ConfigError)?;
        file_size_limit::raise().fails_as(EndReason::HostError)?;
        // Signals have their usual effect until here: the file may be a pipe that nothing writes to.
        let inputs = Inputs::read(&self.request)?;
        let signals = Signals::block().fails_as(EndReason::HostError)?;
        let directories = Directories::from_environment();
        let base = self.request.run_dir.clone().unwrap_or_else(|| directories.run());
        let wanted = match self.origin {
            Origin::New => Wanted::Run,
            Origin::Kept => Wanted::Kept,
            Origin::Restored(_) => Wanted::Restored,
        };
        let keeping = || Keeping::of(&self.request, &self.id, &base, &directories, wanted);
        // Before the claim, which rejects the name of a running machine and clears the directory of an ended one; and after it,
        // because another process may have had the name until then.
        if !run_dir::is_locked(&base.join(self.id.as_str())).unwrap_or(false) {
            keeping()?;
        }
        let run_directory = self.claim_run_directory(&base)?;
        let keeping = keeping()?;
        let host = KvmHost::open().fails_as(EndReason::HostError);
        let memory = prepare::memory(&self.request, &host);
        let recorder = Recorder::begin(run_directory, &self.id, &self.request, memory, &self.stages, events, socket)?;
        Ok((recorder, Claimed { signals, found: Found { inputs, directories, keeping, host } }))
    }

    fn claim_run_directory(&self, base: &Path) -> Result<RunDirectory, Failure> {
        let request = &self.request;
        let keep = (request.given_name().is_some() || request.detach) && !request.rm;
        let run_directory = RunDirectory::claim(base, self.id.as_str(), keep).map_err(run_directory_failure)?;
        let document = request.to_document().fails_as(EndReason::ConfigError)?;
        let mut file = run_directory.create("config.json").fails_as(EndReason::HostError)?;
        let path = run_directory.path().join("config.json");
        let written = file.write_all(document.as_bytes()).cannot(format!("write {}", path.display()));
        written.fails_as(EndReason::HostError)?;
        Ok(run_directory)
    }

    /// Steps 2 to 4.
    fn start(&mut self, claimed: Claimed, mut daemon: Option<Daemon>, recorder: &mut Recorder) -> Outcome {
        let Claimed { signals, found } = claimed;
        let steps = || self.prepare(found, &signals, daemon.as_mut(), recorder);
        let ready = match caught(steps) {
            Ok(ready) => ready,
            Err(end) => return end.into(),
        };
        let Ready { prepared, notifier, input, samples, sandbox } = ready;
        let Prepared {
            machine,
            mut supervisor,
            exposed_ports,
            published,
            // These end when this function returns.
            mut attachments,
            image_in_use: _image_in_use,
            mut kept,
            image,
            socket_file: _socket_file,
            host,
            digests,
            kernel_digest,
            stages,
            template,
            maker,
        } = prepared;
        self.stages = stages;
        recorder.lifecycle.set_workload(&supervisor.spec, &exposed_ports, published);
        // Whatever comes of the machine.
        let known = |end: End| Outcome {
            digests: digests.clone(),
            kvm: Some(host.kind().name()),
            sandbox: sandbox.report(),
            ..end.into()
        };
        let source = match caught(|| Ok(self.source(image)?)) {
            Ok(source) => source,
            Err(end) => return known(end),
        };
        let kernel_path = machine.kernel.path().to_owned();
        let missing_drivers = MissingDrivers::of(&machine.kernel);
        let taken = caught(|| {
            let mut attachments = attachments.iter_mut();
            Ok(attachments
                .try_for_each(|attachment| attachment.take_effect(&sandbox))
                .fails_as(EndReason::NetworkError)?)
        });
        if let Err(end) = taken {
            // Its devices are closed before what is behind them is undone.
            drop(machine);
            return known(end);
        }
        let needs = confinement::needs(&self.request, &recorder.run_directory, kept.as_ref(), &machine, &attachments);
        let confinement = Arc::new(Confinement { sandbox: Arc::clone(&sandbox), needs });
        let (machine, terminal) = match caught(|| self.build(&host, machine)) {
            Ok(built) => built,
            Err(end) => return known(end),
        };
        if let Some(template) = template.filter(|_| !machine.is_restored()) {
            if let Err(end) = caught(|| Ok(template.remove(&Directories::from_environment())?)) {
                return known(end);
            }
            supervisor.template = None;
            self.stages.unmark(Stage::TemplateOpened);
        }
        if let Some(kept) = &mut kept
            && let Err(end) = caught(|| Ok(self.publish(kept, recorder)?))
        {
            return known(end);
        }
        let ran = caught(|| {
            let context = RunContext {
                signals: &signals,
                terminal,
                notifier,
                stages: &mut self.stages,
                lifecycle: &mut recorder.lifecycle,
                socket: recorder.socket.as_mut(),
                parent: daemon,
                input,
                confinement,
                source,
                maker,
            };
            let ran = machine.run(Supervisor::new(supervisor), context);
            print_hint(missing_drivers, &self.stages, &ran);
            let written = match (&self.request.profile, samples) {
                (Some(path), Some(samples)) => write_profile(path, &samples, &kernel_path),
                _ => Ok(()),
            };
            let mut outcome = known(written.map_or_else(End::from, |()| ran.end));
            outcome.counters = Some(ran.counters);
            outcome.completions = ran.completions.by_name();
            outcome.digests.kernel = kernel_digest.and_then(|digest| digest.wait().ok());
            Ok(outcome)
        });
        if let Some(kept) = &mut kept {
            if self.stages.has_reached(Stage::WorkloadExecuted) {
                kept.machine.confirm();
            }
            recorder.kept = kept.machine.is_confirmed().then(|| kept.machine.status_path());
        }
        ran.unwrap_or_else(known)
    }

    /// What a snapshot, and a copy of the writable layer, have besides the state of the machine.
    fn source(&self, image: Option<KeptImage>) -> Result<Source, Failure> {
        let document = self.request.to_document().fails_as(EndReason::ConfigError)?;
        let request = serde_json::from_str(&document).fails_as(EndReason::InternalError)?;
        // It may have been removed; then no relative path leads anywhere.
        let directory = std::env::current_dir().unwrap_or_default();
        Ok(Source { machine: self.id.to_string(), request, directory, image })
    }

    /// Takes the name for a new machine that is kept. It loses it again if the workload is never executed.
    fn publish(&self, kept: &mut Kept, recorder: &Recorder) -> Result<(), Failure> {
        kept.publish(&self.request, &self.id)?;
        let status = recorder.lifecycle.status().to_line();
        kept.machine.write_status(&status).cannot("write the status of the kept machine").fails_as(EndReason::HostError)
    }

    /// Step 2: opens the files and streams of the run, then everything that the machine is built from. A signal that ends a run
    /// ends this step at once; clients of the control socket are served meanwhile.
    fn prepare(
        &self,
        found: Found,
        signals: &Signals,
        daemon: Option<&mut Daemon>,
        recorder: &mut Recorder,
    ) -> Result<Ready, End> {
        let Found { inputs, directories, keeping, host } = found;
        let (request, run_directory) = (&self.request, &recorder.run_directory);
        if let Some(path) = &request.cidfile {
            let created = File::create_new(path).and_then(|mut file| file.write_all(self.id.as_str().as_bytes()));
            created.map_err(file_error("--cidfile", path)).fails_as(EndReason::ConfigError)?;
        }
        let console = match &request.console {
            Some(path) => File::create(path).map_err(file_error("--console", path)).fails_as(EndReason::ConfigError)?,
            None => run_directory.create("console.log").fails_as(EndReason::HostError)?,
        };
        let WorkloadStreams { streams, input, log_notifier } = match request.detach {
            true => WorkloadStreams::log(run_directory.path(), request.log_size, request.interactive)?,
            false => WorkloadStreams::inherit(request.interactive)?,
        };
        if let Some(daemon) = daemon {
            daemon.log_to(run_directory.create(OWN_LOG).fails_as(EndReason::HostError)?);
            failure::limit_output(MAX_OWN_LOG_BYTES);
        }
        log_notifier.into_iter().for_each(|notifier| recorder.serve_logs(notifier));
        let manager = ServiceManager::from_environment().fails_as(EndReason::ConfigError)?;
        let sandbox = Sandbox::new(request.sandbox.unwrap_or_default()).fails_as(EndReason::SandboxError)?;
        let sandbox = Arc::new(sandbox);
        let samples = request.profile.is_some().then(Arc::<Profile>::default);
        let preparation = Preparation {
            request: inputs.complete(request)?,
            inputs,
            id: self.id.clone(),
            directories,
            stages: self.stages.clone(),
            streams,
            console,
            profile: samples.clone(),
            sandbox: Arc::clone(&sandbox),
            keeping,
            restored: match &self.origin {
                Origin::Restored(place) => Some(place.clone()),
                Origin::New | Origin::Kept => None,
            },
            watchdog: manager.as_ref().and_then(ServiceManager::watchdog),
            is_check: false,
        };
        let notifier = ServiceNotifier::new(manager, request.ready_notify);
        let mut clients = EarlyClients::new(recorder);
        let prepared = interruptible(signals, &mut clients, move || preparation.prepare(host));
        let prepared = prepared.fails_as(EndReason::HostError)?;
        if !matches!(prepared, interruptible::Outcome::Done(_)) {
            oci_image::abandon_conversions();
        }
        match prepared {
            interruptible::Outcome::Done(prepared) => {
                Ok(Ready { prepared: prepared?, notifier, input, samples, sandbox })
            }
            interruptible::Outcome::Signalled(signal) => Err(End::signalled_before_workload(signal)),
            interruptible::Outcome::Ended(end) => Err(end),
        }
    }

    /// Step 3: builds the machine, and puts the user's terminal into raw mode.
    fn build(&mut self, host: &KvmHost, config: MachineConfig) -> Result<(Machine, Option<RawTerminal>), End> {
        process::forbid_dumps();
        let machine = machine::build(host, config).map_err(|error| Failure::new(error.reason(), error))?;
        self.stages.mark(Stage::MachineBuilt);
        let Request { tty, interactive, detach, .. } = self.request;
        let terminal = match tty && interactive && !detach {
            true => Some(RawTerminal::enter(std::io::stdin()).fails_as(EndReason::HostError)?),
            false => None,
        };
        Ok((machine, terminal))
    }
}

fn run_directory_failure(error: RunDirectoryError) -> Failure {
    let reason = match error {
        RunDirectoryError::InUse { .. } => EndReason::ConfigError,
        _ => EndReason::HostError,
    };
    Failure::new(reason, error)
}

/// Prints which drivers the guest's kernel lacks, if it ended before it ran the workload.
fn print_hint(missing_drivers: Option<MissingDrivers>, stages: &Stages, ran: &machine::Outcome) {
    let failed = ran.end.status == STATUS_FAILED || ran.end.reason == EndReason::Timeout;
    if failed && !stages.has_reached(Stage::WorkloadExecuted) {
        let hint = missing_drivers.and_then(|missing| missing.hint(ran.end.reason, &ran.unclaimed, ran.devices));
        hint.iter().for_each(|hint| failure::print_error(hint));
    }
}

fn write_profile(path: &Path, samples: &Profile, kernel: &Path) -> Result<(), Failure> {
    // The kernel's own build leaves it there.
    let system_map = std::fs::read_to_string(kernel.with_file_name("System.map")).ok();
    let written = File::create(path).and_then(|mut file| samples.write(system_map.as_deref(), &mut file));
    written.map_err(file_error("--profile", path)).fails_as(EndReason::HostError)
}

/// Starts the same request as a process of its own, and waits until its workload runs.
fn detach(
    request: &Request,
    origin: &Origin,
    socket: Result<Option<UnixListener>, InheritedSocketError>,
) -> Result<u8, Failure> {
    if socket.fails_as(EndReason::ConfigError)?.is_some() {
        return Err(Failure::new(EndReason::ConfigError, DetachError::Sockets));
    }
    match spawn(request, origin, Stdio::inherit())? {
        Spawned::Running(name) => {
            // A closed standard output is not an error.
            let _ = writeln!(std::io::stdout(), "{name}");
            Ok(0)
        }
        Spawned::Ended(status) => Ok(status),
    }
}

/// Starts `request` as a process of its own, whose standard error is `errors` until its workload runs.
fn spawn(request: &Request, origin: &Origin, errors: Stdio) -> Result<Spawned, Failure> {
    let document = request.to_document().fails_as(EndReason::ConfigError)?;
    let numbers;
    let mut words = ["run", "--detached", "--config", "-"].map(OsStr::new).to_vec();
    match origin {
        Origin::New => {}
        Origin::Kept => words.push("--kept".as_ref()),
        Origin::Restored(SnapshotPlace::Directory(directory)) => {
            words.extend(["--restored".as_ref(), directory.as_os_str()]);
        }
        Origin::Restored(SnapshotPlace::Unnamed(files)) => {
            numbers = files.numbers();
            words.extend(["--restored-files".as_ref(), OsStr::new(&numbers)]);
        }
    }
    daemonize::spawn(&words, &document, errors).fails_as(EndReason::HostError)
}

#[derive(Debug, thiserror::Error)]
enum DetachError {
    #[error("--detach contradicts LISTEN_FDS: the process that was given sockets is the one that serves them")]
    Sockets,
}
