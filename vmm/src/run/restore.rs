// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine from a snapshot: the request that it is started with, and what it has of its own. The snapshot is checked before any of it
//! is used.

use super::failure::{FailsAs as _, Failure};
use crate::config::name::MachineName;
use crate::config::network::{Ipv4Setting, Network};
use crate::config::request::Request;
use crate::config::text_form::Given;
use crate::host::directories::Directories;
use crate::host::random::random_bytes;
use crate::host::scratch;
use crate::host::system_error::Cannot as _;
use crate::machine::snapshot::{OpenSnapshot, Restore, SnapshotDocument, SnapshotPlace};
use crate::machine::supervisor::Restored;
use crate::state::end::EndReason;
use crate::state::kept::KeptImage;
use crate::state::snapshots::Snapshots;
use devices::virtio::block::BlockConfig;
use guest_protocol::identity::{ENTROPY_BYTES, Identity};
use guest_protocol::run_spec::RunSpec;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("no snapshot has the name {0}, and there is no such directory")]
    Missing(PathBuf),
    #[error("--{0} is that of the machine that was saved")]
    Option(String),
    #[error("{0}: the memory size is impossible")]
    Memory(PathBuf),
    #[error("{directory}: the root disk of {image} is not the one of the snapshot: {here}, not {saved}")]
    RootDisk { directory: PathBuf, image: String, here: String, saved: String },
    #[error("--network ip=dhcp: a restored machine gets its addresses at once")]
    Dhcp,
    #[error("{0}: the snapshot has no scratch disk, and the machine has one, or the reverse")]
    Scratch(PathBuf),
}

/// The options of `run` that a copy can have, in a document.
const OF_A_COPY: [&str; 18] = [
    "cidfile",
    "console",
    "detach",
    "events",
    "hostname",
    "id",
    "log-level",
    "log-size",
    "mac-address",
    "name",
    "network",
    "publish",
    "publish-all",
    "result",
    "rm",
    "run-dir",
    "timeout",
    "timings",
];

/// The directory of the snapshot that `name` means: of one in the store, or the path itself.
pub(crate) fn find(name: &Path) -> Result<PathBuf, Failure> {
    let as_name = name.to_str().and_then(|name| name.parse::<MachineName>().ok());
    let stored = |name: &MachineName| Snapshots::of(&Directories::from_environment()).ok()?.path(name);
    match as_name.as_ref().and_then(stored) {
        Some(directory) => Ok(directory),
        None if as_name.is_some() && name.symlink_metadata().is_err() => {
            Err(Failure::new(EndReason::SnapshotError, RestoreError::Missing(name.to_owned())))
        }
        None => std::path::absolute(name).cannot(format!("find {}", name.display())).fails_as(EndReason::HostError),
    }
}

/// Checks that `options` has nothing that is the saved machine's.
pub(crate) fn check_options(options: &Request) -> Result<(), Failure> {
    let document = options.to_document().fails_as(EndReason::ConfigError)?;
    let document: Map<String, Value> = serde_json::from_str(&document).fails_as(EndReason::InternalError)?;
    let is_of_a_copy = |key: &str| key == "version" || OF_A_COPY.contains(&key);
    match document.keys().find(|key| !is_of_a_copy(key)) {
        Some(key) => Err(Failure::new(EndReason::ConfigError, RestoreError::Option(key.clone()))),
        None => Ok(()),
    }
}

