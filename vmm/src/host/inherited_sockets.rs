// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Listening sockets that a service manager made before it started this process (`sd_listen_fds(3)`): a socket unit that owns the
//! control socket. Read by `main` before it opens anything itself.

use super::descriptor::{self, DescriptorError};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// The descriptor of the first one (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// The only name that means something here, as `FileDescriptorName=` of the socket unit gives it.
const CONTROL: &str = "control";

/// What was handed over is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritedSocketError {
    /// No number, or one that no process can have been given.
    #[error("LISTEN_FDS={0} is no number of sockets")]
    Count(String),
    /// A list of another length.
    #[error("LISTEN_FDNAMES={names} does not name the sockets of LISTEN_FDS={count} one by one")]
    Names {
        /// The list.
        names: String,
        /// How many there are.
        count: RawFd,
    },
    /// Not ours to serve.
    #[error("the inherited socket `{0}` means nothing to coracle, only one with FileDescriptorName=control does")]
    Unknown(String),
    /// Two of them.
    #[error("two inherited sockets have the name `control`")]
    Twice,
    /// Nothing is open there.
    #[error("the inherited socket `control`")]
    Descriptor(#[from] DescriptorError),
    /// Something else than what clients can connect to.
    #[error("the inherited socket `control` is no listening Unix stream socket (ListenStream=PATH, Accept=no)")]
    Kind,
    /// The host refused.
    #[error("cannot prepare the inherited socket `control`")]
    Host(#[source] std::io::Error),
}

/// The control socket, if this process was given one; closed when another program is executed. What was meant for another process,
/// as `LISTEN_PID` says, is left alone.
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

/// The number of the control socket's descriptor.
fn find(count: &str, names: Option<&str>) -> Result<Option<RawFd>, InheritedSocketError> {
    let wrong = || InheritedSocketError::Count(count.to_owned());
    let count =
        count.parse::<RawFd>().ok().filter(|count| (0..=RawFd::MAX - FIRST).contains(count)).ok_or_else(wrong)?;
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
    let is_fit = || -> Result<bool, Errno> {
        Ok(socket_domain(&socket)? == AddressFamily::UNIX
            && socket_type(&socket)? == SocketType::STREAM
            && socket_acceptconn(&socket)?)
    };
    match is_fit() {
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
    fn the_control_socket_is_found_and_what_else_was_given_is_refused() {
        assert!(matches!(find("1", Some("control")), Ok(Some(3))));
        assert!(matches!(find("0", None), Ok(None)));
        for (count, names, error) in [
            ("x", Some("control"), "LISTEN_FDS=x is no number of sockets"),
            ("-1", None, "LISTEN_FDS=-1 is no number of sockets"),
            ("2147483647", Some("control"), "LISTEN_FDS=2147483647 is no number of sockets"),
            ("2", Some("control"), "LISTEN_FDNAMES=control does not name the sockets of LISTEN_FDS=2 one by one"),
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
    fn only_a_listening_unix_stream_socket_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let listening = UnixListener::bind(folder.path().join("socket")).unwrap();
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
