// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs, as which user, where: docker's merge of the options with an image's configuration. An empty value is as if it
//! were not given. What docker accepts from an image is at most a warning. Pure.

use super::health;
use crate::config::environment::{self, EnvVar, HostValueError};
use crate::config::request::Request;
use crate::config::signal::SignalNumber;
use crate::config::text_form::Given;
use guest_protocol::health::HealthCheck;
use guest_protocol::run_spec::ExpectedProgram;
use oci_image::ImageConfig;

/// Bytes of arguments and environment together that a Linux process with a default stack can have.
const MAX_BYTES: usize = 2 << 20;
/// Of an expected program's path, and of its directories.
const MAX_EXPECTED_BYTES: usize = 4096;
const SYSTEM_INIT: &str = "/sbin/init";
/// Tells an init that there is no machine to set up (systemd's container interface).
const CONTAINER: &str = "container=coracle";
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WorkloadError {
    #[error("no command given{}", if *.rootfs { " after --rootfs" } else { ", and the image has neither Entrypoint nor Cmd" })]
    NoCommand { rootfs: bool },
    #[error("the command is an empty string")]
    EmptyCommand,
    #[error("arguments and environment have {0} bytes; the maximum is {MAX_BYTES}")]
    TooLong(usize),
    #[error("--workdir {0}: not an absolute path")]
    WorkingDirectory(String),
    #[error(transparent)]
    Health(#[from] health::OptionError),
    #[error(transparent)]
    Environment(#[from] HostValueError),
    #[error("{0} has a NUL byte")]
    Nul(&'static str),
    /// By docker's rules, which PID 1 applies, too.
    #[error("user {0}: user and group ids must be between 0 and 2147483647")]
    UserId(String),
}

/// What options and image decide together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) arguments: Vec<String>,
    /// `NAME=value` strings.
    pub(crate) environment: Vec<String>,
    /// An absolute path in the guest.
    pub(crate) working_directory: String,
    /// PID 1 looks it up in the image's files; empty is root.
    pub(crate) user: String,
    /// What a request to stop begins with.
    pub(crate) stop_signal: SignalNumber,
    pub(crate) health: Option<HealthCheck>,
    /// Runs commands in shell form.
    pub(crate) shell: Vec<String>,
    /// Values of the image that are not used.
    pub(crate) warnings: Vec<String>,
}

impl Workload {
    /// `env_files` are the variables of files; `host` looks up a variable without a value.
    pub(crate) fn decide(
        image: &ImageConfig,
        request: &Request,
        env_files: &[EnvVar],
        host: impl Fn(&str) -> Result<Option<String>, HostValueError>,
    ) -> Result<Self, WorkloadError> {
        let mut warnings = Vec::new();
        let shell = shell(image);
        let arguments = if request.system { system_command(request) } else { command(image, request) };
        match arguments.first().map(String::as_str) {
            None => return Err(WorkloadError::NoCommand { rootfs: request.rootfs.is_some() }),
            Some("") => return Err(WorkloadError::EmptyCommand),
            Some(_) => {}
        }
        let mut environment = environment::complete(&image.env, env_files, &request.env, host)?;
        let (working_directory, user) = if request.system {
            prepare_system(&mut environment, request);
            ("/".to_owned(), String::new())
        } else {
            (working_directory(image, request)?, given(&request.user).unwrap_or(&image.user).to_owned())
        };
        let workload = Self {
            stop_signal: stop_signal(image, request, &mut warnings),
            health: health::decide(image, request, &shell, &mut warnings)?,
            arguments,
            environment,
            working_directory,
            user,
            shell,
            warnings,
        };
        workload.check(request)?;
        Ok(workload)
    }

    /// Rejects what options and documents can hold but a process cannot.
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
        if self.user.splitn(2, ':').any(is_out_of_range) {
            return Err(WorkloadError::UserId(self.user.clone()));
        }
        let bytes = self.arguments.iter().chain(&self.environment).map(|text| text.len() + 1).sum();
        if bytes > MAX_BYTES { Err(WorkloadError::TooLong(bytes)) } else { Ok(()) }
    }
}

/// Whether a user or group is a number, and none of an id.
fn is_out_of_range(name: &str) -> bool {
    match name.parse::<i64>() {
        Ok(id) => i32::try_from(id).is_err() || id < 0,
        Err(_) => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The value of an option, unless it is empty.
fn given(option: &Option<String>) -> Option<&String> {
    option.as_ref().filter(|value| !value.is_empty())
}

/// A list of one empty string is docker's form of an empty list for Entrypoint.
fn is_empty(entrypoint: &[String]) -> bool {
    matches!(entrypoint, [] | [_]) && entrypoint.iter().all(String::is_empty)
}

/// `--entrypoint` replaces Entrypoint *and* clears Cmd; a command replaces Cmd.
fn command(image: &ImageConfig, request: &Request) -> Vec<String> {
    let entrypoint = match &request.entrypoint {
        Some(entrypoint) => std::slice::from_ref(entrypoint),
        None => &image.entrypoint,
    };
    let command = match request.entrypoint.is_none() && request.command.is_empty() {
        true => &image.cmd,
        false => &request.command,
    };
    let entrypoint = if is_empty(entrypoint) { &[] } else { entrypoint };
    [entrypoint, command].concat()
}

/// What a run of the image executes, unless its options change that. Relative paths of the image begin at its working directory; those
/// of the program begin at the root.
pub(super) fn expected_program(image: &ImageConfig) -> Option<ExpectedProgram> {
    let command = command(image, &Request::default()).into_iter().next()?;
    let directory = working_directory(image, &Request::default()).ok()?;
    let absolute = |path: &str| match path {
        "" => directory.clone(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{path}", directory.trim_end_matches('/')),
    };
    let command = if command.contains('/') { absolute(&command) } else { command };
    let path = image.env.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let path = path.map(|path| path.split(':').map(absolute).collect::<Vec<_>>().join(":"));
    let is_bounded = command.len().max(path.as_ref().map_or(0, String::len)) <= MAX_EXPECTED_BYTES;
    is_bounded.then_some(ExpectedProgram { command, path })
}

/// The root's own init, or the command in its place.
fn system_command(request: &Request) -> Vec<String> {
    if request.command.is_empty() { vec![SYSTEM_INIT.to_owned()] } else { request.command.clone() }
}

/// What an init expects of the environment in a container.
fn prepare_system(environment: &mut Vec<String>, request: &Request) {
    environment.retain(|variable| !variable.starts_with("container="));
    environment.push(CONTAINER.to_owned());
    // Colours and cursor movements are for terminals.
    if !request.tty && !environment.iter().any(|variable| variable.starts_with("TERM=")) {
        environment.push("TERM=dumb".to_owned());
    }
}

/// A relative path of the image's begins at the root; a relative option is rejected, as in docker.
fn working_directory(image: &ImageConfig, request: &Request) -> Result<String, WorkloadError> {
    match given(&request.workdir) {
        Some(path) if path.starts_with('/') => Ok(path.clone()),
        Some(path) => Err(WorkloadError::WorkingDirectory(path.clone())),
        None if image.working_dir.starts_with('/') => Ok(image.working_dir.clone()),
        None => Ok(format!("/{}", image.working_dir)),
    }
}

fn shell(image: &ImageConfig) -> Vec<String> {
    if image.shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { image.shell.clone() }
}

/// The option's, else the image's, else the usual one.
fn stop_signal(image: &ImageConfig, request: &Request, warnings: &mut Vec<String>) -> SignalNumber {
    let usual = if request.system { SignalNumber::POWER_OFF } else { SignalNumber::TERM };
    match (request.stop_signal.as_ref().and_then(Given::get), &image.stop_signal) {
        (Some(signal), _) => *signal,
        (None, Some(signal)) => signal.parse().unwrap_or_else(|error| {
            warnings.push(format!("the image's StopSignal is ignored: {error}"));
            usual
        }),
        (None, None) => usual,
    }
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
