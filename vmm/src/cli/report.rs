// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is left of a run: the result document, the table of `--timings`, the line on stderr, the exit status.

use super::failure::{self, FailsAs as _, Failure};
use crate::config::destination::Destination;
use crate::config::request::Request;
use crate::control::counters::{Counters, DiskCounts, NetCounts};
use crate::control::end::{End, EndReason};
use crate::control::result::{Digests, Host, ResultDestination, ResultDocument};
use crate::control::run_dir::RunDirectory;
use crate::control::stages::Stages;
use crate::control::timings;
use crate::host::descriptor;
use devices::virtio::block::DiskCounters;
use devices::virtio::net::NetCounters;
use std::io::Write as _;
use std::sync::atomic::Ordering;

/// Collects what is known while the run goes on.
#[derive(Debug)]
pub(super) struct Report {
    id: String,
    timings: bool,
    destinations: Vec<ResultDestination>,
    pub(super) stages: Stages,
    pub(super) run_directory: Option<RunDirectory>,
    pub(super) digests: Digests,
    pub(super) host: Host,
    pub(super) counters: Counters,
    /// Completions in the order of their number, for people.
    pub(super) completions: Vec<(String, u64)>,
}

impl Report {
    /// Fails if the result's descriptor is not open for writing.
    pub(super) fn new(request: &Request, id: &str, stages: Stages) -> Result<Self, Failure> {
        let destination = match &request.result {
            None => None,
            Some(Destination::File(path)) => Some(ResultDestination::File(path.clone())),
            Some(Destination::Descriptor(number)) => {
                let descriptor = descriptor::inherited_for_writing(*number)
                    .map_err(ResultOptionError)
                    .fails_as(EndReason::ConfigError)?;
                Some(ResultDestination::Descriptor(descriptor, *number))
            }
        };
        Ok(Self {
            id: id.to_owned(),
            timings: request.timings,
            destinations: destination.into_iter().collect(),
            stages,
            run_directory: None,
            digests: Digests::default(),
            host: Host::default(),
            counters: Counters::default(),
            completions: Vec::new(),
        })
    }

    /// Tells the person and writes the document; takes away what is not to stay; returns the exit status.
    pub(super) fn finish(mut self, end: End) -> u8 {
        let status = end.status;
        if end.needs_telling() {
            failure::say(end.summary());
        }
        let mut document = ResultDocument::new(&self.id, end, self.stages.clone());
        document.counters = self.counters;
        document.digests = self.digests;
        self.host.completions = self.completions.iter().cloned().collect();
        document.host = self.host;
        if let Some(entry) = &self.run_directory {
            self.destinations.push(ResultDestination::File(entry.path().join("result.json")));
        }
        // The run has its end, whether that can be written down or not.
        if let Err(error) = document.write(&self.destinations) {
            failure::say(&Failure::new(EndReason::HostError, error).line());
        }
        if self.timings {
            let table = timings::table(&self.stages, &self.completions);
            let _ = std::io::stderr().write_all(table.as_bytes());
        }
        status
    }
}

/// `--result` names a descriptor that is none.
#[derive(Debug, thiserror::Error)]
#[error("--result")]
struct ResultOptionError(#[source] descriptor::DescriptorError);

/// The counters of a disk as they are now.
pub(super) fn disk_counts(counters: &DiskCounters) -> DiskCounts {
    DiskCounts {
        read_bytes: counters.read_bytes.load(Ordering::Relaxed),
        write_bytes: counters.write_bytes.load(Ordering::Relaxed),
        read_requests: counters.read_requests.load(Ordering::Relaxed),
        write_requests: counters.write_requests.load(Ordering::Relaxed),
        flushes: counters.flushes.load(Ordering::Relaxed),
        errors: counters.errors.load(Ordering::Relaxed),
    }
}

/// The counters of a network device as they are now.
pub(super) fn net_counts(counters: &NetCounters) -> NetCounts {
    NetCounts {
        rx_bytes: counters.rx_bytes.load(Ordering::Relaxed),
        tx_bytes: counters.tx_bytes.load(Ordering::Relaxed),
        rx_packets: counters.rx_packets.load(Ordering::Relaxed),
        tx_packets: counters.tx_packets.load(Ordering::Relaxed),
        rx_dropped: counters.rx_dropped.load(Ordering::Relaxed),
        tx_dropped: counters.tx_dropped.load(Ordering::Relaxed),
    }
}
