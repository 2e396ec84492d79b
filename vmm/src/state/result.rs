// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The result document: one JSON object, written atomically by `main` just before the process ends.

use super::counters::Counters;
use super::end::End;
use super::stages::Stages;
use crate::config::rfc3339;
use crate::host::atomic_write::atomic_write;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

/// Increased when a reader of the old document would misunderstand the new one.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ResultDocument {
    version: u32,
    /// Name of the machine.
    pub(crate) id: String,
    pub(crate) end: End,
    #[serde(with = "rfc3339")]
    started: SystemTime,
    #[serde(with = "rfc3339")]
    ended: SystemTime,
    /// When each stage was reached.
    pub(crate) boot: Stages,
    pub(crate) counters: Counters,
    pub(crate) digests: Digests,
    pub(crate) host: Host,
    /// Layers of confinement and their state.
    pub(crate) sandbox: BTreeMap<String, String>,
}

/// `sha256:...`, where known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Digests {
    pub(crate) image: Option<String>,
    pub(crate) root_disk: Option<String>,
    pub(crate) kernel: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Host {
    /// Kind of KVM; none if the run failed earlier.
    pub(crate) kvm: Option<String>,
    /// Instructions that coracle completed for KVM, by mnemonic.
    pub(crate) completions: BTreeMap<String, u64>,
}

impl ResultDocument {
    /// The document of a machine that ends now. The caller sets counters, digests and host.
    #[must_use]
    pub(crate) fn new(id: &str, end: End, boot: Stages) -> Self {
        let ended = SystemTime::now();
        // From the monotonic clock: the wall clock may have been set during the run.
        let started = ended.checked_sub(boot.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            version: VERSION,
            id: id.to_owned(),
            end,
            started,
            ended,
            boot,
            counters: Counters::default(),
            digests: Digests::default(),
            host: Host::default(),
            sandbox: BTreeMap::new(),
        }
    }

    /// Writes it to all of `destinations`.
    ///
    /// # Errors
    /// The first error; the other destinations were tried, too.
    pub(crate) fn write(&self, destinations: &[ResultDestination]) -> Result<(), ResultError> {
        let mut text = serde_json::to_vec_pretty(self).expect("the document's keys are strings and its numbers finite");
        text.push(b'\n');
        let mut outcome = Ok(());
        for destination in destinations {
            outcome = outcome.and(destination.write(&text));
        }
        outcome
    }
}

#[derive(Debug)]
pub(crate) enum ResultDestination {
    /// A file, which is replaced atomically.
    File(PathBuf),
    /// A descriptor, with its number for messages.
    Descriptor(OwnedFd, i32),
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the result to {destination}")]
pub(crate) struct ResultError {
    destination: String,
    source: io::Error,
}

impl ResultDestination {
    fn write(&self, text: &[u8]) -> Result<(), ResultError> {
        let (outcome, destination) = match self {
            Self::File(path) => (atomic_write(path, text), path.display().to_string()),
            Self::Descriptor(descriptor, number) => (write_all(descriptor, text), format!("fd:{number}")),
        };
        outcome.map_err(|source| ResultError { destination, source })
    }
}

fn write_all(descriptor: &OwnedFd, text: &[u8]) -> io::Result<()> {
    File::from(descriptor.try_clone()?).write_all(text)
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