/// The request of a machine that is restored from the snapshot in `directory`: the one that the machine was started with, without what
/// belongs to that machine alone, and with the `options` of a copy.
pub(crate) fn request(document: &SnapshotDocument, directory: &Path, options: Request) -> Result<Request, Failure> {
    let text = serde_json::to_vec(&document.request).fails_as(EndReason::SnapshotError)?;
    let mut request = Request::parse(&text, directory).fails_as(EndReason::SnapshotError)?;
    let memory = document.memory.bytes.to_string().parse();
    let memory = memory.map_err(|_| RestoreError::Memory(directory.to_owned())).fails_as(EndReason::SnapshotError)?;
    request.network.iter_mut().for_each(without_mac);
    let network = if options.network.is_empty() { request.network } else { options.network };
    if network.iter().any(asks_for_addresses) {
        return Err(Failure::new(EndReason::ConfigError, RestoreError::Dhcp));
    }
    Ok(Request {
        memory: Some(memory),
        network,
        mac_address: options.mac_address,
        publish: options.publish,
        publish_all: options.publish_all,
        hostname: options.hostname.or(request.hostname),
        name: options.name,
        id: options.id,
        rm: options.rm,
        detach: options.detach,
        log_level: options.log_level.or(request.log_level),
        log_size: options.log_size.or(request.log_size),
        timeout: options.timeout.or(request.timeout),
        timings: options.timings,
        run_dir: options.run_dir,
        cidfile: options.cidfile,
        result: options.result,
        events: options.events,
        console: options.console,
        env_file: Vec::new(),
        context: None,
        profile: None,
        ..request
    })
}

fn asks_for_addresses(network: &Given<Network>) -> bool {
    let dhcp = Some(Ipv4Setting::Dhcp);
    matches!(network.get(), Some(Network::Interface(interface)) if interface.ipv4 == dhcp)
}

/// A network of the saved machine without its hardware address: each machine has one of its own.
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

    /// The image of the machine that was saved.
    pub(super) fn image(&self) -> &KeptImage {
        &self.snapshot.document.image
    }

    /// Whether `here`, the digest of the root disk, is that of the machine that was saved.
    pub(super) fn check_root_disk(&self, request: &Request, here: Option<&str>) -> Result<(), Failure> {
        let saved = &self.image().root_disk_digest;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::snapshot::testing;

    #[test]
    fn copy_takes_options_of_its_own_only() {
        let check =
            |text: &str| check_options(&serde_json::from_str(text).unwrap()).map_err(|failure| failure.message());
        check(r#"{"name": "a", "detach": true, "publish": ["80"], "network": ["none"], "hostname": "h", "rm": true}"#)
            .unwrap();
        check("{}").unwrap();
        assert_eq!(check(r#"{"memory": "1g"}"#).unwrap_err(), "--memory is that of the machine that was saved");
        assert!(check(r#"{"env": ["A=b"]}"#).unwrap_err().starts_with("--env "));
    }

    #[test]
    fn mac_address_is_that_of_the_options_or_a_new_one() {
        let saved = r#"{"version": 1, "image": "a", "network": ["tap=a,mac=02:00:00:00:00:01,ip=10.0.0.2/24"]}"#;
        let mut document = SnapshotDocument { request: serde_json::from_str(saved).unwrap(), ..testing::document() };
        document.memory.bytes = 64 << 20;
        let copy = |options: &str| {
            let request = request(&document, Path::new("s"), serde_json::from_str(options).unwrap()).unwrap();
            let networks: Vec<_> = request.network.iter().map(ToString::to_string).collect();
            (networks.join(" "), request.mac_address.map(|mac| mac.to_string()))
        };
        assert_eq!(copy("{}"), ("tap=a,ip=10.0.0.2/24".to_owned(), None));
        let own = "tap=b,mac=02:00:00:00:00:02";
        assert_eq!(copy(&format!(r#"{{"network": ["{own}"]}}"#)), (own.to_owned(), None));
        let (network, mac) = copy(r#"{"mac-address": "02:00:00:00:00:03"}"#);
        assert_eq!((&*network, mac.as_deref()), ("tap=a,ip=10.0.0.2/24", Some("02:00:00:00:00:03")));
        let dhcp = serde_json::from_str(r#"{"network": ["tap=b,ip=dhcp"]}"#).unwrap();
        assert!(request(&document, Path::new("s"), dhcp).unwrap_err().message().contains("ip=dhcp"));
    }
}
