// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network adopt[=IFNAME]`: an interface of the network namespace that coracle runs in becomes the machine's. Its frames pass
//! through a packet socket; its addresses and routes are the guest's.
//!
//! [`adopt`] reads, and changes nothing: `check` calls it, too. [`AdoptGuard::take`] takes the addresses and routes off the host's
//! side as the last step before the machine, so that the host's stack answers nothing. They are put back when the machine has
//! ended. A process that is killed leaves them in a file, by which [`restore_left`] puts them back at the next start in the
//! namespace.
//!
//! One machine at a time: a Unix socket in the namespace, whose name is the interface's number, is the lock. It ends with the
//! process.

use super::adopted_state::{AdoptedState, StateFile, accept_ra_path};
use super::guest_view::guest_view;
use super::state_directory::lock_directory;
use crate::host::netlink::{self, ADDR_GEN_MODE_NONE, Link, Netlink};
use crate::host::packet_socket;
use crate::host::system_error::{Cannot as _, SystemError};
use devices::virtio::net::PacketSocket;
use guest_protocol::run_spec::{Address, Route};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    #[error("--network adopt: this network namespace has no Ethernet interface that is up")]
    None,
    #[error("--network adopt: several interfaces are up ({0}); adopt=IFNAME chooses one")]
    Several(String),
    #[error("--network adopt={0}: no such interface in this network namespace")]
    Missing(String),
    #[error("--network adopt={0}: the interface is down")]
    Down(String),
    #[error("--network adopt={0}: not an Ethernet interface")]
    NotEthernet(String),
    #[error("--network adopt={0}: another machine has adopted the interface")]
    Busy(String),
    #[error("--network adopt={name}")]
    System { name: String, source: SystemError },
    #[error("--network adopt")]
    Netlink(#[source] SystemError),
}

/// An adopted interface, before its socket goes to the device.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) socket: PacketSocket,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) guard: AdoptGuard,
}

/// The hold on an interface. What [`take`](Self::take) took is put back when it is dropped; the socket should be closed by then.
#[derive(Debug)]
pub(crate) struct AdoptGuard {
    netlink: Netlink,
    link: Link,
    file: StateFile,
    taken: Option<AdoptedState>,
    /// Held until the end.
    _lock: UnixDatagram,
}

/// Opens the interface `name`, or the only one.
pub(super) fn adopt(name: Option<&str>) -> Result<Adopted, AdoptError> {
    let mut netlink = Netlink::open().cannot("open a netlink socket").map_err(AdoptError::Netlink)?;
    let links = netlink.links().cannot("list interfaces").map_err(AdoptError::Netlink)?;
    let (link, mac) = choose(links, name)?;
    let failed = |source| AdoptError::System { name: link.name.clone(), source };
    // Not while another start restores.
    let directory = lock_directory().cannot("lock the state").map_err(failed)?;
    let lock = lock(link.index).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => AdoptError::Busy(link.name.clone()),
        _ => failed(Err::<(), _>(error).cannot("lock it").expect_err("it is an error")),
    })?;
    drop(directory);
    let socket = packet_socket::open(link.index).cannot("open a packet socket").map_err(failed)?;
    let socket = PacketSocket::new(socket).cannot("set up the packet socket").map_err(failed)?;
    let listed = configuration(&mut netlink, link.index).cannot("list addresses and routes").map_err(failed)?;
    let (addresses, routes) = guest_view(&listed.0, &listed.1);
    let (mtu, file) = (link.mtu, StateFile::of(link.index));
    let guard = AdoptGuard { netlink, link, file, taken: None, _lock: lock };
    Ok(Adopted { socket, mac, mtu, addresses, routes, guard })
}

/// Puts back what killed processes took off interfaces of this network namespace. The caller has locked the state directory.
pub(crate) fn restore_left() {
    for file in StateFile::all() {
        // A lock that is held is that of a machine.
        let (Ok(_lock), Ok(mut netlink)) = (lock(file.index()), Netlink::open()) else { continue };
        let links = netlink.links().unwrap_or_default();
        let link = links.into_iter().find(|link| link.index == file.index());
        if let (Some(link), Some(left)) = (link, file.read())
            && left.is_of(&link)
        {
            left.restore(&mut netlink, &link);
        }
        file.remove();
    }
}

/// Addresses and routes of an interface.
fn configuration(netlink: &mut Netlink, index: u32) -> std::io::Result<(Vec<netlink::Address>, Vec<netlink::Route>)> {
    let (mut addresses, mut routes) = (netlink.addresses()?, netlink.routes()?);
    addresses.retain(|address| address.index == index);
    routes.retain(|route| route.index == index);
    Ok((addresses, routes))
}

fn choose(links: Vec<Link>, name: Option<&str>) -> Result<(Link, [u8; 6]), AdoptError> {
    if let Some(name) = name {
        let link = links.into_iter().find(|link| link.name == name);
        let link = link.ok_or_else(|| AdoptError::Missing(name.to_owned()))?;
        return match link.mac.filter(|_| !link.is_loopback) {
            None => Err(AdoptError::NotEthernet(link.name)),
            Some(_) if !link.is_up => Err(AdoptError::Down(link.name)),
            Some(mac) => Ok((link, mac)),
        };
    }
    let usable = |link: Link| link.mac.filter(|_| link.is_up && !link.is_loopback).map(|mac| (link, mac));
    let mut usable: Vec<_> = links.into_iter().filter_map(usable).collect();
    match usable.len() {
        0 => Err(AdoptError::None),
        1 => Ok(usable.remove(0)),
        _ => {
            let names: Vec<_> = usable.into_iter().map(|(link, _)| link.name).collect();
            Err(AdoptError::Several(names.join(", ")))
        }
    }
}

fn lock(index: u32) -> std::io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("coracle-adopt-{index}"))?)
}

impl AdoptGuard {
    /// Removes every address and route of the interface, and keeps the kernel from making IPv6 addresses anew.
    ///
    /// # Errors
    /// What was removed is put back when the guard is dropped.
    pub(super) fn take(&mut self) -> Result<(), AdoptError> {
        self.take_off().cannot("take its addresses over").map_err(|source| {
            let name = self.link.name.clone();
            AdoptError::System { name, source }
        })
    }

    fn take_off(&mut self) -> std::io::Result<()> {
        let Self { netlink, link, .. } = self;
        let (addresses, routes) = configuration(netlink, link.index)?;
        let taken = AdoptedState::new(link, &addresses, &routes);
        // Best effort: without the file only a killed process loses the addresses.
        self.file.write(&taken);
        self.taken = Some(taken);
        if link.addr_gen_mode.is_some() {
            netlink.set_addr_gen_mode(link.index, ADDR_GEN_MODE_NONE)?;
            // Router advertisements would give it addresses. Where /proc/sys is read-only, as in most containers, the host's
            // side may get one by a router; it does no harm but that both sides answer to it.
            let _ = std::fs::write(accept_ra_path(&link.name), "0");
        }
        for address in &addresses {
            match netlink.remove_address(address) {
                // Secondary addresses go with the primary one.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
                outcome => outcome?,
            }
        }
        for route in configuration(netlink, link.index)?.1 {
            match netlink.remove_route(&route) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

impl Drop for AdoptGuard {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken.restore(&mut self.netlink, &self.link);
            self.file.remove();
        }
    }
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
