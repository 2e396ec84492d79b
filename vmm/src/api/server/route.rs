// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which request is which operation: the table of routes, and the parameters of each. Pure. `vmm/openapi.json` describes the
//! same for others, and a test holds the two together.

use super::head::Request;
use super::logs_query::LogsQuery;
use super::response::Response;
use crate::config::signal::SignalNumber;
use guest_protocol::exec::ExecSpec;
use guest_protocol::run_spec::WindowSize;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The status now, with fresh counters.
    Status,
    /// A polite end.
    Stop(Stop),
    /// A signal to the workload; KILL cuts the power.
    Kill(Kill),
    /// The vCPUs held.
    Pause,
    /// And released.
    Resume,
    /// The end, when it comes.
    Wait,
    /// The counters; again and again with `stream`.
    Stats {
        /// Every second until the client leaves.
        stream: bool,
    },
    /// Each change from now on, the present status first.
    Events,
    /// What the workload has written.
    Logs(LogsQuery),
    /// A process beside the workload, on an upgraded connection.
    Exec(ExecSpec),
    /// The streams of a detached workload, on an upgraded connection.
    Attach,
}

/// Body of `POST /v1/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stop {
    /// Seconds until power is cut, instead of `--stop-timeout`.
    pub(crate) timeout: Option<u32>,
    /// Instead of the image's StopSignal.
    pub(crate) signal: Option<SignalNumber>,
}

/// Body of `POST /v1/kill`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kill {
    /// KILL if none is given.
    pub(crate) signal: Option<SignalNumber>,
}

/// Body of `POST /v1/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Exec {
    /// What to execute, and its arguments.
    pub(crate) command: Vec<String>,
    /// `NAME=VALUE` strings on top of the workload's.
    pub(crate) env: Vec<String>,
    /// Instead of the workload's.
    pub(crate) workdir: String,
    /// Instead of the workload's.
    pub(crate) user: String,
    /// Input will come.
    pub(crate) interactive: bool,
    /// A terminal of this size.
    pub(crate) terminal: Option<WindowSize>,
    /// Nobody waits for it.
    pub(crate) detach: bool,
}

impl Exec {
    /// What PID 1 is told.
    fn spec(self) -> Result<ExecSpec, Response> {
        let Self { command, env, workdir, user, interactive, terminal, detach } = self;
        let texts = command.iter().chain(&env).chain([&workdir, &user]);
        if command.first().is_none_or(String::is_empty) {
            return Err(Response::refusal(400, "the command is empty"));
        }
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(Response::refusal(400, "a NUL byte cannot be part of a command or its surroundings"));
        }
        if let Some(variable) = env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
            return Err(Response::refusal(400, &format!("env: `{variable}` is not NAME=VALUE")));
        }
        Ok(ExecSpec {
            arguments: command,
            environment: env,
            working_directory: workdir,
            user,
            terminal: terminal.filter(|_| !detach),
            stdin: interactive && !detach,
            detached: detach,
        })
    }
}

/// Body of `POST /v1/attach`: there is nothing to choose.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Attach {}

/// One line of the table.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Makes the operation of query and body.
    operation: fn(&Request) -> Result<Operation, Response>,
}

/// Everything that can be asked for.
pub(super) const ROUTES: [Route; 11] = [
    Route { method: "GET", path: "/v1/status", operation: |_| Ok(Operation::Status) },
    Route { method: "POST", path: "/v1/stop", operation: |request| body(request).map(Operation::Stop) },
    Route { method: "POST", path: "/v1/kill", operation: |request| body(request).map(Operation::Kill) },
    Route { method: "POST", path: "/v1/pause", operation: |_| Ok(Operation::Pause) },
    Route { method: "POST", path: "/v1/resume", operation: |_| Ok(Operation::Resume) },
    Route { method: "GET", path: "/v1/wait", operation: |_| Ok(Operation::Wait) },
    Route { method: "GET", path: "/v1/stats", operation: stats },
    Route { method: "GET", path: "/v1/events", operation: |_| Ok(Operation::Events) },
    Route {
        method: "GET",
        path: "/v1/logs",
        operation: |request| LogsQuery::parse(&request.query).map(Operation::Logs),
    },
    Route { method: "POST", path: "/v1/exec", operation: exec },
    Route { method: "POST", path: "/v1/attach", operation: attach },
];

