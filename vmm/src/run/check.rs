// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle check`: the steps of a start up to the machine that is built and never runs, by the same functions and in the same
//! order as in `mod.rs` and `prepare.rs`. What a step needs and does not have leaves it out; the others are tried. Nothing of the
//! run directory or of the files that options name is changed; an image is converted, as its first run would. Runs on `main`.

use super::context::Inputs;
use super::failure::{FailsAs as _, Failure};
use super::kept::{Keeping, Wanted};
use super::prepare::{Preparation, Prepared, memory, open_kernel, read_init};
use super::progress::{self, ProgressLine};
use super::report::{Report, file_error, open_events};
use super::{DetachError, run_directory_failure};
use crate::config::destination::Destination;
use crate::config::disk::SCRATCH_SERIAL;
use crate::config::name::MachineName;
use crate::config::request::Request;
use crate::config::size::Scratch;
use crate::host::atomic_write::check_writable;
use crate::host::directories::Directories;
use crate::host::file_size_limit;
use crate::host::inherited_sockets;
use crate::host::scratch;
use crate::host::service_manager::ServiceManager;
use crate::machine::{self, Streams};
use crate::sandbox::Sandbox;
use crate::state::end::{End, EndReason};
use crate::state::run_dir::RunDirectory;
use crate::state::stages::Stages;
use boot::Kernel;
use boot::layout::MAX_CPUS;
use kvm::KvmHost;
use rustix::fs::{Mode, OFlags, open};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    /// What was found, or the line that `run` would print.
    pub(crate) detail: String,
}

/// Steps in the order of a run.
#[derive(Debug, Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Records a step. `describe` tells what was found.
    fn record<T>(
        &mut self,
        name: &'static str,
        outcome: Result<T, Failure>,
        describe: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (ok, detail, value) = match outcome {
            Ok(value) => (true, describe(&value), Some(value)),
            Err(failure) => (false, End::from(failure).summary().to_owned(), None),
        };
        self.0.push(Step { name, ok, detail });
        value
    }
}

/// Tries the steps of `request`; without an image only those that concern the host.
pub(crate) fn check(request: &Request, stages: Stages) -> Vec<Step> {
    let mut steps = Steps::default();
    let (directories, progress) = (Directories::from_environment(), ProgressLine::new());
    let id = match request.given_name().cloned().map_or_else(MachineName::random, Ok).fails_as(EndReason::HostError) {
        Ok(id) => id,
        Err(failure) => {
            steps.record("run directory", Err(failure), |()| String::new());
            return steps.0;
        }
    };
    if let Err(failure) = file_size_limit::raise().fails_as(EndReason::HostError) {
        steps.record("files", Err(failure), |()| String::new());
        return steps.0;
    }
    let files = steps.record("files", check_files(request, &id), |_| "those that options name can be used".to_owned());
    let base = run_directory_base(request, &directories);
    let claimed = RunDirectory::check(&base, id.as_str()).map_err(run_directory_failure);
    let claimed = claimed.and_then(|()| Keeping::of(request, &id, &base, &directories, Wanted::Run).map(drop));
    let _ = steps.record("run directory", claimed, |()| base.display().to_string());
    let inputs = files.unwrap_or_default();
    let sandbox = Sandbox::new(request.sandbox.unwrap_or_default()).fails_as(EndReason::SandboxError);
    let sandbox = steps.record("sandbox", sandbox, describe_sandbox);
    // The others are tried all the same.
    let sandbox = Arc::new(sandbox.unwrap_or_default());
    let preparation = preparation(request, inputs, id, &directories, stages, sandbox);
    let preparation = preparation.and_then(|preparation| match request.image.is_some() || request.rootfs.is_some() {
        true => preparation.resolve().map(|resolved| Some((preparation, resolved))),
        false => Ok(None),
    });
    let together = |_: &_| "options, disks and network go together".to_owned();
    let resolved = steps.record("configuration", preparation, together).flatten();
    let host = KvmHost::open().fails_as(EndReason::HostError);
    let memory = memory(request, &host);
    let kernel = steps.record("kernel", open_kernel(request, memory, &directories, &progress), describe_kernel);
    let init = steps.record("PID 1", read_init(request, &directories), |init| format!("{} KiB", init.len() >> 10));
    let host = steps.record("kvm", host, describe_host);
    if let (Some((preparation, resolved)), Some(kernel), Some(init), Some(host)) = (resolved, kernel, init, host) {
        let prepared = preparation.assemble(resolved, kernel, &init, host, &progress);
        let built = prepared.and_then(|Prepared { machine, host, .. }| {
            machine::build(&host, machine).map(drop).map_err(|error| Failure::new(error.reason(), error))
        });
        let name = built.as_ref().map_or_else(Failure::reason, |()| EndReason::Exited);
        let name = if name == EndReason::ImageError { "image" } else { "machine" };
        if name == "machine" {
            let image = request.image.as_deref().unwrap_or("the root of --rootfs");
            let _ = steps.record("image", Ok(()), |()| image.to_owned());
        }
        let _ = steps.record(name, built, |()| format!("{memory} of memory, devices and vCPUs"));
    }
    // Otherwise that is why the machine failed, if it is.
    if steps.0.iter().all(|step| step.ok || step.name != "machine") {
        let _ = steps.record("scratch", check_scratch(request, &directories), Clone::clone);
    }
    progress::end();
    steps.0
}

