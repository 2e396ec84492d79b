// SPDX-License-Identifier: Apache-2.0 OR MIT
//! passt(1) as a child process: frames on one end of a socket pair, the host's sockets at the other. It ends when that socket
//! closes, so nothing outlives coracle, however that ends.
//!
//! It runs in a process group of its own, because a Ctrl-C in the user's terminal is not for it. As root it changes to the
//! user nobody by itself.

use crate::config::mac_address::MacAddress;
use crate::host::helper_process::{HelperProcess, helper};
use crate::host::message_file::MessageFile;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

/// From the start until it answers. It takes some 20 ms on an idle machine.
const MAX_START_TIME: Duration = Duration::from_secs(20);
/// Of its side of the link.
const MAC: MacAddress = MacAddress::new([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PasstError {
    #[error("passt is not installed; the package `passt` has it")]
    NotInstalled,
    #[error("cannot start passt")]
    Start(#[source] std::io::Error),
    #[error("passt: {0}")]
    Message(String),
    #[error("passt does not answer")]
    NoAnswer(#[source] std::io::Error),
}

/// The guest's side, as passt is told it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) gateway: Ipv4Addr,
}

/// A running passt and the guest's end of its socket.
#[derive(Debug)]
pub(super) struct Passt {
    pub(super) socket: OwnedFd,
    pub(super) process: HelperProcess,
}

/// Starts passt with further `options`, and waits until it has bound its ports and answers.
pub(super) fn start(guest: &Guest, options: &[String]) -> Result<Passt, PasstError> {
    let (mut own, theirs) = UnixStream::pair().map_err(PasstError::Start)?;
    let messages = MessageFile::new().map_err(PasstError::Start)?;
    let stderr = messages.writer().map_err(PasstError::Start)?;
    let mut command = helper("passt");
    command.args(["--foreground", "--quiet", "--one-off", "--fd", "0", "--no-map-gw"]);
    command.args(["--no-dhcp", "--no-dhcpv6", "--no-ra", "--mac-addr", &MAC.to_string()]).args(options);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(stderr).process_group(0);
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => PasstError::NotInstalled,
        _ => PasstError::Start(error),
    })?;
    // The command holds the other end of the socket.
    drop(command);
    let process = HelperProcess::new(child);
    match probe(&mut own, guest) {
        Ok(()) => Ok(Passt { socket: own.into(), process }),
        Err(error) => {
            // After it has ended, what it said is complete.
            drop((own, process));
            match reason(&messages.content()) {
                Some(message) => Err(PasstError::Message(message)),
                None => Err(PasstError::NoAnswer(error)),
            }
        }
    }
}

/// Asks for the gateway's hardware address, in the guest's name, and takes the answer. passt learns the guest's address by it.
fn probe(socket: &mut UnixStream, guest: &Guest) -> std::io::Result<()> {
    let request = arp_request(guest);
    socket.set_read_timeout(Some(MAX_START_TIME))?;
    socket.write_all(&(request.len() as u32).to_be_bytes())?;
    socket.write_all(&request)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut answer = vec![0; (u32::from_be_bytes(length) as usize).min(64 << 10)];
    socket.read_exact(&mut answer)?;
    socket.set_read_timeout(None)
}

/// RFC 826.
fn arp_request(guest: &Guest) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&guest.mac);
    // ARP; Ethernet, IPv4, lengths of their addresses, request.
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01]);
    frame[22..28].copy_from_slice(&guest.mac);
    frame[28..32].copy_from_slice(&guest.address.octets());
    frame[38..].copy_from_slice(&guest.gateway.octets());
    frame
}

/// The last message that is about the failure.
fn reason(messages: &str) -> Option<String> {
    let is_noise = |line: &&str| line.ends_with("to syslog") || line.starts_with("Don't run as root");
    messages.lines().map(str::trim).filter(|line| !line.is_empty()).rfind(|line| !is_noise(line)).map(str::to_owned)
}

/// `-t` or `-u` of one port.
pub(super) fn forward(ip: IpAddr, host_port: u16, port: u16) -> String {
    match ip {
        // Of both families.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => format!("{host_port}:{port}"),
        _ => format!("{ip}/{host_port}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_the_last_message_about_the_failure() {
        let messages = "Failed to send 47 bytes to syslog\nDon't run as root. Changing to nobody...\n\
                        No external routable interface for IPv6\nExternal interface not usable\n\
                        Failed to send 46 bytes to syslog\n";
        assert_eq!(reason(messages).as_deref(), Some("External interface not usable"));
        assert_eq!(reason("Failed to send 47 bytes to syslog\n"), None);
    }

    #[test]
    fn arp_request_asks_for_the_gateway() {
        let guest = Guest { mac: [2, 0, 0, 0, 0, 1], address: [10, 0, 2, 15].into(), gateway: [10, 0, 2, 2].into() };
        let frame = arp_request(&guest);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(frame[28..], [10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    }

    #[test]
    fn forward_names_the_address_unless_it_is_every_one() {
        assert_eq!(forward(Ipv4Addr::UNSPECIFIED.into(), 8080, 80), "8080:80");
        assert_eq!(forward("127.0.0.1".parse().unwrap(), 8080, 80), "127.0.0.1/8080:80");
        assert_eq!(forward("::1".parse().unwrap(), 8080, 80), "::1/8080:80");
    }
}
