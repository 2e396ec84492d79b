// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control socket's transport: HTTP/1.1 for a bounded number of clients, on an epoll set of its own that `main`'s event
//! loop waits for as for one descriptor. Nothing here waits, and nothing here knows what an operation does.
//!
//! | limit | of | then |
//! |---|---|---|
//! | 32 | clients at once | the next gets 503 |
//! | 8 KiB, 64 KiB | head, body of a request | 431, 413 |
//! | 10 s | until a request is complete | 408, or closed if nothing of one came |
//! | 256 KiB, 30 s | what waits for a client, and how long it may take none of it | closed |

mod client;
mod head;
mod logs_query;
mod query;
mod response;
mod route;
mod socket;

pub(crate) use logs_query::LogsQuery;
pub(crate) use response::Response;
pub(crate) use route::{Exec, Kill, Operation, Stop};
pub(crate) use socket::connect;

use client::{Client, Input};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Result, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Most clients at once.
pub(crate) const CLIENTS: usize = 32;
/// Most connections that are taken or refused in one turn, so that the rest of the loop comes to its own.
const ACCEPTS: usize = 64;
/// How long nobody is accepted when the host has no more descriptors.
const DEAF_TIME: Duration = Duration::from_secs(1);
/// Most sockets that clients come from: the entry's own, and a service manager's.
const LISTENERS: usize = 2;
/// The first client's number in the set; listeners have those before it.
const FIRST_CLIENT: u64 = LISTENERS as u64;

/// One client, for as long as it is connected. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(u64);

/// What clients did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// One asks for an operation; [`Server::answer`] or one of its likes is owed.
    Call(ClientId, Operation),
    /// One sent bytes after an upgrade.
    Data(ClientId, Vec<u8>),
    /// One will send no more after an upgrade.
    InputEnded(ClientId),
    /// One with a stream or an upgrade has taken some of what waited for it.
    Room(ClientId),
    /// One is gone.
    Gone(ClientId),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    listeners: Vec<UnixListener>,
    epoll: Epoll,
    clients: BTreeMap<ClientId, Client>,
    next: u64,
    notices: Vec<Notice>,
    /// Clients that had sent more than the request that was just answered.
    ahead: Vec<ClientId>,
    /// When to listen again after the host had no more descriptors.
    deaf_until: Option<Instant>,
}

impl Server {
    /// Listens in `entry` of the run directory, whose lock the caller holds.
    ///
    /// # Errors
    /// The host refused.
    pub(crate) fn listen(entry: &Path) -> Result<Self> {
        let mut server = Self {
            listeners: Vec::with_capacity(LISTENERS),
            epoll: Epoll::new()?,
            clients: BTreeMap::new(),
            next: FIRST_CLIENT,
            notices: Vec::new(),
            ahead: Vec::new(),
            deaf_until: None,
        };
        server.also_listen(socket::listen(entry)?)?;
        Ok(server)
    }

    /// Takes clients from a socket that somebody else made, too; the same ones may use it. It must not block.
    ///
    /// # Errors
    /// The host refused, or there are enough.
    pub(crate) fn also_listen(&mut self, listener: UnixListener) -> Result<()> {
        if self.listeners.len() == LISTENERS {
            return Err(ErrorKind::InvalidInput.into());
        }
        let event = EpollEvent::new(EventSet::IN, self.listeners.len() as u64);
        self.epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Does what can be done without waiting, and says what clients want.
    pub(crate) fn serve(&mut self, now: Instant) -> Vec<Notice> {
        let mut events = [EpollEvent::default(); CLIENTS + LISTENERS];
        let count = self.epoll.wait(0, &mut events).unwrap_or_default();
        for event in &events[..count] {
            match event.data() {
                number @ ..FIRST_CLIENT => self.accept(number as usize, now),
                number => self.serve_client(ClientId(number), event.event_set(), now),
            }
        }
        for id in std::mem::take(&mut self.ahead) {
            self.serve_client(id, EventSet::empty(), now);
        }
        self.expire(now);
        if self.deaf_until.is_some_and(|until| until <= now) {
            self.deaf_until = None;
            self.listen_for_clients(true);
        }
        std::mem::take(&mut self.notices)
    }

    /// Waits for a client to stir, when there is nothing else to wait for. Whether one did in time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        self.epoll.wait(milliseconds, &mut [EpollEvent::default()]).is_ok_and(|count| count > 0)
    }

    /// From `now` until [`serve`](Self::serve) has something to do whether or not a client stirs; none while nobody is
    /// connected.
    #[must_use]
    pub(crate) fn until_next(&self, now: Instant) -> Option<Duration> {
        if !self.ahead.is_empty() {
            return Some(Duration::ZERO);
        }
        let late = self.clients.values().filter_map(Client::deadline).chain(self.deaf_until);
        Some(late.min()?.saturating_duration_since(now))
    }

    /// Answers a call.
    pub(crate) fn answer(&mut self, client: ClientId, response: &Response) {
        self.with(client, |client, now| client.answer(response, now));
    }

    /// Begins an answer to a call that goes on.
    pub(crate) fn begin_stream(&mut self, client: ClientId, content_type: &str) {
        self.with(client, |client, now| client.begin_stream(content_type, now));
    }

    /// Goes on with it.
    pub(crate) fn push(&mut self, client: ClientId, line: &[u8]) {
        self.try_with(client, |client, now| client.push(line, now).map_err(|_| ErrorKind::TimedOut.into()));
    }

    /// Ends it.
    pub(crate) fn end_stream(&mut self, client: ClientId) {
        self.with(client, Client::end_stream);
    }

