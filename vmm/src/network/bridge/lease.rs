// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The leases of a network namespace: a file for each machine, locked as long as its process lives. A lock on the directory
//! excludes other starts, so that no two machines have the same address.
//!
//! A file is complete and locked before it has its name. Readers take no lock but for the moment in which they test whether the
//! machine lives, and that one is shared, so that they do not disturb one another.

use super::subnet::Subnet;
use crate::host::bounded_read;
use crate::host::random::random_id;
use crate::network::state_directory::{create_state_directory, lock_directory, network_namespace, state_directory};
use crate::state::published_port::PublishedPort;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The size of one file.
pub(super) const MAX_LEASE_BYTES: usize = 64 << 10;
/// The first address is the bridge's, the last one the broadcast address.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=254;

/// The place of one machine on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lease {
    pub(super) bridge: String,
    pub(super) subnet: Subnet,
    /// Number of the address in the subnet.
    pub(super) host: u8,
    /// Name of the machine.
    pub(super) machine: String,
    /// By which others find it, besides its name.
    pub(super) aliases: Vec<String>,
    pub(super) mac: [u8; 6],
    pub(super) ports: Vec<PublishedPort>,
    /// Port of the gateway's address, of UDP and TCP, at which its process answers its name queries. `None` until it runs.
    pub(super) name_server: Option<u16>,
}

impl Lease {
    /// IPv4 and IPv6.
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        self.subnet.addresses(self.host)
    }

    /// The machine's interface on the host. Shorter than `IFNAMSIZ`.
    pub(super) fn tap(&self) -> String {
        format!("coracle{}-{}", self.subnet.number(), self.host)
    }

    /// Whether other machines find it by `name`, which is in lower case.
    pub(super) fn has_name(&self, name: &str) -> bool {
        std::iter::once(&self.machine).chain(&self.aliases).any(|own| own.eq_ignore_ascii_case(name))
    }

    fn text(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self).expect("the lease is plain data");
        let error =
            || Error::new(ErrorKind::InvalidInput, "too many published ports and aliases: the maximum is 64 KiB");
        if text.len() > MAX_LEASE_BYTES { Err(error()) } else { Ok(text) }
    }
}

/// The first free address of `subnet`.
pub(super) fn free_host(subnet: Subnet, live: &[Lease]) -> Option<u8> {
    HOSTS.into_iter().find(|host| live.iter().all(|lease| (lease.subnet, lease.host) != (subnet, *host)))
}

/// A machine's own lease, which lives as long as this.
#[derive(Debug)]
pub(super) struct OwnLease {
    lease: Lease,
    path: PathBuf,
    /// Holds the lock until it is closed.
    file: File,
}

impl OwnLease {
    pub(super) fn get(&self) -> &Lease {
        &self.lease
    }
}

/// The leases of this network namespace, for one process at a time.
#[derive(Debug)]
pub(super) struct Leases {
    directory: LeaseDirectory,
    _lock: File,
}

