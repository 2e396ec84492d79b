// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service manager that started this process (`sd_notify(3)`): told when the machine is ready, what it does, that it is
//! stopping, and, where it asks for it, that `main` still runs. Used by `main`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A service manager that wants to be told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

/// It cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("NOTIFY_SOCKET={}", .0.display())]
pub struct ServiceManagerError(OsString, #[source] io::Error);

impl ServiceManager {
    /// The one that the environment names, if any.
    ///
    /// # Errors
    /// Its socket is none.
    pub fn from_environment() -> Result<Option<Self>, ServiceManagerError> {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| ours && usec > 0).map(Duration::from_micros);
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

    /// How often [`alive`](Self::alive) is to be called: twice in the time after which we count as hung.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        Some(self.watchdog? / 2)
    }

    /// The machine is ready.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// What it does, for people. One line.
    pub fn status(&self, text: &str) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.tell(&format!("STATUS={line}"));
    }

    /// It is coming to its end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// `main` runs.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// A service manager that does not listen must not hold up a machine.
    fn tell(&self, text: &str) {
        if let Err(error) = self.socket.send(text.as_bytes()) {
            log::warn!("cannot tell the service manager {text}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_socket_with_a_path_and_an_abstract_one_are_told_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("coracle-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ];
        for (socket, address) in sockets {
            let manager = ServiceManager::connect(&address, Some(Duration::from_secs(3))).unwrap();
            assert_eq!(manager.watchdog_interval(), Some(Duration::from_millis(1500)));
            manager.ready();
            manager.status("two\nlines");
            manager.alive();
            manager.stopping();
            let heard = [0; 4].map(|_| hear(&socket));
            assert_eq!(heard, ["READY=1", "STATUS=two lines", "WATCHDOG=1", "STOPPING=1"]);
        }
    }

    #[test]
    fn an_address_that_nobody_listens_at_is_named() {
        let error = ServiceManager::connect(OsStr::new("/nonexistent/notify"), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
