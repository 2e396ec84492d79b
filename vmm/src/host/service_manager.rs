// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service manager that started this process (`sd_notify(3)`). Used by `main`.
//!
//! Names and values of the messages, and the watchdog's environment, are the crate `sd-notify`'s. The socket is ours: the crate knows
//! no abstract addresses, opens a socket for each message, and blocks while the service manager does not read.

use devices::guest_warn;
use sd_notify::NotifyState;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A workload may ask for more time, but not for more than this at once.
const MAX_EXTENSION: Duration = Duration::from_secs(3600);
/// A status may come from the workload.
const MAX_STATUS_CHARACTERS: usize = 256;

/// A service manager that expects notifications.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

/// `NOTIFY_SOCKET` cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[error("NOTIFY_SOCKET={}", .0.display())]
pub(crate) struct ServiceManagerError(OsString, #[source] io::Error);

impl ServiceManager {
    /// The service manager that the environment names, if any.
    ///
    /// # Errors
    /// No socket listens at its address.
    pub(crate) fn from_environment() -> Result<Option<Self>, ServiceManagerError> {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        Self::connect(&address, watchdog).map(Some).map_err(|error| ServiceManagerError(address, error))
    }

    fn connect(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        match address.as_bytes() {
            [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            _ => socket.connect(address)?,
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket, watchdog })
    }

    /// Time after which a process that does not call [`alive`](Self::alive) is taken for hung; call it twice as often.
    #[must_use]
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The machine is ready.
    pub(crate) fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// What the machine does, for people. Control characters are replaced, long texts cut.
    pub(crate) fn status(&self, text: &str) {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = text.chars().take(MAX_STATUS_CHARACTERS).map(printable).collect();
        self.send(&[NotifyState::Status(&line)]);
    }

    /// The workload reloads its configuration, until the next [`ready`](Self::ready). The time, which orders this message after the
    /// request to reload, is the host's: the guest has a monotonic clock of its own.
    pub(crate) fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0));
        self.send(&[NotifyState::Reloading, now]);
    }

    /// Extends the timeout of what the service is doing to `time` from now, at most [`MAX_EXTENSION`].
    pub(crate) fn extend_timeout(&self, time: Duration) {
        let microseconds = u32::try_from(time.min(MAX_EXTENSION).as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    /// The machine is stopping.
    pub(crate) fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// `main` runs.
    pub(crate) fn alive(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Never blocks: a service manager that does not read must not stop the machine.
    fn send(&self, states: &[NotifyState<'_>]) {
        let message = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if let Err(error) = self.socket.send(message.as_bytes()) {
            // Rate-limited: the workload can cause messages.
            guest_warn!("cannot notify the service manager of {}: {error}", message.escape_debug());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn path_and_abstract_sockets_get_the_same_messages() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("coracle-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ];
        for (socket, address) in sockets {
            let manager = ServiceManager::connect(&address, Some(Duration::from_secs(3))).unwrap();
            assert_eq!(manager.watchdog(), Some(Duration::from_secs(3)));
            manager.ready();
            manager.status("two\nlines");
            manager.alive();
            manager.extend_timeout(Duration::from_secs(5));
            manager.extend_timeout(Duration::MAX);
            manager.stopping();
            let received = [0; 6].map(|_| receive(&socket));
            let times = ["EXTEND_TIMEOUT_USEC=5000000", "EXTEND_TIMEOUT_USEC=3600000000"];
            assert_eq!(received[..3], ["READY=1", "STATUS=two lines", "WATCHDOG=1"]);
            assert_eq!((&received[3..5], &*received[5]), (&times.map(str::to_owned)[..], "STOPPING=1"));
            manager.reloading();
            let reloading = receive(&socket);
            let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time.parse::<u64>().unwrap() > 0, "{reloading}");
        }
    }

    #[test]
    fn connect_fails_where_no_socket_listens() {
        let error = ServiceManager::connect(OsStr::new("/nonexistent/notify"), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
