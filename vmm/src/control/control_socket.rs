// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the control socket answers without the machine: status, statistics, events, the end. Everything else it hands on.
//! Used by `main`'s event loop, and once more when the run is over.

use super::counters::Counters;
use super::lifecycle::Lifecycle;
use super::rfc3339;
use super::server::{ClientId, Notice, Operation, Response, Server};
use super::status::Status;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Between two lines of a stream of statistics.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// What `GET /v1/stats` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Name of the run.
    pub id: String,
    /// When the counters were read.
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    /// vCPUs.
    pub cpus: u8,
    /// Memory of the guest.
    pub memory_bytes: u64,
    /// What the run has used.
    pub counters: Counters,
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
pub struct ControlSocket {
    /// The transport, for operations that end in an upgrade.
    pub server: Server,
    waiting: Vec<ClientId>,
    event_streams: Vec<ClientId>,
    stats_streams: Vec<ClientId>,
    next_stats: Option<Instant>,
}

impl ControlSocket {
    /// Listens in `entry`.
    ///
    /// # Errors
    /// The host refused.
    pub fn listen(entry: &Path) -> io::Result<Self> {
        Ok(Self {
            server: Server::listen(entry)?,
            waiting: Vec::new(),
            event_streams: Vec::new(),
            stats_streams: Vec::new(),
            next_stats: None,
        })
    }

    /// Does what can be done without waiting; returns what is left for the machine, where each [`Notice::Call`] is owed an
    /// answer.
    pub fn serve(&mut self, lifecycle: &mut Lifecycle, counters: impl Fn() -> Counters) -> Vec<Notice> {
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
                    self.server.begin_stream(client);
                    self.stats_streams.push(client);
                    self.next_stats = Some(now);
                }
                Notice::Call(client, Operation::Events) => {
                    self.server.begin_stream(client);
                    self.server.push(client, lifecycle.status().to_line().as_bytes());
                    self.event_streams.push(client);
                }
                Notice::Call(client, Operation::Wait) => self.waiting.push(client),
                Notice::Gone(client) => {
                    for list in [&mut self.waiting, &mut self.event_streams, &mut self.stats_streams] {
                        list.retain(|other| *other != client);
                    }
                    others.push(Notice::Gone(client));
                }
                other => others.push(other),
            }
        }
        self.push_stats(now, lifecycle, counters);
        others
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
    pub fn until_next(&self, now: Instant) -> Option<Duration> {
        let stats = self.next_stats.map(|next| next.saturating_duration_since(now));
        self.server.until_next(now).into_iter().chain(stats).min()
    }

    /// Tells those who listen that `status` is new.
    pub fn publish(&mut self, status: &Status) {
        let line = if self.event_streams.is_empty() { String::new() } else { status.to_line() };
        self.event_streams.iter().for_each(|client| self.server.push(*client, line.as_bytes()));
    }

    /// The run is over, and `status` is its last: everybody gets what he waits for. A client that does not take it at once
    /// does not get it, because the process ends now.
    pub fn finish(mut self, status: &Status) {
        self.publish(status);
        for client in std::mem::take(&mut self.waiting) {
            self.server.answer(client, &Response::json(status));
        }
        // Those who asked a moment ago, too.
        for notice in self.server.serve(Instant::now()) {
            match notice {
                Notice::Call(client, Operation::Status | Operation::Wait | Operation::Stop(_)) => {
                    self.server.answer(client, &Response::json(status));
                }
                Notice::Call(client, _) => self.server.answer(client, &Response::refusal(409, "the run is over")),
                _ => {}
            }
        }
        for client in self.event_streams.iter().chain(&self.stats_streams) {
            self.server.end_stream(*client);
        }
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
