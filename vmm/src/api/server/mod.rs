// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The transport of the control socket: HTTP/1.1 for a bounded number of clients, on an epoll set
//! of its own whose descriptor `main`'s event loop waits for. No call waits, and no operation is
//! performed here.
//!
//! | limit | of | beyond it |
//! |---|---|---|
//! | 32 | clients at one time | the next gets 503 |
//! | 8 KiB, 64 KiB | head and body of a request | 431, 413 |
//! | 10 s | until a request is complete | 408, or closed if none was begun |
//! | 3 | descriptors that come with a request | closed |
//! | 64 KiB | payload of a frame from a client | closed |
//! | 256 KiB, 8192 frames | output that waits for a client | closed |
//! | 30 s | without progress while output waits, but for `exec` and `attach` | closed |

mod connection;
mod descriptors;
mod logs_query;
mod route;

pub(crate) use connection::{Channel, Response};
pub(crate) use descriptors::{Descriptors, MAX_DESCRIPTORS};
pub(crate) use logs_query::LogsQuery;
pub(crate) use route::{Command, Exec, Files, Kill, Layer, Query, Resize, Stop};

use super::frame::ClientFrame;
use super::outbox::OutboxFull;
use connection::{Connection, Received};
use route::Operation;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::sockopt::socket_peercred;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Result, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// In an entry of the run directory.
const SOCKET_FILE: &str = "control.sock";
/// For this user only, like the directory of the entry.
const SOCKET_MODE: u32 = 0o600;

pub(crate) const MAX_CLIENTS: usize = 32;
/// Connections accepted or rejected in one turn, so that the rest of the loop gets its turn.
const MAX_ACCEPTS: usize = 64;
/// How long accepting pauses when the host has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// `control.sock`, and the socket of a service manager.
const MAX_LISTENERS: usize = 2;
/// The first client's number in the epoll set. Listeners have those before it.
const FIRST_CLIENT: u64 = MAX_LISTENERS as u64;

/// One client, for as long as it is connected. Numbers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(u64);

/// What a client did that concerns the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientEvent {
    /// A request. [`Server::respond`] or [`Server::open`] is owed.
    Command(Command),
    /// A frame on a duplex channel.
    Frame(ClientFrame),
    /// The client sends no more on a duplex channel.
    InputEnded,
    /// The client has taken output that had to wait.
    Writable,
    Gone,
}

/// What clients did in one turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// Requests. [`Server::respond`] or [`Server::open`] is owed for each.
    pub(crate) queries: Vec<(ClientId, Query)>,
    pub(crate) events: Vec<(ClientId, ClientEvent)>,
}

#[derive(Debug)]
pub(crate) struct Server {
    listeners: Vec<UnixListener>,
    epoll: Epoll,
    connections: BTreeMap<ClientId, Connection>,
    next_client: u64,
    served: Served,
    /// Clients that sent more than the request that was just answered.
    pipelined: Vec<ClientId>,
    accept_paused_until: Option<Instant>,
}

impl Server {
    /// Listens in `entry` of the run directory, whose lock the caller holds.
    ///
    /// # Errors
    /// The host refuses the socket.
    pub(crate) fn listen(entry: &Path) -> Result<Self> {
        let mut server = Self {
            listeners: Vec::with_capacity(MAX_LISTENERS),
            epoll: Epoll::new()?,
            connections: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            served: Served::default(),
            pipelined: Vec::new(),
            accept_paused_until: None,
        };
        server.add_listener(listen(entry)?)?;
        Ok(server)
    }

