// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The states of a client (RFC 2131, 4.4). Times are milliseconds of one clock.
//!
//! ```text
//!  Selecting -> Requesting -> Bound -> Renewing -> Rebinding
//!      ^            |           ^         |            |
//!      |            |           +---------+------------+   the server has answered
//!      +------------+---------------------+------------+   rejected, or expired
//! ```
//!
//! The address is used at once: a probe for another owner (RFC 2131, 4.4.1) would delay each start by a second.

use super::frame::{BROADCAST_MAC, Endpoint, from_server, to_server};
use super::lease::{Lease, Settings, Times};
use super::message::{Kind, MAX_MESSAGE_SIZE, Message, Reply, option};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Between the first and the second attempt; doubled for each further one.
const FIRST_DELAY: u64 = 1000;
const MAX_DELAY: u64 = 64_000;
/// Then the client looks for another server.
const MAX_REQUESTS: u32 = 4;
/// Between two requests to keep an address. The minute of RFC 2131, 4.4.5, would be all of a short lease.
const MIN_RENEWAL_DELAY: u64 = 10_000;
const WANTED: [u8; 10] = [
    option::SUBNET_MASK,
    // Before the routers (RFC 3442).
    option::CLASSLESS_ROUTES,
    option::ROUTERS,
    option::NAME_SERVERS,
    option::DOMAIN,
    option::SEARCH,
    option::MTU,
    option::LEASE_TIME,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
];

/// What the owner of a client does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this Ethernet frame.
    Send(Vec<u8>),
    /// Configure the interface with these settings, which are new or confirmed.
    Configure(Settings),
    /// The address may not be used any more.
    Remove,
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting { server: Ipv4Addr, address: Ipv4Addr },
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// A lease with the time from which it counts.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    since: u64,
    /// Of the server, or of the router to it.
    mac: [u8; 6],
}

impl Held {
    fn address(&self) -> Ipv4Addr {
        self.lease.address
    }

    fn time(&self, of: impl Fn(&Times) -> u64) -> Option<u64> {
        self.lease.times.as_ref().map(|times| self.since.saturating_add(of(times)))
    }
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    hostname: String,
    random: u64,
    state: State,
    /// Of this exchange of messages.
    xid: u32,
    began: u64,
    /// Between the beginning and the last message but requests, which have that of the search before them (RFC 2131, 3.1).
    seconds: u16,
    /// Messages sent in this state.
    sent: u32,
    /// Searches for a server since the last lease.
    searches: u32,
    /// When [`Client::poll`] has something to do.
    due: Option<u64>,
}

impl Client {
    /// A client that looks for a server from `now` on. An empty `hostname` is not sent; `seed` is a random number.
    #[must_use]
    pub fn new(mac: [u8; 6], hostname: &str, seed: u64, now: u64) -> Self {
        let mut client = Self {
            mac,
            hostname: hostname.into(),
            random: seed,
            state: State::Selecting,
            xid: 0,
            began: now,
            seconds: 0,
            sent: 0,
            searches: 0,
            due: Some(now),
        };
        client.begin(State::Selecting, now);
        client
    }

    /// When to call [`Client::poll`]; `None` for a lease that lasts for ever.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// Whether frames of servers are to be received.
    #[must_use]
    pub fn expects_frames(&self) -> bool {
        !matches!(self.state, State::Bound(_))
    }

