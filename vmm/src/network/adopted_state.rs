// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was taken off an adopted interface, in memory and in a file. Restoring goes on at an error: the interface may be gone, or
//! another process may have configured it.

use super::state_directory::{create_state_directory, network_namespace, state_directory};
use crate::host::atomic_write::atomic_write;
use crate::host::netlink::{Address, Link, Netlink, Route};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Settings of each interface for IPv6.
pub(super) const INTERFACE_SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// Addresses and routes as the kernel's messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptedState {
    mac: Option<[u8; 6]>,
    addresses: Vec<Vec<u8>>,
    /// Those that need no gateway first.
    routes: Vec<Vec<u8>>,
    addr_gen_mode: Option<u8>,
    accept_ra: Option<String>,
}

impl AdoptedState {
    pub(super) fn new(link: &Link, addresses: &[Address], routes: &[Route]) -> Self {
        // The kernel makes its own routes with the addresses.
        let mut own: Vec<&Route> = routes.iter().filter(|route| !route.is_kernels).collect();
        own.sort_by_key(|route| route.gateway.is_some());
        Self {
            mac: link.mac,
            addresses: addresses.iter().map(|address| address.message.clone()).collect(),
            routes: own.into_iter().map(|route| route.message.clone()).collect(),
            addr_gen_mode: link.addr_gen_mode,
            accept_ra: fs::read_to_string(accept_ra_path(&link.name)).ok().map(|text| text.trim().to_owned()),
        }
    }

    /// Whether it was taken off this interface, and not off an earlier one with the same number.
    pub(super) fn is_of(&self, link: &Link) -> bool {
        self.mac == link.mac
    }

    /// Puts everything back on the interface.
    pub(super) fn restore(&self, netlink: &mut Netlink, link: &Link) {
        let addresses = self.addresses.iter().map(|message| netlink.restore_address(message));
        let failed = addresses.filter_map(Result::err).next();
        let routes = self.routes.iter().map(|message| netlink.restore_route(message));
        let routes = routes.filter_map(Result::err).find(|error| error.kind() != std::io::ErrorKind::AlreadyExists);
        let mode = self.addr_gen_mode.map_or(Ok(()), |mode| netlink.set_addr_gen_mode(link.index, mode));
        if let Some(accept_ra) = &self.accept_ra {
            let _ = fs::write(accept_ra_path(&link.name), accept_ra);
        }
        // An interface that is gone needs nothing.
        let errors = failed.into_iter().chain(routes).chain(mode.err());
        if let Some(error) = errors.into_iter().find(|error| error.raw_os_error() != Some(libc::ENODEV)) {
            log::warn!("cannot put all addresses and routes back on {}: {error}", link.name);
        }
    }
}

/// The sysctl by which the kernel takes addresses from routers.
pub(super) fn accept_ra_path(name: &str) -> PathBuf {
    Path::new(INTERFACE_SETTINGS).join(name).join("accept_ra")
}

/// The file of one interface of this network namespace.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    index: u32,
}

impl StateFile {
    pub(super) fn of(index: u32) -> Self {
        let path = state_directory().join(format!("{}{index}.json", prefix()));
        Self { path, index }
    }

    pub(super) fn all() -> Vec<Self> {
        let prefix = prefix();
        let index_of = |name: &str| name.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok();
        let entries = fs::read_dir(state_directory()).into_iter().flatten().flatten();
        entries.filter_map(|entry| index_of(entry.file_name().to_str()?)).map(Self::of).collect()
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn read(&self) -> Option<AdoptedState> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    pub(super) fn write(&self, state: &AdoptedState) {
        let _ = create_state_directory();
        let text = serde_json::to_vec(state).expect("the state is plain data");
        if let Err(error) = atomic_write(&self.path, &text) {
            log::debug!("{}: {error}", self.path.display());
        }
    }

    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Begins the names of the files of this network namespace.
fn prefix() -> String {
    format!("adopted-{}-", network_namespace())
}