impl Leases {
    /// Waits until no other process has them, for a limited time.
    pub(super) fn lock() -> Result<Self> {
        create_state_directory()?;
        Self::lock_existing()?.ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Returns `None` if no process has left anything.
    pub(super) fn lock_existing() -> Result<Option<Self>> {
        Ok(lock_directory()?.map(Self::with_lock))
    }

    /// `lock` is that of the state directory.
    pub(super) fn with_lock(lock: File) -> Self {
        Self { directory: LeaseDirectory::of_this_namespace(), _lock: lock }
    }

    pub(super) fn live(&self) -> Vec<Lease> {
        self.directory.live()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.directory.files().iter().any(|path| !is_live(path))
    }

    /// Removes the files of processes that have ended.
    pub(super) fn remove_ended(&self) {
        for path in self.directory.files().into_iter().filter(|path| !is_live(path)) {
            let _ = fs::remove_file(path);
        }
    }

    pub(super) fn take(&self, lease: Lease) -> Result<OwnLease> {
        let path = self.directory.path(&format!("{}-{}", lease.subnet.number(), lease.host));
        let file = self.write(&lease, &path)?;
        Ok(OwnLease { lease, path, file })
    }

    /// Writes the lease with the port of the machine's name server.
    pub(super) fn set_name_server(&self, own: &mut OwnLease, port: u16) -> Result<()> {
        own.lease.name_server = Some(port);
        own.file = self.write(&own.lease, &own.path)?;
        Ok(())
    }

    fn write(&self, lease: &Lease, path: &Path) -> Result<File> {
        let text = lease.text()?;
        let new = self.directory.path(&format!("new-{}", random_id().map_err(Error::other)?));
        let written = || {
            let mut file = File::options().create_new(true).write(true).open(&new)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            file.write_all(&text)?;
            fs::rename(&new, path)?;
            Ok(file)
        };
        written().inspect_err(|_: &Error| drop(fs::remove_file(&new)))
    }
}

/// The files of a network namespace. Reading them needs no lock.
#[derive(Clone, Debug)]
pub(super) struct LeaseDirectory {
    prefix: String,
}

impl LeaseDirectory {
    pub(super) fn of_this_namespace() -> Self {
        Self { prefix: format!("bridge-{}-", network_namespace()) }
    }

    pub(super) fn live(&self) -> Vec<Lease> {
        self.files().iter().filter(|path| is_live(path)).filter_map(|path| read(path)).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        state_directory().join(format!("{}{name}", self.prefix))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(state_directory()).into_iter().flatten().flatten();
        let is_ours = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&self.prefix))
        };
        entries.map(|entry| entry.path()).filter(is_ours).collect()
    }
}

fn is_live(path: &Path) -> bool {
    // The test's own lock ends with its file.
    let locked = |file: File| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    File::open(path).is_ok_and(locked)
}

fn read(path: &Path) -> Option<Lease> {
    let bytes = bounded_read::read_file(path, MAX_LEASE_BYTES as u64).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::publish::Protocol;
    use std::net::Ipv4Addr;

    /// A lease of the machine `machine` on the bridge `lan`.
    pub(in crate::network::bridge) fn lease(machine: &str, subnet: u16, host: u8) -> Lease {
        Lease {
            bridge: "lan".to_owned(),
            subnet: Subnet::numbered(subnet).unwrap(),
            host,
            machine: machine.to_owned(),
            aliases: vec!["Cache.lan".to_owned()],
            mac: [2, 0, 0, 0, 0, 1],
            ports: Vec::new(),
            name_server: None,
        }
    }

    #[test]
    fn free_host_is_the_first_one_until_the_subnet_is_full() {
        let mut live = vec![lease("a", 0, 2), lease("b", 0, 4), lease("c", 1, 3)];
        let [zero, one] = [0, 1].map(|number| Subnet::numbered(number).unwrap());
        assert_eq!((free_host(zero, &live), free_host(one, &live)), (Some(3), Some(2)));
        live.extend((5..=254).chain([3]).map(|host| lease("d", 0, host)));
        assert_eq!((free_host(zero, &live), free_host(one, &live)), (None, Some(2)));
    }

    #[test]
    fn lease_has_names_without_regard_to_case() {
        let lease = lease("DB", 0, 2);
        assert!(lease.has_name("db") && lease.has_name("cache.lan"));
        assert!(!lease.has_name("cache") && !lease.has_name(""));
    }

    #[test]
    fn lease_of_too_many_ports_is_rejected() {
        let port = |port| PublishedPort {
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port: port,
            port,
            protocol: Protocol::Tcp,
        };
        let with = |count| Lease { ports: (1..=count).map(port).collect(), ..lease("a", 0, 2) };
        assert!(with(500).text().is_ok());
        assert!(with(2000).text().unwrap_err().to_string().contains("64 KiB"));
    }

    #[test]
    fn tap_names_fit_an_interface() {
        assert_eq!(lease("a", 0, 2).tap(), "coracle0-2");
        let last = Subnet::all().last().unwrap();
        assert!(lease("a", last.number(), 254).tap().len() < libc::IFNAMSIZ);
    }
}
