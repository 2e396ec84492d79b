// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine from a snapshot: the request that it is started with, and what it has of its own. The snapshot is checked before any of it
//! is used.

use super::failure::{FailsAs as _, Failure};
use crate::config::name::MachineName;
use crate::config::network::Network;
use crate::config::publish::Publish;
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::host::directories::Directories;
use crate::host::random::random_bytes;
use crate::host::scratch;
use crate::machine::snapshot::{OpenSnapshot, Restore, SnapshotDocument, SnapshotPlace};
use crate::machine::supervisor::Restored;
use crate::state::end::EndReason;
use devices::virtio::block::BlockConfig;
use guest_protocol::identity::{ENTROPY_BYTES, Identity};
use guest_protocol::run_spec::RunSpec;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("{0}: the memory size is impossible")]
    Memory(PathBuf),
    #[error("{directory}: the root disk of {image} is not the one of the snapshot: {here}, not {saved}")]
    RootDisk { directory: PathBuf, image: String, here: String, saved: String },
    #[error("--network ip=dhcp: a restored machine gets its addresses at once")]
    Dhcp,
    #[error("{0}: the snapshot has no scratch disk, and the machine has one, or the reverse")]
    Scratch(PathBuf),
}

/// What a user gives in place of what the machine was started with.
#[derive(Debug, Default)]
pub(crate) struct RestoreOptions {
    pub(crate) name: Option<Given<MachineName>>,
    pub(crate) detach: bool,
    pub(crate) timings: bool,
    pub(crate) run_dir: Option<PathBuf>,
    /// Empty leaves the networks.
    pub(crate) network: Vec<Given<Network>>,
    pub(crate) publish: Vec<Publish>,
}

/// The request of a machine that is restored from the snapshot in `directory`: the one that the machine was started with, without what
/// belongs to that machine alone.
pub(crate) fn request(
    document: &SnapshotDocument,
    directory: &Path,
    options: RestoreOptions,
) -> Result<Request, Failure> {
    let text = serde_json::to_vec(&document.request).fails_as(EndReason::SnapshotError)?;
    let request = Request::parse(&text, directory).fails_as(EndReason::SnapshotError)?;
    let memory = document.memory.bytes.to_string().parse();
    let memory = memory.map_err(|_| RestoreError::Memory(directory.to_owned())).fails_as(EndReason::SnapshotError)?;
    let mut network = if options.network.is_empty() { request.network } else { options.network };
    network.iter_mut().for_each(without_mac);
    Ok(Request {
        memory: Some(memory),
        network,
        mac_address: None,
        publish: options.publish,
        publish_all: false,
        name: options.name,
        id: None,
        rm: false,
        detach: options.detach,
        timings: options.timings,
        run_dir: options.run_dir,
        env_file: Vec::new(),
        context: None,
        cidfile: None,
        result: None,
        events: None,
        profile: None,
        console: None,
        ..request
    })
}

/// A network with a hardware address that was given: each machine has one of its own.
fn without_mac(network: &mut Given<Network>) {
    if let Some(Network::Interface(interface)) = network.get_mut() {
        interface.mac = None;
    }
}

/// A snapshot from which a machine is being prepared.
#[derive(Debug)]
pub(super) struct Restoring {
    place: SnapshotPlace,
    snapshot: OpenSnapshot,
}

impl Restoring {
    /// Opens and checks the snapshot.
    pub(super) fn open(place: &SnapshotPlace) -> Result<Self, Failure> {
        let snapshot = OpenSnapshot::open(place).fails_as(EndReason::SnapshotError)?;
        Ok(Self { place: place.clone(), snapshot })
    }

    /// Whether `here`, the digest of the root disk, is that of the machine that was saved.
    pub(super) fn check_root_disk(&self, request: &Request, here: Option<&str>) -> Result<(), Failure> {
        let saved = &self.snapshot.document.root_disk;
        if here == Some(saved) {
            return Ok(());
        }
        let error = RestoreError::RootDisk {
            directory: self.place.shown().to_owned(),
            image: request.image.clone().unwrap_or_default(),
            here: here.unwrap_or("none").to_owned(),
            saved: saved.clone(),
        };
        Err(Failure::new(EndReason::SnapshotError, error))
    }

    /// A copy of the scratch disk, which ends with the process.
    pub(super) fn scratch(&self, directories: &Directories, serial: &str) -> Result<BlockConfig, Failure> {
        let Some(file) = &self.snapshot.scratch else {
            return Err(Failure::new(EndReason::SnapshotError, RestoreError::Scratch(self.place.shown().to_owned())));
        };
        scratch::copy_of(file, directories, serial).fails_as(EndReason::HostError)
    }

    /// The parts for the machine and for its supervisor. `spec` is of the new machine.
    pub(super) fn into_parts(self, spec: &RunSpec) -> Result<(Restore, Restored), Failure> {
        if spec.interfaces.iter().any(|interface| interface.dhcp.is_some()) {
            return Err(Failure::new(EndReason::ConfigError, RestoreError::Dhcp));
        }
        let mut state = self.snapshot.document.state;
        let identity = Identity {
            entropy: random_bytes::<ENTROPY_BYTES>().fails_as(EndReason::HostError)?.to_vec(),
            realtime_ns: 0,
            hostname: spec.hostname.clone(),
            interfaces: spec.interfaces.clone(),
            resolver: spec.resolver.clone(),
            extra_hosts: spec.extra_hosts.clone(),
        };
        let supervisor = std::mem::take(&mut state.supervisor);
        let restore = Restore { state, memory: self.snapshot.memory, has_other_devices: false };
        Ok((restore, Restored { identity, state: supervisor }))
    }
}