    /// The address that the client has.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.held().map(Held::address)
    }

    fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) => Some(held),
            State::Selecting | State::Requesting { .. } => None,
        }
    }

    /// What is due at `now`. Call it again until there is nothing.
    pub fn poll(&mut self, now: u64) -> Option<Action> {
        while self.due.is_some_and(|due| due <= now) {
            match &self.state {
                State::Selecting => {
                    self.due = Some(now + self.delay(self.searches));
                    self.searches = self.searches.saturating_add(1);
                    return Some(self.send(now));
                }
                State::Requesting { .. } if self.sent < MAX_REQUESTS => {
                    self.due = Some(now + self.delay(self.sent));
                    return Some(self.send(now));
                }
                State::Requesting { .. } => self.begin(State::Selecting, now),
                State::Bound(held) => self.begin(State::Renewing(held.clone()), now),
                State::Renewing(held) => match held.time(|times| times.rebinding) {
                    Some(end) if now < end => return Some(self.send_until(end, now)),
                    _ => self.begin(State::Rebinding(held.clone()), now),
                },
                State::Rebinding(held) => match held.time(|times| times.expiry) {
                    Some(end) if now < end => return Some(self.send_until(end, now)),
                    _ => {
                        self.begin(State::Selecting, now);
                        return Some(Action::Remove);
                    }
                },
            }
        }
        None
    }

    /// Handles a frame that has arrived. Those that are not a server's answer to this client's last request are ignored.
    pub fn receive(&mut self, frame: &[u8], now: u64) -> Option<Action> {
        let (mac, message) = from_server(frame, self.mac)?;
        let reply = Reply::parse(message, self.mac, self.xid)?;
        let server = reply.address_option(option::SERVER);
        let is_asked = match &self.state {
            State::Selecting => reply.kind == Kind::Offer,
            State::Requesting { server: asked, .. } => reply.kind != Kind::Offer && server == Some(*asked),
            State::Renewing(held) => reply.kind != Kind::Offer && server == Some(held.lease.server),
            State::Rebinding(_) => reply.kind != Kind::Offer,
            State::Bound(_) => false,
        };
        // Nothing was sent for which this could be the answer.
        if !is_asked || self.sent == 0 {
            return None;
        }
        if reply.kind == Kind::Nak {
            let had_address = self.held().is_some();
            self.begin(State::Selecting, now);
            self.due = Some(now + self.delay(self.searches));
            return had_address.then_some(Action::Remove);
        }
        let lease = Lease::read(&reply)?;
        match &self.state {
            State::Selecting => {
                self.begin(State::Requesting { server: lease.server, address: reply.address }, now);
                self.poll(now)
            }
            State::Requesting { address, .. } if *address != reply.address => None,
            State::Renewing(held) | State::Rebinding(held) if held.address() != reply.address => None,
            _ => {
                let settings = lease.settings.clone();
                let held = Held { lease, since: self.began, mac };
                self.due = held.time(|times| times.renewal);
                self.searches = 0;
                self.state = State::Bound(held);
                Some(Action::Configure(settings))
            }
        }
    }

    /// The frame that gives the address back, if there is one.
    #[must_use]
    pub fn release(&self) -> Option<Vec<u8>> {
        let held = self.held()?;
        let message = Message::new(Kind::Release, self.mac, self.xid, 0, Some(held.address()));
        let message = message.with(option::SERVER, &held.lease.server.octets()).finish();
        let (client, server) = self.endpoints(held);
        Some(to_server(client, server, &message))
    }

    /// Enters a state whose first message is due now.
    fn begin(&mut self, state: State, now: u64) {
        // A request goes on with the exchange that the server's offer belongs to.
        if !matches!(state, State::Requesting { .. } | State::Rebinding(_)) {
            self.xid = self.next_random() as u32;
        }
        (self.state, self.began, self.sent, self.due) = (state, now, 0, Some(now));
    }

    /// Sends, and then waits for half of the time that is left (RFC 2131, 4.4.5).
    fn send_until(&mut self, end: u64, now: u64) -> Action {
        let left = end - now;
        self.due = Some(now + (left / 2).max(MIN_RENEWAL_DELAY).min(left));
        self.send(now)
    }

    fn send(&mut self, now: u64) -> Action {
        self.sent += 1;
        if !matches!(self.state, State::Requesting { .. }) {
            self.seconds = u16::try_from((now - self.began) / 1000).unwrap_or(u16::MAX);
        }
        let kind = if matches!(self.state, State::Selecting) { Kind::Discover } else { Kind::Request };
        let message = Message::new(kind, self.mac, self.xid, self.seconds, self.address());
        let message = match &self.state {
            State::Requesting { server, address } => {
                message.with(option::REQUESTED_ADDRESS, &address.octets()).with(option::SERVER, &server.octets())
            }
            _ => message,
        };
        let message = message
            .with(option::MAX_MESSAGE_SIZE, &MAX_MESSAGE_SIZE.to_be_bytes())
            .with(option::HOST_NAME, self.hostname.as_bytes())
            .with(option::WANTED, &WANTED)
            .finish();
        let everybody = Endpoint { mac: BROADCAST_MAC, address: Ipv4Addr::BROADCAST };
        let (client, server) = match (&self.state, self.held()) {
            (State::Renewing(held), _) => self.endpoints(held),
            (_, held) => {
                (Endpoint { mac: self.mac, address: held.map_or(Ipv4Addr::UNSPECIFIED, Held::address) }, everybody)
            }
        };
        Action::Send(to_server(client, server, &message))
    }

    fn endpoints(&self, held: &Held) -> (Endpoint, Endpoint) {
        let client = Endpoint { mac: self.mac, address: held.address() };
        (client, Endpoint { mac: held.mac, address: held.lease.server })
    }

    /// Before attempt `number` + 1: a quarter more or less, so that machines that were started together do not stay together.
    fn delay(&mut self, number: u32) -> u64 {
        let delay = FIRST_DELAY.checked_shl(number).filter(|delay| *delay < MAX_DELAY).unwrap_or(MAX_DELAY);
        delay * 3 / 4 + self.next_random() % (delay / 2)
    }

    /// splitmix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
