// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service manager that started this process (`sd_notify(3)`): told when the machine is ready, what it does, that it is
//! stopping, and, where it asks for it, that `main` still runs. Used by `main`.

use devices::guest_warn;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Most that one request for more time is passed on as.
const LONGEST_EXTENSION: Duration = Duration::from_secs(3600);
/// Longest status that is passed on, in characters.
const STATUS_CHARACTERS: usize = 256;

/// A service manager that wants to be told.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

/// It cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("NOTIFY_SOCKET={}", .0.display())]
pub(crate) struct ServiceManagerError(OsString, #[source] io::Error);

impl ServiceManager {
    /// The one that the environment names, if any.
    ///
    /// # Errors
    /// Its socket is none.
    pub(crate) fn from_environment() -> Result<Option<Self>, ServiceManagerError> {
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

    /// The time without a word after which we count as hung, if that is watched: [`alive`](Self::alive) is to be called twice as
    /// often.
    #[must_use]
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The machine is ready.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// What it does, for people. One line.
    pub(crate) fn status(&self, text: &str) {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = text.chars().take(STATUS_CHARACTERS).map(printable).collect();
        self.tell(&format!("STATUS={line}"));
    }

    /// The workload reads its configuration again; [`ready`](Self::ready) says when that is done. The time, which orders it after
    /// the request, is the host's: the guest has clocks of its own.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// What it does takes this much longer, from now on.
    pub(crate) fn extend_timeout(&self, time: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", time.min(LONGEST_EXTENSION).as_micros()));
    }

    /// It is coming to its end.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// `main` runs.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// A service manager that does not listen must not hold up a machine.
    fn tell(&self, text: &str) {
        if let Err(error) = self.socket.send(text.as_bytes()) {
            // Part of it is the workload's, and so is how often.
            guest_warn!("cannot tell the service manager {}: {error}", text.escape_debug());
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
            assert_eq!(manager.watchdog(), Some(Duration::from_secs(3)));
            manager.ready();
            manager.status("two\nlines");
            manager.alive();
            manager.extend_timeout(Duration::from_secs(5));
            manager.extend_timeout(Duration::MAX);
            manager.stopping();
            let heard = [0; 6].map(|_| hear(&socket));
            let times = ["EXTEND_TIMEOUT_USEC=5000000", "EXTEND_TIMEOUT_USEC=3600000000"];
            assert_eq!(heard[..3], ["READY=1", "STATUS=two lines", "WATCHDOG=1"]);
            assert_eq!((&heard[3..5], &*heard[5]), (&times.map(str::to_owned)[..], "STOPPING=1"));
            manager.reloading();
            let reloading = hear(&socket);
            let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time.parse::<u64>().unwrap() > 0, "{reloading}");
        }
    }

    #[test]
    fn an_address_that_nobody_listens_at_is_named() {
        let error = ServiceManager::connect(OsStr::new("/nonexistent/notify"), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
