// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the control socket answers without the machine: status, statistics, events, logs, the end. Everything else it hands on.
//! Used by `main`'s event loop, and once more when the run is over.

use super::frame;
use super::log_streams::LogStreams;
use super::server::{ClientId, LogsQuery, Notice, Operation, Response, Server};
use crate::config::rfc3339;
use crate::state::counters::Counters;
use crate::state::lifecycle::Lifecycle;
use crate::state::logs::LogNotifier;
use crate::state::status::Status;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Lines of JSON.
const LINES: &str = "application/x-ndjson";
/// What a foreground run answers to those who want its output.
const NO_LOGS: &str = "it was started without -d: its output goes where its user wanted";
/// Between two lines of a stream of statistics.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How long clients may take at the end for the output that is left, and how long of that they may take nothing.
const LAST_TIME: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What `GET /v1/stats` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Name of the run.
    pub(crate) id: String,
    /// When the counters were read.
    #[serde(with = "rfc3339")]
    pub(crate) time: SystemTime,
    /// vCPUs.
    pub(crate) cpus: u8,
    /// Memory of the guest.
    pub(crate) memory_bytes: u64,
    /// What the run has used.
    pub(crate) counters: Counters,
}

impl Stats {
    /// Of the moment that `status` describes.
    pub(super) fn of(status: &Status) -> Self {
        Self {
            id: status.id.clone(),
            time: SystemTime::now(),
            cpus: status.cpus,
            memory_bytes: status.memory_bytes,
            counters: status.counters.clone(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    /// The transport, for operations that end in an upgrade.
    pub(crate) server: Server,
    waiting: Vec<ClientId>,
    event_streams: Vec<ClientId>,
    stats_streams: Vec<ClientId>,
    next_stats: Option<Instant>,
    /// Of a detached run.
    logs: Option<LogStreams>,
}

impl ControlSocket {
    /// Listens in `entry`, where there are logs if there is a bell for them.
    ///
    /// # Errors
    /// The host refused.
    pub(crate) fn listen(entry: &Path, bell: Option<Arc<LogNotifier>>) -> io::Result<Self> {
        Ok(Self {
            server: Server::listen(entry)?,
            waiting: Vec::new(),
            event_streams: Vec::new(),
            stats_streams: Vec::new(),
            next_stats: None,
            logs: bell.map(|bell| LogStreams::new(entry, bell)),
        })
    }

    /// Does what can be done without waiting; returns what is left for the machine, where each [`Notice::Call`] is owed an
    /// answer.
    pub(crate) fn serve(&mut self, lifecycle: &mut Lifecycle, counters: impl Fn() -> Counters) -> Vec<Notice> {
        let now = Instant::now();
        let mut others = Vec::new();
        for notice in self.server.serve(now) {
            match notice {
                Notice::Call(client, Operation::Status) => {
                    lifecycle.count(counters());
                    self.server.answer(client, &Response::json(lifecycle.status()));
                }
                Notice::Call(client, Operation::Stats { stream: false }) => {
                    lifecycle.count(counters());
                    self.server.answer(client, &Response::json(&Stats::of(lifecycle.status())));
                }
                Notice::Call(client, Operation::Stats { stream: true }) => {
                    self.server.begin_stream(client, LINES);
                    self.stats_streams.push(client);
                    self.next_stats = Some(now);
                }
                Notice::Call(client, Operation::Events) => {
                    self.server.begin_stream(client, LINES);
                    self.server.push(client, lifecycle.status().to_line().as_bytes());
                    self.event_streams.push(client);
                }
                Notice::Call(client, Operation::Logs(wanted)) => self.begin_logs(client, wanted),
                Notice::Call(client, Operation::Wait) => self.waiting.push(client),
                Notice::Gone(client) => {
                    self.forget(client);
                    others.push(Notice::Gone(client));
                }
                other => others.push(other),
            }
        }
        self.push_stats(now, lifecycle, counters);
        self.serve_logs();
        others
    }

    fn forget(&mut self, client: ClientId) {
        for list in [&mut self.waiting, &mut self.event_streams, &mut self.stats_streams] {
            list.retain(|other| *other != client);
        }
        if let Some(logs) = &mut self.logs {
            logs.remove(client);
        }
    }

    fn begin_logs(&mut self, client: ClientId, wanted: LogsQuery) {
        match self.logs.as_mut().map(|logs| logs.open(client, wanted)) {
            Some(Ok(())) => self.server.begin_stream(client, frame::CONTENT_TYPE),
            refused => self.server.answer(client, &no_logs(refused.and_then(Result::err))),
        }
    }

    /// Upgrades a client that gets the output of a detached workload from now on, or refuses it.
    pub(crate) fn attach(&mut self, client: ClientId) -> bool {
        match self.logs.as_mut().map(|logs| logs.attach(client)) {
            Some(Ok(())) => {
                self.server.upgrade(client, frame::CONTENT_TYPE);
                true
            }
            refused => {
                self.server.answer(client, &no_logs(refused.and_then(Result::err)));
                false
            }
        }
    }

    /// Ends the connection of such a client.
    pub(crate) fn detach(&mut self, client: ClientId) {
        self.forget(client);
        self.server.close(client);
    }

    fn serve_logs(&mut self) {
        if let Some(logs) = &mut self.logs {
            logs.serve(&mut self.server, None);
        }
    }

    /// Readable when there may be something new in the logs that a client waits for.
    #[must_use]
    pub(crate) fn bell(&self) -> Option<&LogNotifier> {
        self.logs.as_ref().map(LogStreams::bell)
    }

    fn push_stats(&mut self, now: Instant, lifecycle: &mut Lifecycle, counters: impl Fn() -> Counters) {
        if self.stats_streams.is_empty() {
            self.next_stats = None;
        }
        if self.next_stats.is_none_or(|next| next > now) {
            return;
        }
        self.next_stats = Some(now + STATS_INTERVAL);
        lifecycle.count(counters());
        let line = Response::json(&Stats::of(lifecycle.status())).body;
        self.stats_streams.iter().for_each(|client| self.server.push(*client, &line));
    }

    /// From `now` until [`serve`](Self::serve) has something to do by itself; none without clients.
    #[must_use]
    pub(crate) fn until_next(&self, now: Instant) -> Option<Duration> {
        let stats = self.next_stats.map(|next| next.saturating_duration_since(now));
        let logs = self.logs.as_ref().filter(|logs| logs.is_ready(&self.server)).map(|_| Duration::ZERO);
        self.server.until_next(now).into_iter().chain(stats).chain(logs).min()
    }

    /// Tells those who listen that `status` is new.
    pub(crate) fn publish(&mut self, status: &Status) {
        let line = if self.event_streams.is_empty() { String::new() } else { status.to_line() };
        self.event_streams.iter().for_each(|client| self.server.push(*client, line.as_bytes()));
    }

    /// The run is over, and `status` is its last: everybody gets what he waits for. A client that does not take it at once
    /// does not get it, because the process ends now; only the output of a detached workload may take a moment.
    pub(crate) fn finish(mut self, status: &Status) {
        self.publish(status);
        for client in std::mem::take(&mut self.waiting) {
            self.server.answer(client, &Response::json(status));
        }
        // Those who asked a moment ago, too.
        self.answer_last(status);
        for client in self.event_streams.iter().chain(&self.stats_streams) {
            self.server.end_stream(*client);
        }
        let deadline = Instant::now() + LAST_TIME;
        while let Some(logs) = self.logs.as_mut().filter(|logs| !logs.is_empty()) {
            logs.serve(&mut self.server, status.end.as_ref());
            let is_ready = logs.is_ready(&self.server);
            self.answer_last(status);
            let left = deadline.saturating_duration_since(Instant::now()).min(LAST_PAUSE);
            if !is_ready && self.has_readers() && !self.server.wait(left) {
                return;
            }
        }
    }

    fn has_readers(&self) -> bool {
        self.logs.as_ref().is_some_and(|logs| !logs.is_empty())
    }

    /// Does what clients ask for when there is nothing more to be done.
    fn answer_last(&mut self, status: &Status) {
        for notice in self.server.serve(Instant::now()) {
            match notice {
                Notice::Call(client, Operation::Status | Operation::Wait | Operation::Stop(_)) => {
                    self.server.answer(client, &Response::json(status));
                }
                Notice::Call(client, _) => self.server.answer(client, &Response::refusal(409, "the run is over")),
                Notice::Gone(client) => self.forget(client),
                _ => {}
            }
        }
    }
}

/// Why there is nothing to read.
fn no_logs(error: Option<io::Error>) -> Response {
    match error {
        None => Response::refusal(409, NO_LOGS),
        Some(error) => Response::refusal(500, &format!("the logs cannot be read: {error}")),
    }
}

impl AsRawFd for ControlSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.server.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "control_socket_tests.rs"]
mod tests;
