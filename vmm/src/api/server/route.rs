// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Routing: the table of paths, the parameters of each, and whether it is a [`Query`] or a
//! [`Command`]. Nothing after this dispatches on a path. Pure. `vmm/openapi.json` describes the
//! same for users; a test compares the two.

use super::connection::{Request, Response};
use super::descriptors::Descriptors;
use super::logs_query::LogsQuery;
use crate::config::limits::Limits;
use crate::config::signal::SignalNumber;
use guest_protocol::attributes::ProcessAttributes;
use guest_protocol::exec::ExecSpec;
use guest_protocol::files;
use guest_protocol::run_spec::WindowSize;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Query(Query),
    Command(Command),
}

/// Answered from the state of the run, without the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// The status with fresh counters.
    Status,
    /// The counters, once or each second until the client leaves.
    Stats { stream: bool },
    /// The status now and at each change.
    Events,
    /// Output of a detached workload.
    Logs(LogsQuery),
    /// The status at the end of the run, once it comes.
    Wait,
}

/// An operation that the machine's monitor performs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Stop(Stop),
    Kill(Kill),
    /// Hold the vCPUs.
    Pause,
    /// Release the vCPUs.
    Resume,
    /// Change rate limits, and answer with all of them.
    Limits(Limits),
    /// Make a disk larger, and answer with its size.
    Resize(Resize),
    /// Write a snapshot to the files that came with the request.
    Snapshot(Descriptors),
    /// Copy the writable layer to the file that came with the request.
    Layer {
        /// The vCPUs are held meanwhile.
        pauses: bool,
        descriptors: Descriptors,
    },
    /// Start a process beside the workload; the connection becomes its streams.
    Exec(ExecSpec),
    /// The connection becomes streams of a detached workload.
    Attach,
}

impl Command {
    /// Whether it waits for a workload that is not executed yet.
    #[must_use]
    pub(crate) fn needs_workload(&self) -> bool {
        match self {
            Self::Exec(_)
            | Self::Pause
            | Self::Limits(_)
            | Self::Resize(_)
            | Self::Snapshot(_)
            | Self::Layer { .. } => true,
            Self::Kill(kill) => !kill.cuts_power(),
            Self::Stop(_) | Self::Resume | Self::Attach => false,
        }
    }

    /// Whether it waits until no copy of the machine is being made.
    #[must_use]
    pub(crate) fn needs_whole_machine(&self) -> bool {
        matches!(self, Self::Pause | Self::Snapshot(_) | Self::Layer { .. })
    }
}

/// Body of `POST /v1/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stop {
    /// Seconds until the power cut, in place of `--stop-timeout`.
    pub(crate) timeout: Option<u32>,
    /// In place of the image's StopSignal.
    pub(crate) signal: Option<SignalNumber>,
}

/// Body of `POST /v1/kill`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kill {
    /// KILL by default.
    pub(crate) signal: Option<SignalNumber>,
}

impl Kill {
    #[must_use]
    pub(crate) fn cuts_power(&self) -> bool {
        self.signal.unwrap_or(SignalNumber::KILL) == SignalNumber::KILL
    }
}

/// Body of `POST /v1/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Exec {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// `NAME=VALUE` strings that override the workload's.
    pub(crate) env: Vec<String>,
    /// Empty means the workload's.
    pub(crate) workdir: String,
    /// Empty means the workload's.
    pub(crate) user: String,
    /// The client sends input.
    pub(crate) interactive: bool,
    /// A pty of this size in place of pipes.
    pub(crate) terminal: Option<WindowSize>,
    /// No streams; the client leaves once the process was started.
    pub(crate) detach: bool,
    /// Limits, groups and privileges; the workload's by default.
    pub(crate) attributes: Option<ProcessAttributes>,
}

impl Exec {
    fn spec(self) -> Result<ExecSpec, Response> {
        let Self { command, env, workdir, user, interactive, terminal, detach, attributes } = self;
        let texts = command.iter().chain(&env).chain([&workdir, &user]);
        if command.first().is_none_or(String::is_empty) {
            return Err(Response::error(400, "command: empty"));
        }
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(Response::error(400, "NUL byte in command, env, workdir or user"));
        }
        if let Some(variable) = env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
            return Err(Response::error(400, &format!("env: `{variable}` is not NAME=VALUE")));
        }
        Ok(ExecSpec {
            arguments: command,
            environment: env,
            working_directory: workdir,
            user,
            terminal: terminal.filter(|_| !detach),
            stdin: interactive && !detach,
            detached: detach,
            attributes,
            writes_files: false,
        })
    }
}

/// Body of `POST /v1/files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Files {
    /// Of the messages that the client sends: [`files::VERSION`].
    pub(crate) version: u32,
}

impl Files {
    fn spec(self) -> Result<ExecSpec, Response> {
        match self.version {
            files::VERSION => Ok(ExecSpec { stdin: true, writes_files: true, ..ExecSpec::default() }),
            version => {
                let error = format!("version {version} of the messages is not supported; this is {}", files::VERSION);
                Err(Response::error(400, &error))
            }
        }
    }
}