    /// Also accepts clients from an inherited socket, which must not block. The same users are
    /// permitted.
    ///
    /// # Errors
    /// The host refuses, or there are [`MAX_LISTENERS`].
    pub(crate) fn add_listener(&mut self, listener: UnixListener) -> Result<()> {
        if self.listeners.len() == MAX_LISTENERS {
            return Err(ErrorKind::InvalidInput.into());
        }
        let event = EpollEvent::new(EventSet::IN, self.listeners.len() as u64);
        self.epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Does what is possible without waiting, and returns what clients want.
    pub(crate) fn serve(&mut self, now: Instant) -> Served {
        let mut events = [EpollEvent::default(); MAX_CLIENTS + MAX_LISTENERS];
        let count = self.epoll.wait(0, &mut events).unwrap_or_default();
        for event in &events[..count] {
            match event.data() {
                number @ ..FIRST_CLIENT => self.accept(number as usize, now),
                number => self.serve_client(ClientId(number), event.event_set(), now),
            }
        }
        for id in std::mem::take(&mut self.pipelined) {
            self.serve_client(id, EventSet::empty(), now);
        }
        self.expire(now);
        if self.accept_paused_until.is_some_and(|until| until <= now) {
            self.accept_paused_until = None;
            self.set_accept_enabled(true);
        }
        std::mem::take(&mut self.served)
    }

    /// Waits for an event of a client. Returns whether one came in time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        self.epoll.wait(milliseconds, &mut [EpollEvent::default()]).is_ok_and(|count| count > 0)
    }

    /// From `now` until [`serve`](Self::serve) must be called even without an event of a client.
    /// `None` if that is never, as without clients.
    #[must_use]
    pub(crate) fn until_next(&self, now: Instant) -> Option<Duration> {
        if !self.pipelined.is_empty() || !self.served.events.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = self.connections.values().filter_map(Connection::deadline);
        Some(deadlines.chain(self.accept_paused_until).min()?.saturating_duration_since(now))
    }

    pub(crate) fn respond(&mut self, client: ClientId, response: &Response) {
        self.with(client, |connection, now| connection.respond(response, now));
    }

    /// Answers a request with a channel, for [`send`](Self::send) and [`close`](Self::close).
    pub(crate) fn open(&mut self, client: ClientId, channel: Channel) {
        self.with(client, |connection, now| connection.open(channel, now));
    }

    /// Sends one frame, some of them, or a line on a channel. A client for which there is no
    /// [`room`](Self::room) is dropped.
    pub(crate) fn send(&mut self, client: ClientId, bytes: &[u8]) {
        self.with(client, |connection, now| connection.send(bytes, now));
    }

    /// Bytes that [`send`](Self::send) accepts now; 0 for a client that is gone.
    #[must_use]
    pub(crate) fn room(&self, client: ClientId) -> usize {
        self.connections.get(&client).map_or(0, Connection::room)
    }

    /// Bytes that the client has not taken.
    #[must_use]
    pub(crate) fn unsent(&self, client: ClientId) -> usize {
        self.connections.get(&client).map_or(0, Connection::unsent)
    }

    /// Whether a duplex channel is read. While it is not, the client's own socket buffer fills up.
    pub(crate) fn set_read_enabled(&mut self, client: ClientId, enabled: bool) {
        self.with(client, |connection, _| {
            connection.set_read_enabled(enabled);
            Ok(())
        });
    }

    /// Ends a channel once everything is written.
    pub(crate) fn close(&mut self, client: ClientId) {
        self.with(client, Connection::close);
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..MAX_ACCEPTS {
            let stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors. The listener stays readable, and the loop must not spin.
                    log::warn!("control socket: cannot accept a client: {error}");
                    self.set_accept_enabled(false);
                    self.accept_paused_until = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() || !is_permitted(&stream).unwrap_or(false) {
                continue;
            }
            if self.connections.len() >= MAX_CLIENTS {
                reject(&stream);
                continue;
            }
            let mut connection = Connection::new(stream, now);
            let id = ClientId(self.next_client);
            self.next_client += 1;
            let event = EpollEvent::new(connection.new_interest().unwrap_or(EventSet::IN), id.0);
            if self.epoll.ctl(ControlOperation::Add, connection.as_raw_fd(), event).is_ok() {
                self.connections.insert(id, connection);
                // Most clients have sent their request by now.
                self.serve_client(id, EventSet::IN, now);
            }
        }
    }

    fn set_accept_enabled(&self, enabled: bool) {
        let interest = if enabled { EventSet::IN } else { EventSet::empty() };
        for (number, listener) in self.listeners.iter().enumerate() {
            let event = EpollEvent::new(interest, number as u64);
            let modified = self.epoll.ctl(ControlOperation::Modify, listener.as_raw_fd(), event);
            modified.expect("the listener was added in `add_listener`");
        }
    }

