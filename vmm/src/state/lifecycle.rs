// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Publishes the status: each change becomes the new `status.json`, a line of `events.jsonl` and a line of `--events`. Used by
//! `main`. A full disk costs documents, never the machine.

use super::counters::Counters;
use super::end::End;
use super::event_outlet::EventOutlet;
use super::published_port::PublishedPort;
use super::rotated_file::RotatedFile;
use super::status::{Link, State, Status};
use crate::host::atomic_write::atomic_write;
use guest_protocol::health::HealthReport;
use guest_protocol::run_spec::RunSpec;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// In the run directory, as [`EVENTS_FILE`].
pub(crate) const STATUS_FILE: &str = "status.json";
pub(crate) const EVENTS_FILE: &str = "events.jsonl";
/// Bytes of `events.jsonl`: at least the last five hundred events.
const MAX_EVENTS_BYTES: u64 = 1 << 20;
/// Of an image's exposed ports.
const MAX_PORTS: usize = 64;

#[derive(Debug)]
pub(crate) struct Lifecycle {
    status: Status,
    path: PathBuf,
    events: Option<RotatedFile>,
    outlet: Option<EventOutlet>,
    warned: bool,
}

impl Lifecycle {
    /// Starts in `run_directory`, with `status` as the first event.
    #[must_use]
    pub(crate) fn begin(run_directory: &Path, status: Status, outlet: Option<EventOutlet>) -> Self {
        let (events, refused) = match RotatedFile::create(&run_directory.join(EVENTS_FILE), MAX_EVENTS_BYTES) {
            Ok(events) => (Some(events), None),
            Err(error) => (None, Some(error)),
        };
        let mut lifecycle = Self { status, path: run_directory.join(STATUS_FILE), events, outlet, warned: false };
        if let Some(error) = refused {
            lifecycle.warn(EVENTS_FILE, &error);
        }
        lifecycle.change(|_| {});
        lifecycle
    }

    #[must_use]
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Changes the status and publishes it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status);
        self.status.sequence += 1;
        let line = self.status.to_line();
        if let Err(error) = atomic_write(&self.path, line.as_bytes()) {
            self.warn(STATUS_FILE, &error);
        }
        if let Some(Err(error)) = self.events.as_mut().map(|events| events.append(line.as_bytes())) {
            self.warn(EVENTS_FILE, &error);
        }
        if let Some(Err(error)) = self.outlet.as_mut().map(|outlet| outlet.push(line.as_bytes())) {
            // The reader of a pipe has closed it.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.warn("the events of --events", &error);
            }
            self.outlet = None;
        }
    }

    /// Sets what runs, once image and request are merged. Published with the next change. `exposed_ports` are the image's.
    pub(crate) fn set_workload(&mut self, spec: &RunSpec, exposed_ports: &[String], published: Vec<PublishedPort>) {
        self.status.command.clone_from(&spec.arguments);
        self.status.ports = ports(exposed_ports);
        self.status.published = published;
        self.status.health = spec.health.as_ref().map(|_| HealthReport::default());
        let addresses = spec.interfaces.iter().flat_map(|interface| &interface.addresses);
        self.status.addresses = addresses.map(|own| own.address.to_string()).collect();
    }

    /// Sets the addresses of the interfaces, which the guest has reported. Published at once, but not before the machine runs.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpAddr]) {
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        if self.status.state == State::Starting {
            self.status.addresses = addresses;
        } else if self.status.addresses != addresses {
            self.change(|status| status.addresses = addresses);
        }
    }

    /// Sets the links of the interfaces. Published at once if one has changed, but not before the machine runs.
    pub(crate) fn set_links(&mut self, links: Vec<Link>) {
        let is_known = self.status.links.len() == links.len();
        if is_known && self.status.links != links {
            self.change(|status| status.links = links);
        } else {
            self.status.links = links;
        }
    }

    pub(crate) fn enter(&mut self, state: State, counters: Counters) {
        self.change(|status| {
            status.counters = counters.not_before(&status.counters);
            status.state = state;
            status.since = SystemTime::now();
        });
    }

    /// The workload is ready. Before it runs, this is published together with [`State::Running`].
    pub(crate) fn set_ready(&mut self) {
        self.status.ready = true;
        if self.status.state != State::Starting {
            self.change(|_| {});
        }
    }

    pub(crate) fn set_health(&mut self, report: HealthReport) {
        self.change(|status| status.health = Some(report));
    }

    /// Published with the next change; a query of the status has them at once.
    pub(crate) fn set_counters(&mut self, counters: Counters) {
        self.status.counters = counters.not_before(&self.status.counters);
    }

    /// The machine has ended.
    pub(crate) fn end(&mut self, end: &End, counters: Counters) {
        self.status.end = Some(end.clone());
        self.status.ready = false;
        self.enter(if end.is_failure() { State::Failed } else { State::Exited }, counters);
    }

    /// Logs only the first error: the next ones have the same cause.
    fn warn(&mut self, what: &str, error: &io::Error) {
        if !self.warned {
            let directory = self.path.parent().unwrap_or(&self.path).display();
            log::warn!("cannot write {what} in {directory}: {error}");
        }
        self.warned = true;
    }
}

/// `exposed` by number, each with its protocol, and bounded: every event repeats them.
fn ports(exposed: &[String]) -> Vec<String> {
    let with_protocol = |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
    let mut ports: Vec<String> = exposed.iter().map(with_protocol).collect();
    let number = |port: &String| port.split(['/', '-']).next().and_then(|number| number.parse::<u16>().ok());
    ports.sort_by_key(|port| (number(port), port.clone()));
    ports.truncate(MAX_PORTS);
    ports
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