/// Body and answer of `POST /v1/resize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Resize {
    /// Serial of the disk.
    pub(crate) disk: String,
    /// Bytes; by default those of its file at this moment.
    pub(crate) size: Option<u64>,
}

/// Body of `POST /v1/layer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Layer {
    /// Hold the vCPUs while the layer is copied.
    pub(crate) pause: bool,
}

/// Body of `POST /v1/attach` and `POST /v1/snapshot`, which have no parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Empty {}

/// One line of the table.
struct Route {
    method: &'static str,
    path: &'static str,
    /// Makes the operation from query and body.
    operation: fn(&Request) -> Result<Operation, Response>,
}

const ROUTES: [Route; 16] = [
    Route { method: "GET", path: "/v1/status", operation: |_| query(Query::Status) },
    Route { method: "GET", path: "/v1/stats", operation: |request| query(Query::Stats { stream: stream(request)? }) },
    Route { method: "GET", path: "/v1/events", operation: |_| query(Query::Events) },
    Route {
        method: "GET",
        path: "/v1/logs",
        operation: |request| query(Query::Logs(LogsQuery::parse(&request.query)?)),
    },
    Route { method: "GET", path: "/v1/wait", operation: |_| query(Query::Wait) },
    Route { method: "POST", path: "/v1/stop", operation: |request| command(Command::Stop(body(request)?)) },
    Route { method: "POST", path: "/v1/kill", operation: |request| command(Command::Kill(body(request)?)) },
    Route { method: "POST", path: "/v1/pause", operation: |_| command(Command::Pause) },
    Route { method: "POST", path: "/v1/resume", operation: |_| command(Command::Resume) },
    Route { method: "POST", path: "/v1/limits", operation: |request| command(Command::Limits(body(request)?)) },
    Route { method: "POST", path: "/v1/resize", operation: |request| command(Command::Resize(body(request)?)) },
    Route {
        method: "POST",
        path: "/v1/snapshot",
        operation: |request| {
            body::<Empty>(request).and_then(|_| command(Command::Snapshot(request.descriptors.clone())))
        },
    },
    Route {
        method: "POST",
        path: "/v1/layer",
        operation: |request| {
            let Layer { pause } = body(request)?;
            command(Command::Layer { pauses: pause, descriptors: request.descriptors.clone() })
        },
    },
    Route {
        method: "POST",
        path: "/v1/exec",
        operation: |request| command(Command::Exec(upgrade_body::<Exec>(request)?.spec()?)),
    },
    Route {
        method: "POST",
        path: "/v1/files",
        operation: |request| command(Command::Exec(upgrade_body::<Files>(request)?.spec()?)),
    },
    Route {
        method: "POST",
        path: "/v1/attach",
        operation: |request| upgrade_body::<Empty>(request).and_then(|_| command(Command::Attach)),
    },
];

pub(super) fn route(request: &Request) -> Result<Operation, Response> {
    let mut with_path = ROUTES.iter().filter(|route| route.path == request.path).peekable();
    if with_path.peek().is_none() {
        return Err(Response::error(404, &format!("{}: no such path", request.path)));
    }
    match with_path.find(|route| route.method == request.method) {
        Some(route) => (route.operation)(request),
        None => Err(Response::error(405, &format!("{}: method {} is not supported", request.path, request.method))),
    }
}

fn query(query: Query) -> Result<Operation, Response> {
    Ok(Operation::Query(query))
}

fn command(command: Command) -> Result<Operation, Response> {
    Ok(Operation::Command(command))
}

fn stream(request: &Request) -> Result<bool, Response> {
    match &*request.query {
        "" | "stream=false" => Ok(false),
        "stream" | "stream=true" => Ok(true),
        other => Err(Response::error(400, &format!("query `{other}`: not stream=true or stream=false"))),
    }
}

fn upgrade_body<T: DeserializeOwned + Default>(request: &Request) -> Result<T, Response> {
    match request.form.upgrade {
        true => body(request),
        false => Err(Response::error(426, "missing `Connection: Upgrade` and `Upgrade: tcp`")),
    }
}

