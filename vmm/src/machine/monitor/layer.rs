// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies of the writable layer on request of a client: PID 1 freezes the file system of the scratch disk, the disk is copied to the
//! client's file, and PID 1 thaws it. Part of `main`'s event loop, which copies a part in each turn, so that a machine that is to end
//! and a client that is gone end the copy at once.

use super::Monitor;
use super::clients::conflict;
use crate::api::server::{ClientId, Descriptors, Response};
use crate::host::sparse_file::SparseCopy;
use crate::host::system_error::{Cannot as _, chain};
use crate::state::kept::KeptImage;
use crate::state::status::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Blocks of 64 KiB that are copied in one turn: some milliseconds.
const BLOCKS_PER_TURN: usize = 64;

/// A copy of the layer that was asked for.
#[derive(Debug)]
pub(super) struct PendingLayer {
    client: ClientId,
    file: File,
    /// The vCPUs do not run while the disk is copied.
    pauses: bool,
    /// Once the file system is frozen.
    copy: Option<SparseCopy>,
}

/// The answer to `POST /v1/layer`: what the layer belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerReport {
    /// A configuration document, with its version.
    pub(crate) request: Map<String, Value>,
    /// Where relative paths of the request begin.
    pub(crate) directory: PathBuf,
    pub(crate) image: KeptImage,
}

impl Monitor<'_> {
    /// Begins a copy. The client gets its answer once it is written.
    pub(super) fn on_layer(&mut self, client: ClientId, pauses: bool, descriptors: &Descriptors) {
        if let Err(response) = self.begin_layer(client, pauses, descriptors) {
            self.respond(client, &response);
        }
    }

    fn begin_layer(&mut self, client: ClientId, pauses: bool, descriptors: &Descriptors) -> Result<(), Response> {
        let state = self.context.lifecycle.status().state;
        if !matches!(state, State::Running | State::Paused) {
            return Err(conflict(state, "have its files read"));
        }
        let refused = |error: &str| Response::error(409, error);
        if self.context.source.image.is_none() {
            return Err(refused("a machine without an image has no layer (--rootfs)"));
        }
        if self.machine.savable.scratch.is_none() {
            return Err(refused("its writable layer is not on a disk (--scratch tmpfs or none, --read-only)"));
        }
        let file = layer_file(descriptors)?;
        let actions = self.supervisor.freeze_scratch();
        let actions = actions.ok_or_else(|| refused("its files are being written to the disk: try again"))?;
        self.act(actions);
        if state == State::Paused {
            // PID 1 must run to freeze the file system.
            self.threads.resume();
        }
        self.layer = Some(PendingLayer { client, file, pauses, copy: None });
        Ok(())
    }

    /// The file system is frozen, or `outcome` says why it is not.
    pub(super) fn on_scratch_frozen(&mut self, outcome: Result<(), String>) {
        let begun = outcome.map_err(|detail| format!("its files cannot be frozen: {detail}")).and_then(|()| {
            let (Some(layer), Some(disk)) = (&mut self.layer, &self.machine.savable.scratch) else { return Ok(()) };
            let size = disk.metadata().map(|metadata| metadata.len());
            let copy = size.and_then(|size| SparseCopy::begin(disk, &layer.file, size));
            layer.copy = Some(copy.cannot("copy the scratch disk").map_err(|error| chain(&error))?);
            Ok(())
        });
        if let Err(error) = begun {
            return self.finish_layer(Err(error));
        }
        let is_paused = self.context.lifecycle.status().state == State::Paused;
        let pauses = is_paused || self.layer.as_ref().is_some_and(|layer| layer.pauses);
        if pauses && !self.threads.pause() {
            self.finish_layer(Err("a vCPU waits for a device that hangs".to_owned()));
        }
    }

    /// Whether a part of a disk is to be copied in the next turn.
    pub(super) fn is_copying(&self) -> bool {
        self.layer.as_ref().is_some_and(|layer| layer.copy.is_some())
    }

    /// Whether the vCPUs are held until a copy is complete.
    pub(super) fn is_held_by_copy(&self) -> bool {
        self.layer.as_ref().is_some_and(|layer| layer.pauses)
    }

    /// Copies a part, if a copy is to be made.
    pub(super) fn copy_layer(&mut self) {
        let Some(PendingLayer { file, copy: Some(copy), .. }) = &mut self.layer else { return };
        let Some(disk) = &self.machine.savable.scratch else { return };
        match copy.step(disk, file, BLOCKS_PER_TURN).cannot("copy the scratch disk") {
            Ok(false) => {}
            Ok(true) => self.finish_layer(Ok(())),
            Err(error) => self.finish_layer(Err(chain(&error))),
        }
    }

    /// Gives up a copy that is being made.
    pub(super) fn abandon_layer(&mut self, why: &str) {
        if self.layer.is_some() {
            self.finish_layer(Err(why.to_owned()));
        }
    }

    /// Gives up the copy of a client that is gone.
    pub(super) fn on_layer_client_gone(&mut self, client: ClientId) {
        if self.layer.as_ref().is_some_and(|layer| layer.client == client) {
            self.finish_layer(Err("the client is gone".to_owned()));
        }
    }

    /// Lets the workload run on, and answers the client.
    fn finish_layer(&mut self, outcome: Result<(), String>) {
        let Some(PendingLayer { client, .. }) = self.layer.take() else { return };
        let actions = self.supervisor.thaw_scratch();
        // A machine that is paused gets it when it is resumed.
        self.act(actions);
        if self.context.lifecycle.status().state != State::Paused {
            self.threads.resume();
        } else if !self.threads.pause() {
            self.enter(State::Running);
        }
        let source = &self.context.source;
        let response = match (outcome, &source.image) {
            (Ok(()), Some(image)) => {
                let (request, directory) = (source.request.clone(), source.directory.clone());
                Response::json(&LayerReport { request, directory, image: image.clone() })
            }
            (Err(error), _) => Response::error(500, &error),
            (Ok(()), None) => return,
        };
        self.respond(client, &response);
    }
}

/// The client's file, which is regular and empty, so that a write to it does not wait for a reader.
fn layer_file(descriptors: &Descriptors) -> Result<File, Response> {
    let owned = |descriptor: &OwnedFd| descriptor.try_clone().map(File::from);
    let files: Vec<File> = descriptors.iter().filter_map(|descriptor| owned(descriptor).ok()).collect();
    match <[File; 1]>::try_from(files) {
        Ok([file]) if file.metadata().is_ok_and(|data| data.is_file() && data.len() == 0) => Ok(file),
        _ => Err(Response::error(400, "the request carries no empty file (SCM_RIGHTS) for the layer")),
    }
}