    fn serve_client(&mut self, id: ClientId, ready: EventSet, now: Instant) {
        if ready.contains(EventSet::OUT) {
            self.with(id, |_, _| Ok(()));
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let hung_up = ready.intersects(EventSet::HANG_UP | EventSet::ERROR);
        match connection.read(now) {
            Received::Request(request) => match route::route(&request) {
                Ok(Operation::Query(query)) => self.served.queries.push((id, query)),
                Ok(Operation::Command(command)) => self.push(id, ClientEvent::Command(command)),
                Err(response) => self.respond(id, &response),
            },
            Received::Frames(frames, error) => {
                frames.into_iter().for_each(|frame| self.push(id, ClientEvent::Frame(frame)));
                if let Some(error) = error {
                    log::debug!("control socket: client dropped: {error}");
                    return self.drop_client(id);
                }
            }
            Received::InputEnded => self.push(id, ClientEvent::InputEnded),
            Received::Nothing if !hung_up => {}
            Received::Nothing | Received::Gone => return self.drop_client(id),
        }
        self.with(id, |_, _| Ok(()));
    }

    fn push(&mut self, id: ClientId, event: ClientEvent) {
        self.served.events.push((id, event));
    }

    /// Lets `act` change a connection, then writes what the client takes. Drops a client that is
    /// gone or too slow for `act`.
    fn with(
        &mut self,
        id: ClientId,
        act: impl FnOnce(&mut Connection, Instant) -> std::result::Result<(), OutboxFull>,
    ) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if act(connection, now).is_err() {
            return self.drop_client(id);
        }
        match connection.write(now) {
            Err(_) => return self.drop_client(id),
            Ok(_) if connection.is_done() => return self.drop_client(id),
            Ok(true) => self.served.events.push((id, ClientEvent::Writable)),
            Ok(false) => {}
        }
        if connection.has_unread_input() && !self.pipelined.contains(&id) {
            self.pipelined.push(id);
        }
        if let Some(interest) = connection.new_interest() {
            let event = EpollEvent::new(interest, id.0);
            let modified = self.epoll.ctl(ControlOperation::Modify, connection.as_raw_fd(), event);
            modified.expect("the descriptor was added in `accept`");
        }
    }

    fn drop_client(&mut self, id: ClientId) {
        if self.connections.remove(&id).is_some() {
            self.push(id, ClientEvent::Gone);
        }
    }

    fn expire(&mut self, now: Instant) {
        let is_late = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<(ClientId, bool)> = self
            .connections
            .iter()
            .filter(|(_, connection)| is_late(connection))
            .map(|(id, connection)| (*id, connection.is_in_request()))
            .collect();
        for (id, is_in_request) in late {
            if is_in_request {
                let response = Response::error(408, "request not complete within 10 s");
                self.with(id, |connection, now| {
                    connection.respond_and_close(&response, now);
                    Ok(())
                });
            } else {
                self.drop_client(id);
            }
        }
    }
}

/// Listens in `entry`, whose lock the caller holds: an existing socket is stale.
///
/// # Errors
/// The host refuses the socket.
fn listen(entry: &Path) -> Result<UnixListener> {
    match fs::remove_file(entry.join(SOCKET_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (directory, address) = address(entry)?;
    let listener = UnixListener::bind(address)?;
    drop(directory);
    fs::set_permissions(entry.join(SOCKET_FILE), Permissions::from_mode(SOCKET_MODE))?;
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

/// The path of an entry may be longer than a socket address (108 bytes, unix(7)), so the address leads through a descriptor of
/// the directory. It is valid while that is open.
fn address(entry: &Path) -> Result<(OwnedFd, PathBuf)> {
    let directory = open(entry, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd());
    Ok((directory, address.into()))
}

/// Whether the peer is this user or root.
///
/// # Errors
/// The host does not know the peer.
fn is_permitted(stream: impl AsFd) -> Result<bool> {
    let peer = socket_peercred(stream)?.uid;
    Ok(peer.is_root() || peer == rustix::process::geteuid())
}

/// Answers a client that is one too many, as far as its socket takes it.
fn reject(mut stream: &UnixStream) {
    let response = Response::error(503, &format!("too many clients: the limit is {MAX_CLIENTS}"));
    let _ = stream.write_all(&response.to_bytes(false));
}

impl AsRawFd for Server {
    /// Readable while there is something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
impl Server {
    pub(crate) fn client_id(number: u64) -> ClientId {
        ClientId(number)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