/// The body as JSON. Without one, every parameter has its default.
fn body<T: DeserializeOwned + Default>(request: &Request) -> Result<T, Response> {
    match request.body.trim_ascii() {
        b"" => Ok(T::default()),
        bytes => serde_json::from_slice(bytes).map_err(|error| Response::error(400, &format!("body: {error}"))),
    }
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod openapi_tests;

#[cfg(test)]
mod tests {
    use super::super::connection::Form;
    use super::*;

    fn request(method: &str, target: &str, body: &str, upgrade: bool) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            body: body.into(),
            descriptors: Descriptors::default(),
            form: Form { keep_alive: true, chunked: true, upgrade },
        }
    }

    fn routed(method: &str, target: &str, body: &str) -> Result<Operation, u16> {
        route(&request(method, target, body, false)).map_err(|response| response.status)
    }

    #[test]
    fn requests_that_only_read_are_queries() {
        let logs = LogsQuery::parse("follow=1").unwrap();
        for (target, query) in [
            ("/v1/status", Query::Status),
            ("/v1/stats", Query::Stats { stream: false }),
            ("/v1/stats?stream=true", Query::Stats { stream: true }),
            ("/v1/events", Query::Events),
            ("/v1/logs?follow=1", Query::Logs(logs)),
            ("/v1/wait", Query::Wait),
        ] {
            assert_eq!(routed("GET", target, ""), Ok(Operation::Query(query)), "{target}");
        }
    }

    #[test]
    fn requests_that_change_the_machine_are_commands() {
        let stop = Stop { timeout: Some(3), signal: Some("USR1".parse().unwrap()) };
        for (path, body, command) in [
            ("/v1/stop", "", Command::Stop(Stop::default())),
            ("/v1/stop", r#"{"timeout":3,"signal":"USR1"}"#, Command::Stop(stop)),
            ("/v1/kill", "", Command::Kill(Kill::default())),
            ("/v1/pause", "", Command::Pause),
            ("/v1/resume", "", Command::Resume),
            ("/v1/limits", "", Command::Limits(Limits::default())),
            ("/v1/resize", r#"{"disk":"data"}"#, Command::Resize(Resize { disk: "data".into(), size: None })),
            ("/v1/snapshot", "", Command::Snapshot(Descriptors::default())),
            ("/v1/layer", "", Command::Layer { pauses: false, descriptors: Descriptors::default() }),
            ("/v1/layer", r#"{"pause":true}"#, Command::Layer { pauses: true, descriptors: Descriptors::default() }),
        ] {
            assert_eq!(routed("POST", path, body), Ok(Operation::Command(command)), "{path} {body}");
        }
        let attach = route(&request("POST", "/v1/attach", "", true));
        assert_eq!(attach, Ok(Operation::Command(Command::Attach)));
    }

    #[test]
    fn unknown_and_invalid_requests_are_rejected() {
        for (method, target, body, status) in [
            ("GET", "/", "", 404),
            ("GET", "/v2/status", "", 404),
            ("GET", "/v1/status/", "", 404),
            ("POST", "/v1/status", "", 405),
            ("GET", "/v1/stats?stream=perhaps", "", 400),
            ("POST", "/v1/stop", "{", 400),
            ("POST", "/v1/stop", r#"{"grace":3}"#, 400),
            ("POST", "/v1/kill", r#"{"signal":"NOSUCH"}"#, 400),
            ("POST", "/v1/limits", r#"{"disks":{"root":{"read-bps":1}}}"#, 400),
            ("POST", "/v1/resize", r#"{"disk":"data","size":-1}"#, 400),
            ("POST", "/v1/limits", r#"{"disks":{"root":{"read_bps":-1}}}"#, 400),
            ("POST", "/v1/snapshot", r#"{"directory":"/"}"#, 400),
            ("POST", "/v1/layer", r#"{"pause":"yes"}"#, 400),
            ("POST", "/v1/exec", r#"{"command":["true"]}"#, 426),
            ("POST", "/v1/files", r#"{"version":1}"#, 426),
            ("POST", "/v1/attach", "", 426),
            ("GET", "/v1/logs?follow=perhaps", "", 400),
        ] {
            assert_eq!(routed(method, target, body), Err(status), "{method} {target} {body}");
        }
    }

    #[test]
    fn files_are_written_by_a_process_of_their_version_only() {
        let routed = |body: &str| route(&request("POST", "/v1/files", body, true)).map_err(|response| response.status);
        let spec = ExecSpec { stdin: true, writes_files: true, ..ExecSpec::default() };
        assert_eq!(routed(r#"{"version":1}"#), Ok(Operation::Command(Command::Exec(spec))));
        assert_eq!((routed(""), routed(r#"{"version":2}"#)), (Err(400), Err(400)));
    }

    #[test]
    fn exec_rejects_an_invalid_process() {
        let routed = |body: &str| route(&request("POST", "/v1/exec", body, true)).map_err(|response| response.status);
        let spec = ExecSpec { arguments: vec!["true".into()], stdin: true, ..ExecSpec::default() };
        let command = Operation::Command(Command::Exec(spec));
        assert_eq!(routed(r#"{"command":["true"],"interactive":true}"#), Ok(command));
        for body in [
            "",
            r#"{"command":[]}"#,
            r#"{"command":[""]}"#,
            r#"{"command":["a\u0000b"]}"#,
            r#"{"command":["true"],"env":["=x"]}"#,
            r#"{"command":["true"],"env":["NAME"]}"#,
        ] {
            assert_eq!(routed(body), Err(400), "{body}");
        }
    }
}
