// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which command runs, as whom, where: what the image wants and what the request says instead. Pure.

use super::health::{self, HealthError};
use crate::config::environment::{self, EnvVar};
use crate::config::request::Request;
use crate::config::signal::{SignalError, SignalNumber};
use guest_protocol::health::HealthCheck;
use oci_image::ImageConfig;

/// Most bytes of arguments and environment together: what a Linux process with a default stack can have.
const MOST_BYTES: usize = 2 << 20;

/// The init of a system.
const INIT: &str = "/sbin/init";
/// Tells an init that it need not set up a machine (systemd's container interface).
const CONTAINER: &str = "container=coracle";

/// No workload comes of image and request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WorkloadError {
    /// Nothing to run.
    #[error("no command: none is given{}", if *.rootfs { " after --rootfs" } else { ", and the image has neither Entrypoint nor Cmd" })]
    NoCommand {
        /// Whether a root file system takes an image's place.
        rootfs: bool,
    },
    /// The empty name.
    #[error("the command is an empty string")]
    EmptyCommand,
    /// The image's own.
    #[error("the image's StopSignal")]
    StopSignal(#[source] SignalError),
    /// A request of the impossible.
    #[error("arguments and environment have {0} bytes, and a process can have {MOST_BYTES}")]
    TooLong(usize),
    /// A path that depends on where one is.
    #[error("the working directory `{0}` is not an absolute path")]
    WorkingDirectory(String),
    /// How its health would be checked.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// Processes cannot have it.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
}

/// The part of a run that image and request decide together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// `argv`.
    pub(crate) arguments: Vec<String>,
    /// `NAME=value` strings.
    pub(crate) environment: Vec<String>,
    /// Absolute.
    pub(crate) working_directory: String,
    /// As PID 1 resolves it.
    pub(crate) user: String,
    /// What a polite end begins with.
    pub(crate) stop_signal: SignalNumber,
    /// How it is found out whether it is well.
    pub(crate) health: Option<HealthCheck>,
}

impl Workload {
    /// Decides. `files` are the variables of `--env-file`, `host` looks up the host's.
    ///
    /// # Errors
    /// There is no command, or a part of it is none that a process can have.
    pub(crate) fn decide(
        image: &ImageConfig,
        request: &Request,
        files: &[EnvVar],
        host: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, WorkloadError> {
        if request.system {
            return Self::system(image, request, files, host);
        }
        let arguments = arguments(image, request);
        match arguments.first().map(String::as_str) {
            None => return Err(WorkloadError::NoCommand { rootfs: request.rootfs.is_some() }),
            Some("") => return Err(WorkloadError::EmptyCommand),
            Some(_) => {}
        }
        let own = |option: &Option<String>, image: &str| option.clone().unwrap_or_else(|| image.to_owned());
        let mut working_directory = own(&request.workdir, &image.working_dir);
        if working_directory.is_empty() {
            working_directory.push('/');
        }
        if !working_directory.starts_with('/') {
            return Err(WorkloadError::WorkingDirectory(working_directory));
        }
        let stop_signal = stop_signal(image, request, SignalNumber::TERM)?;
        let environment = environment::complete(&image.env, files, &request.env, host);
        let health = health::decide(image, request)?;
        let workload = Self {
            health,
            arguments,
            environment,
            working_directory,
            user: own(&request.user, &image.user),
            stop_signal,
        };
        workload.check(request)?;
        Ok(workload)
    }

    /// The root's own init, or the command in its place: root's, as an init finds things when it is started in a container.
    fn system(
        image: &ImageConfig,
        request: &Request,
        files: &[EnvVar],
        host: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, WorkloadError> {
        let arguments = match request.command.first().map(String::as_str) {
            None => vec![INIT.to_owned()],
            Some("") => return Err(WorkloadError::EmptyCommand),
            Some(_) => request.command.clone(),
        };
        let mut environment = environment::complete(&image.env, files, &request.env, host);
        environment.retain(|variable| !variable.starts_with("container="));
        environment.push(CONTAINER.to_owned());
        // Colours and cursor movements are for terminals.
        if !request.tty && !environment.iter().any(|variable| variable.starts_with("TERM=")) {
            environment.push("TERM=dumb".to_owned());
        }
        let stop_signal = stop_signal(image, request, SignalNumber::POWER_OFF)?;
        let (working_directory, user) = ("/".to_owned(), String::new());
        let health = health::decide(image, request)?;
        let workload = Self { arguments, environment, working_directory, user, stop_signal, health };
        workload.check(request)?;
        Ok(workload)
    }

    /// What options and documents may hold and processes may not.
    fn check(&self, request: &Request) -> Result<(), WorkloadError> {
        let nul = |text: &String| text.contains('\0');
        if self.arguments.iter().any(nul) {
            return Err(WorkloadError::Nul("the command"));
        }
        if self.health.iter().flat_map(|check| &check.arguments).chain(&request.ready_exec).any(nul) {
            return Err(WorkloadError::Nul("--health-cmd, --ready-exec or the image's Healthcheck"));
        }
        if nul(&self.working_directory) || nul(&self.user) {
            return Err(WorkloadError::Nul("the working directory or the user"));
        }
        let bytes = self.arguments.iter().chain(&self.environment).map(|text| text.len() + 1).sum();
        if bytes > MOST_BYTES { Err(WorkloadError::TooLong(bytes)) } else { Ok(()) }
    }
}

/// The request's, else the image's, else `usual`.
fn stop_signal(image: &ImageConfig, request: &Request, usual: SignalNumber) -> Result<SignalNumber, WorkloadError> {
    match (request.stop_signal, &image.stop_signal) {
        (Some(signal), _) => Ok(signal),
        (None, Some(signal)) => signal.parse().map_err(WorkloadError::StopSignal),
        (None, None) => Ok(usual),
    }
}

/// `--entrypoint` takes the place of Entrypoint *and* clears Cmd; a command takes the place of Cmd.
fn arguments(image: &ImageConfig, request: &Request) -> Vec<String> {
    let own_entrypoint = request.entrypoint.as_ref().map(|entrypoint| match entrypoint.as_str() {
        // docker's way to do without the image's.
        "" => Vec::new(),
        entrypoint => vec![entrypoint.to_owned()],
    });
    let command = match (&own_entrypoint, request.command.is_empty()) {
        (None, true) => &image.cmd,
        _ => &request.command,
    };
    let mut arguments = own_entrypoint.unwrap_or_else(|| image.entrypoint.clone());
    arguments.extend_from_slice(command);
    arguments
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
