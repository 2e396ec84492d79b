// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control socket of a socket unit: a listening socket that a service manager created before it started this process
//! (`sd_listen_fds(3)`). Read by `main` before it opens anything itself.

use super::descriptor::{self, DescriptorError};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// The only supported name, from `FileDescriptorName=` of the socket unit.
const CONTROL: &str = "control";

#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritedSocketError {
    #[error("LISTEN_FDS={0}: not a number of sockets")]
    Count(String),
    #[error("LISTEN_FDNAMES={names}: not a name for each socket of LISTEN_FDS={count}")]
    Names { names: String, count: RawFd },
    #[error("inherited socket `{0}`: only one with FileDescriptorName=control is supported")]
    Unknown(String),
    #[error("two inherited sockets have the name `control`")]
    Twice,
    #[error("inherited socket `control`")]
    Descriptor(#[from] DescriptorError),
    #[error("inherited socket `control`: not a listening Unix stream socket (ListenStream=PATH, Accept=no)")]
    Kind,
    #[error("cannot prepare the inherited socket `control`")]
    Host(#[source] std::io::Error),
}

/// The inherited control socket, closed on exec, if there is one. Sockets for another process (`LISTEN_PID`) are ignored.
///
/// # Errors
/// See [`InheritedSocketError`].
pub(crate) fn control() -> Result<Option<UnixListener>, InheritedSocketError> {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(None);
    }
    let Some(count) = variable("LISTEN_FDS") else { return Ok(None) };
    let Some(number) = find(&count, variable("LISTEN_FDNAMES").as_deref())? else { return Ok(None) };
    listener(descriptor::inherited(number)?).map(Some)
}

/// The control socket's descriptor.
fn find(count: &str, names: Option<&str>) -> Result<Option<RawFd>, InheritedSocketError> {
    let invalid = || InheritedSocketError::Count(count.to_owned());
    let count =
        count.parse::<RawFd>().ok().filter(|count| (0..=RawFd::MAX - FIRST).contains(count)).ok_or_else(invalid)?;
    if count == 0 {
        return Ok(None);
    }
    // Without names all are `unknown` (sd_listen_fds_with_names(3)).
    let Some(names) = names else { return Err(InheritedSocketError::Unknown("unknown".into())) };
    if names.split(':').count() != count as usize {
        return Err(InheritedSocketError::Names { names: names.to_owned(), count });
    }
    match names.split(':').find(|name| *name != CONTROL) {
        Some(other) => Err(InheritedSocketError::Unknown(other.to_owned())),
        None if count > 1 => Err(InheritedSocketError::Twice),
        None => Ok(Some(FIRST)),
    }
}

fn listener(socket: OwnedFd) -> Result<UnixListener, InheritedSocketError> {
    let is_listening_unix_stream = || -> Result<bool, Errno> {
        Ok(socket_domain(&socket)? == AddressFamily::UNIX
            && socket_type(&socket)? == SocketType::STREAM
            && socket_acceptconn(&socket)?)
    };
    match is_listening_unix_stream() {
        Ok(true) => {}
        Ok(false) | Err(Errno::NOTSOCK) => return Err(InheritedSocketError::Kind),
        Err(error) => return Err(InheritedSocketError::Host(error.into())),
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(InheritedSocketError::Host)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn find_takes_the_control_socket_and_rejects_others() {
        assert!(matches!(find("1", Some("control")), Ok(Some(3))));
        assert!(matches!(find("0", None), Ok(None)));
        for (count, names, error) in [
            ("x", Some("control"), "LISTEN_FDS=x: not a number of sockets"),
            ("-1", None, "LISTEN_FDS=-1: not a number of sockets"),
            ("2147483647", Some("control"), "LISTEN_FDS=2147483647: not a number of sockets"),
            ("2", Some("control"), "LISTEN_FDNAMES=control: not a name for each socket of LISTEN_FDS=2"),
            ("2", Some("control:control"), "two inherited sockets have the name `control`"),
        ] {
            assert_eq!(find(count, names).unwrap_err().to_string(), error);
        }
        for (count, names, name) in
            [("1", None, "unknown"), ("1", Some("web.socket"), "web.socket"), ("2", Some("control:http"), "http")]
        {
            let error = find(count, names).unwrap_err();
            assert!(matches!(&error, InheritedSocketError::Unknown(unknown) if unknown == name), "{error}");
        }
    }

    #[test]
    fn listener_takes_listening_unix_stream_sockets_only() {
        let directory = tempfile::tempdir().unwrap();
        let listening = UnixListener::bind(directory.path().join("socket")).unwrap();
        assert!(listener(listening.into()).is_ok());
        let others: [OwnedFd; 4] = [
            TcpListener::bind("127.0.0.1:0").unwrap().into(),
            UnixStream::pair().unwrap().0.into(),
            UnixDatagram::unbound().unwrap().into(),
            std::fs::File::open("/dev/null").unwrap().into(),
        ];
        for other in others {
            assert!(matches!(listener(other), Err(InheritedSocketError::Kind)));
        }
    }
}
