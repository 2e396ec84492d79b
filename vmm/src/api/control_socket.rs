// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control socket of a run: it answers every [`Query`] from the state of the run, and passes
//! what concerns the machine on. Used by `main`'s event loop, and once more after the end of the
//! machine.

use super::log_streams::LogStreams;
use super::server::{Channel, ClientEvent, ClientId, Command, LogsQuery, Query, Response, Server};
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

/// How long a command waits for the workload. PID 1 gives the start of the workload as long.
pub(crate) const HOLD_LIMIT: Duration = Duration::from_secs(120);
/// Commands at one time, so that half of the clients can do something else.
const MAX_HELD: usize = 16;
/// Between two lines of a stream of statistics.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How long clients may take for the rest of the output after the end of the machine.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long none of them may take anything.
const DRAIN_STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The answer to `GET /v1/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) id: String,
    /// When the counters were read.
    #[serde(with = "rfc3339")]
    pub(crate) time: SystemTime,
    /// Number of vCPUs.
    pub(crate) cpus: u8,
    /// Memory of the guest.
    pub(crate) memory_bytes: u64,
    pub(crate) counters: Counters,
}

impl Stats {
    /// The counters in `status`, which were just read.
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

#[derive(Debug)]
pub(crate) struct ControlSocket {
    /// For answers to commands, and for duplex channels.
    pub(crate) server: Server,
    waiting: Vec<ClientId>,
    event_streams: Vec<ClientId>,
    stats_streams: Vec<ClientId>,
    next_stats: Option<Instant>,
    held: HeldCommands,
    /// Of a detached run.
    logs: Option<LogStreams>,
}

impl ControlSocket {
    /// Listens in `entry` of the run directory.
    ///
    /// # Errors
    /// The host refuses the socket.
    pub(crate) fn listen(entry: &Path) -> io::Result<Self> {
        Ok(Self {
            server: Server::listen(entry)?,
            waiting: Vec::new(),
            event_streams: Vec::new(),
            stats_streams: Vec::new(),
            next_stats: None,
            held: HeldCommands::default(),
            logs: None,
        })
    }

    /// From now on there are logs in `entry`, whose writers use `notifier`.
    pub(crate) fn serve_logs(&mut self, entry: &Path, notifier: Arc<LogNotifier>) {
        self.logs = Some(LogStreams::new(entry, notifier));
    }

    /// Keeps a command until [`release`](Self::release), or until it has waited too long.
    pub(crate) fn hold(&mut self, client: ClientId, command: Command) {
        if !self.held.add(client, command, Instant::now()) {
            let error = format!("too many clients wait for the workload: the limit is {MAX_HELD}");
            self.server.respond(client, &Response::error(503, &error));
        }
    }

    /// The commands that were kept and are `wanted` now. An answer is owed to each.
    pub(crate) fn release(&mut self, wanted: impl FnMut(&Command) -> bool) -> Vec<(ClientId, Command)> {
        self.held.take(wanted)
    }

    /// Does what is possible without waiting, and returns what concerns the machine. An answer is
    /// owed to each [`Command`].
    pub(crate) fn serve(
        &mut self,
        lifecycle: &mut Lifecycle,
        counters: impl Fn() -> Counters,
    ) -> Vec<(ClientId, ClientEvent)> {
        let now = Instant::now();
        let served = self.server.serve(now);
        for (client, query) in served.queries {
            match query {
                Query::Status => {
                    lifecycle.set_counters(counters());
                    self.server.respond(client, &Response::json(lifecycle.status()));
                }
                Query::Stats { stream: false } => {
                    lifecycle.set_counters(counters());
                    self.server.respond(client, &Response::json(&Stats::of(lifecycle.status())));
                }
                Query::Stats { stream: true } => {
                    self.server.open(client, Channel::Lines);
                    self.stats_streams.push(client);
                    self.next_stats = Some(now);
                }
                Query::Events => {
                    self.server.open(client, Channel::Lines);
                    self.server.send(client, lifecycle.status().to_line().as_bytes());
                    self.event_streams.push(client);
                }
                Query::Logs(query) => self.open_logs(client, query),
                Query::Wait => self.waiting.push(client),
            }
        }
        self.forget_gone(&served.events);
        for client in self.held.take_expired(now) {
            let error = format!("the workload did not start within {} s", HOLD_LIMIT.as_secs());
            self.server.respond(client, &Response::error(409, &error));
        }
        self.send_stats(now, lifecycle, counters);
        if let Some(logs) = &mut self.logs {
            logs.serve(&mut self.server, None);
        }
        served.events
    }

    fn forget_gone(&mut self, events: &[(ClientId, ClientEvent)]) {
        for (client, _) in events.iter().filter(|(_, event)| *event == ClientEvent::Gone) {
            for list in [&mut self.waiting, &mut self.event_streams, &mut self.stats_streams] {
                list.retain(|other| other != client);
            }
            self.held.remove(*client);
            if let Some(logs) = &mut self.logs {
                logs.remove(*client);
            }
        }
    }

    fn open_logs(&mut self, client: ClientId, query: LogsQuery) {
        let opened = self.logs.as_mut().map(|logs| logs.open(client, query));
        self.open_output(client, Channel::Frames, opened);
    }

    /// Opens a channel that gets the output of a detached workload from now on. Returns whether
    /// there is one; otherwise the client got an error response.
    pub(crate) fn attach(&mut self, client: ClientId) -> bool {
        let opened = self.logs.as_mut().map(|logs| logs.attach(client));
        self.open_output(client, Channel::Duplex, opened)
    }

    fn open_output(&mut self, client: ClientId, channel: Channel, opened: Option<io::Result<()>>) -> bool {
        let error = match opened {
            Some(Ok(())) => {
                self.server.open(client, channel);
                return true;
            }
            Some(Err(error)) => Response::error(500, &format!("cannot read the logs: {error}")),
            None => {
                let what = if channel == Channel::Duplex { "cannot attach" } else { "no logs" };
                Response::error(409, &format!("{what}: the machine was started without -d"))
            }
        };
        self.server.respond(client, &error);
        false
    }

    /// Readable when the logs may have grown and a client waits for that.
    #[must_use]
    pub(crate) fn log_notifier(&self) -> Option<&LogNotifier> {
        self.logs.as_ref().map(LogStreams::notifier)
    }

    fn send_stats(&mut self, now: Instant, lifecycle: &mut Lifecycle, counters: impl Fn() -> Counters) {
        if self.stats_streams.is_empty() {
            self.next_stats = None;
        }
        if self.next_stats.is_none_or(|next| next > now) {
            return;
        }
        self.next_stats = Some(now + STATS_INTERVAL);
        lifecycle.set_counters(counters());
        let line = Response::json(&Stats::of(lifecycle.status())).body;
        self.stats_streams.iter().for_each(|client| self.server.send(*client, &line));
    }

    /// From `now` until [`serve`](Self::serve) must be called even without an event of a client.
    /// `None` if that is never, as without clients.
    #[must_use]
    pub(crate) fn until_next(&self, now: Instant) -> Option<Duration> {
        let stats = self.next_stats.map(|next| next.saturating_duration_since(now));
        let logs = self.logs.as_ref().filter(|logs| logs.is_ready(&self.server)).map(|_| Duration::ZERO);
        let held = self.held.until_next(now);
        self.server.until_next(now).into_iter().chain(stats).chain(held).chain(logs).min()
    }

    /// Sends a changed status to the clients of `GET /v1/events`.
    pub(crate) fn publish(&mut self, status: &Status) {
        let line = if self.event_streams.is_empty() { String::new() } else { status.to_line() };
        self.event_streams.iter().for_each(|client| self.server.send(*client, line.as_bytes()));
    }

    /// The machine has ended, and `status` is the last: clients get what they wait for. What a
    /// client does not take at once is lost, because the process ends now. Only the output of a
    /// detached workload may take up to [`DRAIN_TIMEOUT`].
    pub(crate) fn finish(mut self, status: &Status) {
        self.publish(status);
        for client in std::mem::take(&mut self.waiting) {
            self.server.respond(client, &Response::json(status));
        }
        for (client, _) in self.held.take(|_| true) {
            self.server.respond(client, &Response::error(409, "the machine ended before its workload ran"));
        }
        // Requests that came a moment ago, too.
        self.serve_last(status);
        for client in self.event_streams.iter().chain(&self.stats_streams) {
            self.server.close(*client);
        }
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while let Some(logs) = self.logs.as_mut().filter(|logs| !logs.is_empty()) {
            logs.serve(&mut self.server, status.end.as_ref());
            let is_ready = logs.is_ready(&self.server);
            self.serve_last(status);
            let left = deadline.saturating_duration_since(Instant::now()).min(DRAIN_STALL_TIMEOUT);
            if !is_ready && self.has_log_clients() && !self.server.wait(left) {
                return;
            }
        }
    }

    fn has_log_clients(&self) -> bool {
        self.logs.as_ref().is_some_and(|logs| !logs.is_empty())
    }

    /// Answers requests after the end of the machine.
    fn serve_last(&mut self, status: &Status) {
        let served = self.server.serve(Instant::now());
        let ended = || Response::error(409, "the machine has ended");
        for (client, query) in served.queries {
            let response = match query {
                Query::Status | Query::Wait => Response::json(status),
                Query::Stats { .. } | Query::Events | Query::Logs(_) => ended(),
            };
            self.server.respond(client, &response);
        }
        for (client, event) in &served.events {
            match event {
                ClientEvent::Command(Command::Stop(_)) => self.server.respond(*client, &Response::json(status)),
                ClientEvent::Command(_) => self.server.respond(*client, &ended()),
                _ => {}
            }
        }
        self.forget_gone(&served.events);
    }
}

/// Commands that came before the workload runs and wait for it, bounded in number and in time. A request has a bounded size,
/// and its client is not read meanwhile.
#[derive(Debug, Default)]
struct HeldCommands(Vec<Held>);

#[derive(Debug)]
struct Held {
    client: ClientId,
    command: Command,
    deadline: Instant,
}

impl HeldCommands {
    /// Adds the command of `client`. Returns false if there are [`MAX_HELD`].
    #[must_use]
    fn add(&mut self, client: ClientId, command: Command, now: Instant) -> bool {
        let has_room = self.0.len() < MAX_HELD;
        if has_room {
            self.0.push(Held { client, command, deadline: now + HOLD_LIMIT });
        }
        has_room
    }

    /// The client is gone.
    fn remove(&mut self, client: ClientId) {
        self.0.retain(|held| held.client != client);
    }

    /// Takes those that are `wanted`, in the order in which they came.
    fn take(&mut self, mut wanted: impl FnMut(&Command) -> bool) -> Vec<(ClientId, Command)> {
        let taken = self.0.extract_if(.., |held| wanted(&held.command));
        taken.map(|held| (held.client, held.command)).collect()
    }

    /// Takes the clients whose time is over at `now`.
    fn take_expired(&mut self, now: Instant) -> Vec<ClientId> {
        self.0.extract_if(.., |held| held.deadline <= now).map(|held| held.client).collect()
    }

    /// From `now` until the time of one is over.
    fn until_next(&self, now: Instant) -> Option<Duration> {
        Some(self.0.iter().map(|held| held.deadline).min()?.saturating_duration_since(now))
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
