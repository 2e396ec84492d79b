// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file `state`: a line with the version and the digest of what follows, then one JSON object. It is untrusted input, bounded in
//! size. Pure.

use crate::config::rfc3339;
use crate::host::hex::hex;
use crate::machine::supervisor::SupervisorState;
use devices::legacy::SerialState;
use devices::virtio::mmio::TransportState;
use guest_protocol::protocol;
use kvm::{SavedVcpu, SavedVm};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::time::SystemTime;

/// Increased with every change of the document.
const VERSION: u32 = 1;
const NAME: &str = "coracle-snapshot";
/// A machine with the most vCPUs and devices has less than a quarter.
pub(crate) const MAX_STATE_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("not the state of a snapshot")]
    NoState,
    #[error("version {0} of the format; this coracle reads version {VERSION}")]
    Version(String),
    #[error("the state is truncated or was altered: its digest differs")]
    Digest,
    #[error("invalid state")]
    Content(#[source] serde_json::Error),
    #[error("made by coracle {0}; this is {own}", own = env!("CARGO_PKG_VERSION"))]
    Coracle(String),
    #[error("version {0} of the protocol with the guest's init; this coracle has version {own}", own = protocol::VERSION)]
    Protocol(u32),
}

/// A snapshot: where it comes from, its other files, and the state of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotDocument {
    /// Version of the coracle that made it.
    pub(crate) coracle: String,
    /// Version of the protocol with PID 1, which is in the memory.
    pub(crate) protocol: u32,
    #[serde(with = "rfc3339")]
    pub(crate) created: SystemTime,
    /// Name of the machine.
    pub(crate) machine: String,
    /// What the machine was started with: a configuration document.
    pub(crate) request: Map<String, Value>,
    /// Where relative paths of the request begin.
    pub(crate) directory: PathBuf,
    /// Digest of the root disk, which is not part of the snapshot.
    pub(crate) root_disk: String,
    pub(crate) memory: Part,
    /// The scratch disk, if the machine has one.
    pub(crate) scratch: Option<Part>,
    pub(crate) state: SavedMachine,
}

/// A file beside `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) bytes: u64,
    /// See [`sparse_file::digest`](crate::host::sparse_file::digest). Empty until the file is complete.
    pub(crate) sha256: String,
}

/// The state of a machine besides its memory and disks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedMachine {
    pub(crate) vm: SavedVm,
    pub(crate) vcpus: Vec<SavedVcpu>,
    pub(crate) serial: SerialState,
    /// In the order in which the guest sees the devices.
    pub(crate) transports: Vec<TransportState>,
    pub(crate) supervisor: SupervisorState,
    pub(crate) streams: StreamCounts,
}

/// Bytes that went through the workload's streams since its start, which PID 1 counts, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamCounts {
    pub(crate) stdin: u64,
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

impl SnapshotDocument {
    /// The contents of the file.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("keys are strings, and numbers are finite");
        [header(&body).as_bytes(), &body].concat()
    }

    /// Parses the contents of the file. What depends on the host, and the other files, are checked later.
    ///
    /// # Errors
    /// It is not a whole state of this version.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let end = bytes.iter().take(256).position(|byte| *byte == b'\n').ok_or(DocumentError::NoState)?;
        let (line, body) = bytes.split_at(end + 1);
        let words = std::str::from_utf8(line).map_err(|_| DocumentError::NoState)?;
        let mut words = words.split(' ');
        if words.next() != Some(NAME) {
            return Err(DocumentError::NoState);
        }
        match words.next() {
            Some(version) if version == VERSION.to_string() => {}
            version => return Err(DocumentError::Version(version.unwrap_or_default().trim_end().to_owned())),
        }
        if line != header(body).as_bytes() {
            return Err(DocumentError::Digest);
        }
        let document: Self = serde_json::from_slice(body).map_err(DocumentError::Content)?;
        if document.coracle != env!("CARGO_PKG_VERSION") {
            return Err(DocumentError::Coracle(document.coracle));
        }
        if document.protocol != protocol::VERSION {
            return Err(DocumentError::Protocol(document.protocol));
        }
        Ok(document)
    }
}

/// The first line of a state with this body.
fn header(body: &[u8]) -> String {
    let digest = hex(&Sha256::digest(body));
    format!("{NAME} {VERSION} {} sha256:{digest}\n", body.len())
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