    /// Answers a call by making the connection one for bytes in both directions: see [`Notice::Data`] and [`Self::send`].
    pub(crate) fn upgrade(&mut self, client: ClientId, content_type: &str) {
        self.with(client, |client, now| client.upgrade(content_type, now));
    }

    /// Bytes that [`Self::push`] takes for a stream, or [`Self::send`] for an upgraded client, now; none if it is gone.
    #[must_use]
    pub(crate) fn room(&self, client: ClientId) -> usize {
        self.clients.get(&client).map_or(0, Client::room)
    }

    /// Sends bytes to an upgraded client, no more than there is [`Self::room`] for.
    pub(crate) fn send(&mut self, client: ClientId, bytes: &[u8]) {
        self.with(client, |client, now| client.send(bytes, now));
    }

    /// Whether bytes of an upgraded client are to be read. Its own side fills up while they are not.
    pub(crate) fn welcome_input(&mut self, client: ClientId, welcome: bool) {
        self.with(client, |client, _| client.welcome_input(welcome));
    }

    /// Ends a connection once all is sent.
    pub(crate) fn close(&mut self, client: ClientId) {
        self.with(client, |client, _| client.close());
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTS {
            let stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors: who waits stays ready, and the loop must not spin.
                    log::warn!("cannot accept a client of the control socket: {error}");
                    self.listen_for_clients(false);
                    self.deaf_until = Some(now + DEAF_TIME);
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() || !socket::is_permitted(&stream).unwrap_or(false) {
                continue;
            }
            if self.clients.len() >= CLIENTS {
                refuse(&stream);
                continue;
            }
            let mut client = Client::new(stream, now);
            let id = ClientId(self.next);
            self.next += 1;
            let event = EpollEvent::new(client.new_interest().unwrap_or(EventSet::IN), id.0);
            if self.epoll.ctl(ControlOperation::Add, client.as_raw_fd(), event).is_ok() {
                self.clients.insert(id, client);
                // Most have sent their request by now.
                self.serve_client(id, EventSet::IN, now);
            }
        }
    }

    fn listen_for_clients(&self, listen: bool) {
        let interest = if listen { EventSet::IN } else { EventSet::empty() };
        for (number, listener) in self.listeners.iter().enumerate() {
            let event = EpollEvent::new(interest, number as u64);
            let modified = self.epoll.ctl(ControlOperation::Modify, listener.as_raw_fd(), event);
            modified.expect("the listener was added in `also_listen`");
        }
    }

    fn serve_client(&mut self, id: ClientId, ready: EventSet, now: Instant) {
        if ready.contains(EventSet::OUT) {
            self.with(id, |_, _| {});
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        let hung_up = ready.intersects(EventSet::HANG_UP | EventSet::ERROR);
        match client.read(now) {
            Input::Request(request) => match route::operation(&request) {
                Ok(operation) => self.notices.push(Notice::Call(id, operation)),
                Err(response) => self.answer(id, &response),
            },
            Input::Data(bytes) => self.notices.push(Notice::Data(id, bytes)),
            Input::End => self.notices.push(Notice::InputEnded(id)),
            Input::Nothing if !hung_up => {}
            Input::Nothing | Input::Gone => return self.drop_client(id),
        }
        self.with(id, |_, _| {});
    }

    /// Lets `act` change a client, then writes what it takes. A client that is gone is dropped.
    fn with(&mut self, id: ClientId, act: impl FnOnce(&mut Client, Instant)) {
        self.try_with(id, |client, now| {
            act(client, now);
            Ok(())
        });
    }

    /// The same where `act` may give the client up.
    fn try_with(&mut self, id: ClientId, act: impl FnOnce(&mut Client, Instant) -> Result<()>) {
        let now = Instant::now();
        let Some(client) = self.clients.get_mut(&id) else { return };
        match act(client, now).and_then(|()| client.write(now)) {
            Err(_) => return self.drop_client(id),
            Ok(_) if client.is_done() => return self.drop_client(id),
            Ok(true) => self.notices.push(Notice::Room(id)),
            Ok(false) => {}
        }
        if client.has_read_ahead() && !self.ahead.contains(&id) {
            self.ahead.push(id);
        }
        if let Some(interest) = client.new_interest() {
            let event = EpollEvent::new(interest, id.0);
            let modified = self.epoll.ctl(ControlOperation::Modify, client.as_raw_fd(), event);
            modified.expect("the descriptor was added in `accept`");
        }
    }

    fn drop_client(&mut self, id: ClientId) {
        if self.clients.remove(&id).is_some() {
            self.notices.push(Notice::Gone(id));
        }
    }

    fn expire(&mut self, now: Instant) {
        let is_late = |client: &Client| client.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<ClientId> =
            self.clients.iter().filter(|(_, client)| is_late(client)).map(|(id, _)| *id).collect();
        for id in late {
            let is_in_request = self.clients.get(&id).is_some_and(Client::is_in_request);
            if is_in_request {
                let response = Response::refusal(408, "the request is not complete after 10 s");
                self.with(id, |client, now| client.close_with(&response, now));
            } else {
                self.drop_client(id);
            }
        }
    }
}

/// Tells a client that there are enough, as far as it hears that.
fn refuse(mut stream: &UnixStream) {
    let form = response::Form { keep_alive: false, chunked: true, upgrade: false };
    let response = Response::refusal(503, &format!("{CLIENTS} clients are connected already"));
    let _ = stream.write_all(&response.to_bytes(form));
}

impl AsRawFd for Server {
    /// Readable while there is something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