/// What the steps need besides the request. The machine will have no streams.
pub(super) fn preparation(
    request: &Request,
    inputs: Inputs,
    id: MachineName,
    directories: &Directories,
    stages: Stages,
    sandbox: Arc<Sandbox>,
) -> Result<Preparation, Failure> {
    let manager = ServiceManager::from_environment().fails_as(EndReason::ConfigError)?;
    let console = File::options().write(true).open("/dev/null").fails_as(EndReason::HostError)?;
    Ok(Preparation {
        request: inputs.complete(request)?,
        inputs,
        id,
        directories: directories.clone(),
        stages,
        streams: Streams { input: None, output: None, error: None },
        console,
        profile: None,
        sandbox,
        keeping: Keeping::Nothing(None),
        restored: None,
        watchdog: manager.as_ref().and_then(ServiceManager::watchdog),
        is_check: true,
    })
}

fn describe_sandbox(sandbox: &Sandbox) -> String {
    let layers: Vec<_> = sandbox.report().into_iter().map(|(layer, state)| format!("{layer} {state}")).collect();
    layers.join(", ")
}

fn describe_kernel(kernel: &Kernel) -> String {
    let form = if kernel.is_bzimage() { "bzImage" } else { "vmlinux" };
    let release = kernel.features().release().unwrap_or("of unknown release");
    let modules = kernel.modules().map(|modules| format!(", modules in {}", modules.directory().display()));
    format!("{}, {form} {release}, {}{}", kernel.path().display(), kernel.description(), modules.unwrap_or_default())
}

fn describe_host(host: &KvmHost) -> String {
    let max_cpus = host.max_cpus().min(MAX_CPUS.into());
    format!("/dev/kvm, {}, up to {max_cpus} vCPUs", host.kind().name())
}

fn check_scratch(request: &Request, directories: &Directories) -> Result<String, Failure> {
    match request.scratch() {
        Scratch::Disk(size) => {
            scratch::create(size, directories, SCRATCH_SERIAL).fails_as(EndReason::HostError)?;
            Ok(format!("a disk in {}", directories.large_temporary().display()))
        }
        other => Ok(other.to_string()),
    }
}

/// Everything that a run opens by itself, without creating or truncating it. Returns what is read before the others.
fn check_files(request: &Request, id: &MachineName) -> Result<Inputs, Failure> {
    let socket = inherited_sockets::control();
    if request.detach && socket.as_ref().is_ok_and(Option::is_some) {
        return Err(Failure::new(EndReason::ConfigError, DetachError::Sockets));
    }
    Report::open(request, id)?;
    match &request.events {
        Some(Destination::File(path)) => {
            can_open(path).map_err(file_error("--events", path)).fails_as(EndReason::ConfigError)?;
        }
        _ => drop(open_events(request)?),
    }
    socket.fails_as(EndReason::ConfigError)?;
    let inputs = Inputs::read(request)?;
    if let Some(path) = &request.cidfile {
        let free = match path.symlink_metadata() {
            Ok(_) => Err(rustix::io::Errno::EXIST.into()),
            Err(_) => check_writable(path),
        };
        free.map_err(file_error("--cidfile", path)).fails_as(EndReason::ConfigError)?;
    }
    if let Some(path) = &request.console {
        can_open(path).map_err(file_error("--console", path)).fails_as(EndReason::ConfigError)?;
    }
    Ok(inputs)
}

/// Whether a file can be opened for writing or created.
fn can_open(path: &Path) -> io::Result<()> {
    if path.metadata().is_err() {
        return check_writable(path);
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match open(path, flags, Mode::empty()) {
        // A FIFO: the run would wait for its reader.
        Err(rustix::io::Errno::NXIO) => Ok(()),
        opened => opened.map(drop).map_err(Into::into),
    }
}

pub(super) fn run_directory_base(request: &Request, directories: &Directories) -> PathBuf {
    request.run_dir.clone().unwrap_or_else(|| directories.run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_reports_a_missing_image() {
        let request = Request { image: Some("oci:/nowhere".into()), ..Request::default() };
        let steps = check(&request, Stages::start());
        let step = |name| steps.iter().find(|step| step.name == name);
        assert!(step("configuration").is_some_and(|step| step.ok), "{steps:?}");
        // The other steps depend on what is installed on this host.
        assert!(step("kernel").is_some() && step("kvm").is_some(), "{steps:?}");
        assert!(step("image").is_none_or(|step| !step.ok && step.detail.contains("/nowhere")), "{steps:?}");
    }

    #[test]
    fn files_are_checked_without_being_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("there"), "text").unwrap();
        let check = |request: Request| {
            let checked = check_files(&request, &"web".parse().unwrap());
            checked.map(drop).map_err(|failure| failure.message())
        };
        let file = |name: &str| Some(path(name).display().to_string().parse().unwrap());
        let all = |name: &str| Request {
            result: file(name),
            events: file(name),
            console: Some(path(name)),
            ..Request::default()
        };
        assert_eq!(check(all("new")), Ok(()));
        assert_eq!(check(all("there")), Ok(()));
        assert!(check(all("missing/new")).unwrap_err().contains("missing/new"));
        let cidfile = |name: &str| Request { cidfile: Some(path(name)), ..Request::default() };
        assert_eq!(check(cidfile("new")), Ok(()));
        assert!(check(cidfile("there")).unwrap_err().ends_with("there: File exists (os error 17)"));
        assert!(!path("new").exists());
        assert_eq!(std::fs::read(path("there")).unwrap(), b"text");
    }
}
