// SPDX-License-Identifier: Apache-2.0 OR MIT
//! passt for a monitor that does not start it itself, with the addresses that coracle gives its guests.

use super::guest::Guest;
use super::tap::Tap;
use anyhow::{Context, Result, ensure};
use guest_protocol::run_spec::{Address, Interface, Route};
use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// What PID 1 is told.
pub(super) fn interface() -> Interface {
    let address = Address { address: IpAddr::V4(GUEST), prefix: Tap::PREFIX };
    let any = Address { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
    let route = Route { destination: any, gateway: Some(IpAddr::V4(GATEWAY)) };
    Interface { mac: Tap::MAC, addresses: vec![address], routes: vec![route], mtu: Some(65520), ..Interface::default() }
}

/// Starts it in the guest's namespace; it ends with the connection of the monitor. Returns its socket.
pub(super) fn start(guest: &Guest, directory: &Path) -> Result<PathBuf> {
    // Started by root, it changes to a user that may not write to a directory of root.
    let own = directory.join("passt");
    fs::create_dir(&own)?;
    fs::set_permissions(directory, Permissions::from_mode(0o711))?;
    fs::set_permissions(&own, Permissions::from_mode(0o777))?;
    let socket = own.join("socket");
    let mut command = Command::new("passt");
    command.args(["--quiet", "--one-off", "--ipv4-only", "--mtu", "65520", "--netmask", &Tap::PREFIX.to_string()]);
    command.args(["--address", &GUEST.to_string(), "--gateway", &GATEWAY.to_string()]);
    command.args(["--tcp-ports", "none", "--udp-ports", "none", "--socket"]).arg(&socket);
    // Its first process ends when the socket is there.
    let mut command = guest.in_namespace(command);
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status().context("passt")?;
    ensure!(status.success(), "passt: {status}");
    Ok(socket)
}