/// The operation that `request` is.
pub(super) fn operation(request: &Request) -> Result<Operation, Response> {
    let mut here = ROUTES.iter().filter(|route| route.path == request.path).peekable();
    if here.peek().is_none() {
        return Err(Response::refusal(404, &format!("there is no {}", request.path)));
    }
    match here.find(|route| route.method == request.method) {
        Some(route) => (route.operation)(request),
        None => Err(Response::refusal(405, &format!("{} cannot be used with {}", request.method, request.path))),
    }
}

fn stats(request: &Request) -> Result<Operation, Response> {
    match &*request.query {
        "" | "stream=false" => Ok(Operation::Stats { stream: false }),
        "stream" | "stream=true" => Ok(Operation::Stats { stream: true }),
        other => Err(Response::refusal(400, &format!("the query is `stream=true` or `stream=false`, not `{other}`"))),
    }
}

fn exec(request: &Request) -> Result<Operation, Response> {
    require_upgrade(request)?;
    body::<Exec>(request)?.spec().map(Operation::Exec)
}

fn attach(request: &Request) -> Result<Operation, Response> {
    require_upgrade(request)?;
    body::<Attach>(request).map(|_| Operation::Attach)
}

fn require_upgrade(request: &Request) -> Result<(), Response> {
    match request.form.upgrade {
        true => Ok(()),
        false => Err(Response::refusal(426, "the request has to say `Connection: Upgrade` and `Upgrade: tcp`")),
    }
}

/// The body as JSON; an empty one leaves everything as it is by default.
fn body<T: DeserializeOwned + Default>(request: &Request) -> Result<T, Response> {
    match request.body.trim_ascii() {
        b"" => Ok(T::default()),
        bytes => serde_json::from_slice(bytes).map_err(|error| Response::refusal(400, &format!("the body: {error}"))),
    }
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod openapi_tests;

#[cfg(test)]
mod tests {
    use super::super::response::Form;
    use super::*;

    fn ask(method: &str, target: &str, body: &str) -> Result<Operation, u16> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            body: body.into(),
            form: Form { keep_alive: true, chunked: true, upgrade: false },
        };
        operation(&request).map_err(|response| response.status)
    }

    #[test]
    fn parameters_come_as_query_or_body_and_may_be_missing() {
        assert_eq!(ask("GET", "/v1/stats?stream=true", ""), Ok(Operation::Stats { stream: true }));
        assert_eq!(ask("POST", "/v1/stop", ""), Ok(Operation::Stop(Stop::default())));
        let stop = Stop { timeout: Some(3), signal: Some("USR1".parse().unwrap()) };
        assert_eq!(ask("POST", "/v1/stop", r#"{"timeout":3,"signal":"USR1"}"#), Ok(Operation::Stop(stop)));
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for (method, target, body, status) in [
            ("GET", "/", "", 404),
            ("GET", "/v2/status", "", 404),
            ("GET", "/v1/status/", "", 404),
            ("POST", "/v1/status", "", 405),
            ("GET", "/v1/stats?stream=perhaps", "", 400),
            ("POST", "/v1/stop", "{", 400),
            ("POST", "/v1/stop", r#"{"grace":3}"#, 400),
            ("POST", "/v1/kill", r#"{"signal":"NOSUCH"}"#, 400),
            ("POST", "/v1/exec", r#"{"command":["true"]}"#, 426),
            ("POST", "/v1/attach", "", 426),
            ("GET", "/v1/logs?follow=perhaps", "", 400),
        ] {
            assert_eq!(ask(method, target, body), Err(status), "{method} {target} {body}");
        }
    }

    #[test]
    fn a_process_that_cannot_be_is_refused() {
        let ask = |body: &str| {
            let form = Form { keep_alive: true, chunked: true, upgrade: true };
            let (method, path) = ("POST".into(), "/v1/exec".into());
            let request = Request { method, path, query: String::new(), body: body.into(), form };
            operation(&request).map_err(|response| response.status)
        };
        let spec = ExecSpec { arguments: vec!["true".into()], stdin: true, ..ExecSpec::default() };
        assert_eq!(ask(r#"{"command":["true"],"interactive":true}"#), Ok(Operation::Exec(spec)));
        for body in [
            "",
            r#"{"command":[]}"#,
            r#"{"command":[""]}"#,
            r#"{"command":["a\u0000b"]}"#,
            r#"{"command":["true"],"env":["=x"]}"#,
            r#"{"command":["true"],"env":["NAME"]}"#,
        ] {
            assert_eq!(ask(body), Err(400), "{body}");
        }
    }
}
