// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `control.sock` in an entry of the run directory: its path, and which users may connect. Used by
//! `main` of the server and of clients.
//!
//! The path of an entry may be longer than a socket address (108 bytes, unix(7)), so the directory
//! is opened and the address leads through its descriptor.

use rustix::fs::{Mode, OFlags, open};
use rustix::net::sockopt::socket_peercred;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

pub(crate) const SOCKET_FILE: &str = "control.sock";
/// For this user only, like the directory.
const MODE: u32 = 0o600;

/// Listens in `entry`, whose lock the caller holds: an existing socket is stale.
///
/// # Errors
/// The host refuses the socket.
pub(super) fn listen(entry: &Path) -> Result<UnixListener> {
    match fs::remove_file(entry.join(SOCKET_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (directory, address) = address(entry)?;
    let listener = UnixListener::bind(address)?;
    drop(directory);
    fs::set_permissions(entry.join(SOCKET_FILE), Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the process that listens in `entry`.
///
/// # Errors
/// No process listens.
pub(crate) fn connect(entry: &Path) -> Result<UnixStream> {
    let (_directory, address) = address(entry)?;
    UnixStream::connect(address)
}

/// An address that is valid while the descriptor is open.
fn address(entry: &Path) -> Result<(OwnedFd, PathBuf)> {
    let directory = open(entry, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd());
    Ok((directory, address.into()))
}

/// Whether the peer is this user or root.
///
/// # Errors
/// The host does not know the peer.
pub(super) fn is_permitted(stream: impl AsFd) -> Result<bool> {
    let peer = socket_peercred(stream)?.uid;
    Ok(peer.is_root() || peer == rustix::process::geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn path_may_be_longer_than_a_socket_address() {
        let base = tempfile::tempdir().unwrap();
        let entry = base.path().join("x".repeat(200));
        fs::create_dir(&entry).unwrap();
        let listener = listen(&entry).unwrap();
        let mut client = connect(&entry).unwrap();
        client.write_all(b"hello").unwrap();
        drop(client);
        let (mut server, _) = listener.accept().unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(is_permitted(&server).unwrap());
        assert_eq!(fs::metadata(entry.join(SOCKET_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn stale_socket_is_reclaimed() {
        let entry = tempfile::tempdir().unwrap();
        drop(listen(entry.path()).unwrap());
        assert_eq!(connect(entry.path()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let _listener = listen(entry.path()).unwrap();
        assert!(connect(entry.path()).is_ok());
    }
}
