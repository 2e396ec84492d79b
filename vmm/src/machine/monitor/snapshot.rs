// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots on request of a client: the processes of the guest stop, the vCPUs pause, the state is written to the client's files, and
//! all run on. Part of `main`'s event loop, which waits while the files are written.

use super::Monitor;
use super::clients::conflict;
use crate::api::server::{ClientId, Descriptors, Response};
use crate::machine::snapshot::{DESCRIPTORS, SaveError, SnapshotFiles};
use crate::machine::supervisor::{Event, Supervisor};
use crate::state::status::State;
use kvm::ExitReason;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// A snapshot for which PID 1 stops the processes.
#[derive(Debug)]
pub(super) struct PendingSnapshot {
    client: ClientId,
    files: SnapshotFiles,
    /// The vCPUs run only for this.
    was_paused: bool,
}

/// The answer to `POST /v1/snapshot`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotReport {
    /// How long the vCPUs did not run.
    pub(crate) paused_us: u64,
}

impl Monitor<'_> {
    /// Begins a snapshot. The client gets its answer once it is written.
    pub(super) fn on_snapshot(&mut self, client: ClientId, descriptors: &Descriptors) {
        if let Err(response) = self.begin_snapshot(client, descriptors) {
            self.respond(client, &response);
        }
    }

    fn begin_snapshot(&mut self, client: ClientId, descriptors: &Descriptors) -> Result<(), Response> {
        let state = self.context.lifecycle.status().state;
        if !matches!(state, State::Running | State::Paused) {
            return Err(conflict(state, "be saved"));
        }
        if self.snapshot.is_some() {
            return Err(Response::error(409, "another snapshot of this machine is being taken"));
        }
        self.machine.check_savable(&self.context.source).map_err(|error| Response::error(409, &error.to_string()))?;
        let files = snapshot_files(descriptors)?;
        let Some(actions) = self.supervisor.freeze() else { return Err(conflict(state, "be saved now")) };
        self.act(actions);
        self.control_port.hold();
        let was_paused = state == State::Paused;
        if was_paused {
            // PID 1 must run to stop the processes.
            self.threads.resume();
        }
        self.snapshot = Some(PendingSnapshot { client, files, was_paused });
        Ok(())
    }

    /// The processes of the guest have stopped, or `outcome` says why not.
    pub(super) fn on_frozen(&mut self, outcome: Result<(), String>) {
        let Some(PendingSnapshot { client, files, was_paused }) = self.snapshot.take() else { return };
        let start = Instant::now();
        let is_frozen = outcome.is_ok();
        let saved = match outcome {
            Err(detail) => Err(Response::error(409, &format!("the processes cannot be stopped: {detail}"))),
            Ok(()) => self.save_machine(files),
        };
        // A machine that was paused gets it when it is resumed.
        self.control_port.release(if is_frozen { Supervisor::thaw() } else { Vec::new() });
        if !was_paused {
            self.threads.resume();
        } else if !self.threads.pause() {
            self.enter(State::Running);
        }
        let paused_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let response = saved.map_or_else(|error| error, |()| Response::json(&SnapshotReport { paused_us }));
        self.respond(client, &response);
    }

    fn save_machine(&mut self, files: SnapshotFiles) -> Result<(), Response> {
        if !self.threads.pause() {
            return Err(Response::error(503, &SaveError::Hangs.to_string()));
        }
        let state = self.supervisor.save();
        self.machine.save(&self.threads, state, &self.context.source, files).map_err(|error| {
            let line = crate::host::system_error::chain(&error);
            if matches!(error, SaveError::Broken(_)) {
                self.feed(Event::MachineStopped(ExitReason::InternalError(line.clone())));
            }
            Response::error(500, &line)
        })
    }
}

/// The client's files, which are regular and empty, so that a write to them does not wait for a reader.
fn snapshot_files(descriptors: &Descriptors) -> Result<SnapshotFiles, Response> {
    let owned = |descriptor: &OwnedFd| descriptor.try_clone().map(File::from);
    let files: Vec<File> = descriptors.iter().filter_map(|descriptor| owned(descriptor).ok()).collect();
    let is_usable = |file: &File| file.metadata().is_ok_and(|data| data.is_file() && data.len() == 0);
    match <[File; DESCRIPTORS]>::try_from(files) {
        Ok(files) if files.iter().all(is_usable) => {
            let [state, memory, scratch] = files;
            Ok(SnapshotFiles { state, memory, scratch })
        }
        _ => Err(Response::error(400, "the request carries no three empty files (SCM_RIGHTS): state, memory, scratch")),
    }
}
