// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file `state`: a line with the version and the digest of what follows, then one JSON object. It is untrusted input, bounded in
//! size. Pure.

use crate::config::rfc3339;
use crate::host::hex::hex;
use crate::machine::supervisor::SupervisorState;
use crate::state::kept::KeptImage;
use devices::legacy::SerialState;
use devices::virtio::mmio::TransportState;
use guest_protocol::protocol;
use kvm::{SavedVcpu, SavedVm};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::time::SystemTime;

/// The version is increased with every change of the document.
const SNAPSHOT: Sealed = Sealed { what: "snapshot", version: 2 };
/// A machine with the most vCPUs and devices has less than a quarter.
pub(crate) const MAX_STATE_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("not the state of a {0}")]
    NoState(&'static str),
    #[error("version {found} of the format; this coracle reads version {read}")]
    Version { found: String, read: u32 },
    #[error("the state is truncated or was altered: its digest differs")]
    Digest,
    #[error("invalid state")]
    Content(#[source] serde_json::Error),
    #[error("made by coracle {0}; this is {own}", own = env!("CARGO_PKG_VERSION"))]
    Coracle(String),
    #[error("version {0} of the protocol with the guest's init; this coracle has version {own}", own = protocol::VERSION)]
    Protocol(u32),
}

/// Version of the format of the state.
pub(crate) const VERSION: u32 = SNAPSHOT.version;

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
    /// What the root disk was made from, which is not part of the snapshot.
    pub(crate) image: KeptImage,
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
        SNAPSHOT.seal(self)
    }

    /// Parses the contents of the file, which another version of coracle may have made.
    ///
    /// # Errors
    /// It is not a whole state of this version of the format.
    pub(crate) fn parse_any(bytes: &[u8]) -> Result<Self, DocumentError> {
        SNAPSHOT.unseal(bytes)
    }

    /// Parses the contents of the file. What depends on the host, and the other files, are checked later.
    ///
    /// # Errors
    /// It is not a whole state of this version.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = Self::parse_any(bytes)?;
        if document.coracle != env!("CARGO_PKG_VERSION") {
            return Err(DocumentError::Coracle(document.coracle));
        }
        if document.protocol != protocol::VERSION {
            return Err(DocumentError::Protocol(document.protocol));
        }
        Ok(document)
    }
}

/// A kind of document whose first line has its version, and size and digest of the JSON object that follows.
#[derive(Clone, Copy, Debug)]
pub(in crate::machine) struct Sealed {
    /// What the document is the state of.
    pub(in crate::machine) what: &'static str,
    pub(in crate::machine) version: u32,
}

impl Sealed {
    pub(in crate::machine) fn seal(self, document: &impl Serialize) -> Vec<u8> {
        let body = serde_json::to_vec(document).expect("keys are strings, and numbers are finite");
        [self.header(&body).as_bytes(), &body].concat()
    }

    /// # Errors
    /// It is not whole, or of another version.
    pub(in crate::machine) fn unseal<D: DeserializeOwned>(self, bytes: &[u8]) -> Result<D, DocumentError> {
        let no_state = || DocumentError::NoState(self.what);
        let end = bytes.iter().take(256).position(|byte| *byte == b'\n').ok_or_else(no_state)?;
        let (line, body) = bytes.split_at(end + 1);
        let mut words = std::str::from_utf8(line).map_err(|_| no_state())?.split(' ');
        if words.next().and_then(|name| name.strip_prefix("coracle-")) != Some(self.what) {
            return Err(no_state());
        }
        match words.next() {
            Some(version) if version == self.version.to_string() => {}
            version => {
                let found = version.unwrap_or_default().trim_end().to_owned();
                return Err(DocumentError::Version { found, read: self.version });
            }
        }
        if line != self.header(body).as_bytes() {
            return Err(DocumentError::Digest);
        }
        serde_json::from_slice(body).map_err(DocumentError::Content)
    }

    /// The first line of a document with this body.
    fn header(self, body: &[u8]) -> String {
        let digest = hex(&Sha256::digest(body));
        format!("coracle-{} {} {} sha256:{digest}\n", self.what, self.version, body.len())
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
