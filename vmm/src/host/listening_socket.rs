// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Unix socket that listens at a path of the user's: for this user alone, in place of a socket on which no process listens, and
//! removed at the end. Runs on the thread `prepare`.
//!
//! Connections that its owner makes go through the descriptor of its directory, so that neither a long path nor a directory that is
//! renamed matters.

use super::random::{RandomError, random_id};
use super::system_error::{Cannot as _, SystemError};
use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, accessat, fchmod, open, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{0} has no file name")]
    NoName(PathBuf),
    #[error("{0} exists, and is not a socket")]
    Other(PathBuf),
    #[error("{0} is in use: another process listens on it")]
    InUse(PathBuf),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error(transparent)]
    Host(#[from] SystemError),
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    /// Non-blocking.
    pub(crate) listener: OwnedFd,
    pub(crate) directory: OwnedFd,
    pub(crate) name: OsString,
    /// Absent of [`check_listen_at`].
    pub(crate) file: Option<SocketFile>,
}

/// The socket's file, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    /// Device and inode: another process may have put its own in this place.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if stat(&self.directory, &self.name).is_ok_and(|stat| identity(&stat) == self.identity) {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Listens at `path`.
///
/// # Errors
/// Another process listens there, there is another file, or the host refuses the socket.
pub(crate) fn listen_at(path: &Path) -> Result<ListeningSocket, ListenError> {
    let (directory, name) = place(path)?;
    let listening = format!("listen on {}", path.display());
    let listener = match bound(&directory, &name) {
        Err(Errno::ADDRINUSE) => replace_stale(&directory, &name, path)?,
        bound => bound.cannot(listening.clone())?,
    };
    let identity = identity(&stat(&directory, &name).cannot(listening.clone())?);
    let copy = directory.try_clone().cannot(listening)?;
    let file = Some(SocketFile { directory: copy, name: name.clone(), identity });
    Ok(ListeningSocket { listener, directory, name, file })
}

/// Whether [`listen_at`] would succeed now. Nothing is made or removed at `path`, and the socket that is returned has no address.
///
/// # Errors
/// The error that it would return.
pub(crate) fn check_listen_at(path: &Path) -> Result<ListeningSocket, ListenError> {
    let (directory, name) = place(path)?;
    let listening = format!("listen on {}", path.display());
    address(&directory, &name).cannot(listening.clone())?;
    match stat(&directory, &name) {
        Ok(_) => check_stale(&directory, &name, path)?,
        Err(Errno::NOENT) => {}
        Err(error) => Err(error).cannot(listening.clone())?,
    }
    accessat(&directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).cannot(listening.clone())?;
    let listener = new_socket().cannot(listening)?;
    Ok(ListeningSocket { listener, directory, name, file: None })
}

/// Directory and name of `path`.
fn place(path: &Path) -> Result<(OwnedFd, OsString), ListenError> {
    let name = path.file_name().ok_or_else(|| ListenError::NoName(path.to_owned()))?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(parent, flags, Mode::empty()).cannot(format!("open {}", parent.display()))?;
    Ok((directory, name))
}

/// Replaces a socket on which no process listens. The two are exchanged, and what was in its place is looked at again: of two
/// processes that do this at once, one finds the other's and puts it back.
fn replace_stale(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, ListenError> {
    let replacing = format!("replace {}", path.display());
    check_stale(directory, name, path)?;
    let temporary = OsString::from(format!(".coracle-{}", random_id()?));
    let listener = bound(directory, &temporary).cannot(replacing.clone())?;
    let exchange = || renameat_with(directory, &temporary, directory, name, RenameFlags::EXCHANGE);
    let checked = match exchange() {
        Ok(()) => check_stale(directory, &temporary, path).inspect_err(|_| _ = exchange()),
        Err(error) => Err(error).cannot(replacing.clone()).map_err(ListenError::from),
    };
    // Now the stale one, or ours.
    let _ = unlinkat(directory, &temporary, AtFlags::empty());
    checked.map(|()| listener)
}

/// Whether `name` is a socket on which no process listens.
fn check_stale(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), ListenError> {
    let found = stat(directory, name).cannot(format!("examine {}", path.display()))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(ListenError::Other(path.to_owned()));
    }
    let probe = new_socket().cannot("make a socket")?;
    let address = address(directory, name).cannot(format!("examine {}", path.display()))?;
    match connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => Ok(()),
        // Of another type: not one of ours.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(ListenError::InUse(path.to_owned())),
        Err(error) => Err(error).cannot(format!("examine {}", path.display())).map_err(ListenError::from),
    }
}

/// A new socket that listens at `name`.
fn bound(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let socket = new_socket()?;
    // The mode of the file that `bind` creates.
    fchmod(&socket, MODE)?;
    bind(&socket, &address(directory, name)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// An address that is valid while the descriptor is open.
fn address(directory: &OwnedFd, name: &OsStr) -> Result<SocketAddrUnix, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend(name.as_bytes());
    SocketAddrUnix::new(path)
}

fn stat(directory: impl AsFd, name: &OsStr) -> Result<Stat, Errno> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn socket_is_for_its_user_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(200));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("v.sock");
        let socket = listen_at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!((socket.name.as_os_str(), socket.file.is_some()), (OsStr::new("v.sock"), true));
        drop(socket);
        assert!(names(&deep).is_empty());
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        drop(UnixListener::bind(&path).unwrap());
        let socket = listen_at(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(matches!(listen_at(&path), Err(ListenError::InUse(found)) if found == path));
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(directory.path()), ["v"]);
        // Not ours any more.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert_eq!(names(directory.path()), ["v"]);
    }

    #[test]
    fn other_files_stay_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(listen_at(&path), Err(ListenError::Other(found)) if found == path));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert!(matches!(listen_at(Path::new("/")), Err(ListenError::NoName(_))));
        let missing = listen_at(&directory.path().join("missing/v")).unwrap_err();
        assert!(missing.to_string().contains("missing"), "{missing}");
        assert_eq!(names(directory.path()), ["v"]);
    }

    #[test]
    fn check_finds_what_listening_would_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "mine").unwrap();
        drop(UnixListener::bind(path("stale")).unwrap());
        let _live = UnixListener::bind(path("live")).unwrap();
        let found = |name: &str| fs::symlink_metadata(path(name)).ok().map(|found| (found.ino(), found.mode()));
        let before = ["file", "stale", "live", "new"].map(found);
        for name in ["new", "stale"] {
            assert!(check_listen_at(&path(name)).is_ok_and(|socket| socket.file.is_none()), "{name}");
        }
        assert_eq!(["file", "stale", "live", "new"].map(found), before);
        assert_eq!(names(directory.path()).len(), 3);
        for name in ["file", "live", "missing/v", &"x".repeat(150), &"x".repeat(100)] {
            let message =
                |outcome: Result<ListeningSocket, ListenError>| outcome.map(drop).map_err(|e| format!("{e:?}"));
            assert_eq!(message(check_listen_at(&path(name))), message(listen_at(&path(name))), "{name}");
        }
    }

    #[test]
    fn one_of_many_starts_at_once_gets_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v");
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(8);
        let listening: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                start.wait();
                listen_at(&path).ok()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(listening.len(), 1);
        UnixStream::connect(&path).unwrap();
        assert_eq!(names(directory.path()), ["v"]);
    }
}
