// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `control.sock` in an entry of the run directory: its place, and who may use it. Used by `main`, on either side.
//!
//! The path of an entry may be longer than a socket address holds (108 bytes, unix(7)), so the folder is opened and the
//! address leads through its descriptor.

use rustix::fs::{Mode, OFlags, open};
use rustix::net::sockopt::socket_peercred;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Its name.
pub(crate) const SOCKET_FILE: &str = "control.sock";
/// For this user only. The folder is, too.
const MODE: u32 = 0o600;

/// Listens in `entry`, whose lock the caller holds: a socket that is there already is left from before.
///
/// # Errors
/// The host refused.
pub(super) fn listen(entry: &Path) -> Result<UnixListener> {
    match fs::remove_file(entry.join(SOCKET_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (folder, address) = address(entry)?;
    let listener = UnixListener::bind(address)?;
    drop(folder);
    fs::set_permissions(entry.join(SOCKET_FILE), Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to whoever listens in `entry`.
///
/// # Errors
/// Nobody does.
pub(crate) fn connect(entry: &Path) -> Result<UnixStream> {
    let (_folder, address) = address(entry)?;
    UnixStream::connect(address)
}

/// An address that is valid while the descriptor is open.
fn address(entry: &Path) -> Result<(OwnedFd, PathBuf)> {
    let folder = open(entry, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = format!("/proc/self/fd/{}/{SOCKET_FILE}", folder.as_raw_fd());
    Ok((folder, address.into()))
}

/// Whether this user or root is at the other end.
///
/// # Errors
/// The host does not say.
pub(super) fn is_permitted(stream: impl AsFd) -> Result<bool> {
    let peer = socket_peercred(stream)?.uid;
    Ok(peer.is_root() || peer == rustix::process::geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_path_longer_than_an_address_is_no_obstacle() {
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
    fn a_socket_that_was_left_is_reclaimed_and_nobody_behind_it_is_an_error() {
        let entry = tempfile::tempdir().unwrap();
        drop(listen(entry.path()).unwrap());
        assert_eq!(connect(entry.path()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let _listener = listen(entry.path()).unwrap();
        assert!(connect(entry.path()).is_ok());
    }
}
