// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All connections of the device, those of the host that have not named a port yet included. Runs
//! on the event loop of the device.
//!
//! Everything is bounded: the number of entries, the bytes of the guest that they may hold
//! together, the replies to packets without a connection, and the time that a half-open connection
//! may take.

use super::super::chain::{Chain, Reader};
use super::super::queue::Served;
use super::connection::{Connection, Fate, Outgoing, SCRATCH_SIZE};
use super::device::VsockCounters;
use super::greeting;
use super::host::{Host, HostEvent};
use super::packet::{HOST_CID, Header, Op, Ports, TYPE_STREAM};
use crate::slot::Borrowed;
use crate::turn::Turn;
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::EventSet;
use zerocopy::IntoBytes as _;

/// Connections at a time. Each is a descriptor, of which a process has 1024 by default.
pub(super) const MAX_CONNECTIONS: usize = 512;
/// Of them, those of the host that have not named a port yet. More wait in the listener's queue.
pub(super) const MAX_GREETINGS: usize = 32;
/// Bytes of the guest that all connections may hold for the host.
pub(super) const MAX_BUFFER_BYTES: u32 = 16 << 20;
/// What each connection may hold at least.
const MIN_BUFFER_SIZE: u32 = 16 << 10;
const MAX_BUFFER_SIZE: u32 = 256 << 10;
/// Resets that wait for the guest. While there are as many the guest's packets are not handled.
pub(super) const MAX_REPLIES: usize = 128;
/// Connections of the host that are accepted in one turn.
const MAX_ACCEPTED: usize = 64;
/// First port of the host's ends of connections that the host asked for.
const FIRST_PORT: u32 = 1 << 30;
/// To the next try after the host had no descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

const _: () = assert!(MAX_CONNECTIONS as u32 * MIN_BUFFER_SIZE <= MAX_BUFFER_BYTES);

/// How long a connection waits for a side that does nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    /// For a program of the host to name a port.
    pub(super) greeting: Duration,
    /// For the guest to answer.
    pub(super) answer: Duration,
    /// For the host to accept the rest of the data of a connection that the guest is done with.
    pub(super) linger: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { greeting: seconds(10), answer: seconds(30), linger: seconds(60) }
    }
}

#[derive(Debug)]
enum Entry {
    /// A program of the host that has not named a port yet.
    Greeting(OwnedFd),
    Connection(Connection),
    /// The guest is still to be informed of the end.
    Reset(Ports),
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    deadline: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Table {
    guest_cid: u64,
    limits: TimeLimits,
    host: Borrowed<Host>,
    counters: Arc<VsockCounters>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_ports: HashMap<Ports, usize>,
    greetings: usize,
    /// Connections that hold a buffer, and the sizes of all these.
    buffers: usize,
    buffer_bytes: u32,
    /// Entries that may have a packet for the guest, each once.
    outgoing: VecDeque<usize>,
    is_outgoing: Vec<bool>,
    /// Resets of connections that are not here.
    replies: VecDeque<Header>,
    /// A packet of the guest waits for space in `replies`.
    is_stalled: bool,
    /// The listener did not return `WouldBlock` when it was last asked.
    may_accept: bool,
    next_port: u32,
    scratch: Box<[u8]>,
}

impl Table {
    pub(super) fn new(guest_cid: u64, limits: TimeLimits, host: Borrowed<Host>, counters: Arc<VsockCounters>) -> Self {
        Self {
            guest_cid,
            limits,
            host,
            counters,
            slots: Vec::new(),
            free: Vec::new(),
            by_ports: HashMap::new(),
            greetings: 0,
            buffers: 0,
            buffer_bytes: 0,
            outgoing: VecDeque::new(),
            is_outgoing: Vec::new(),
            replies: VecDeque::new(),
            is_stalled: false,
            may_accept: true,
            next_port: FIRST_PORT,
            scratch: vec![0; SCRATCH_SIZE].into_boxed_slice(),
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Handles a packet of the guest.
    pub(super) fn handle(&mut self, chain: &mut Chain<'_>) -> Served {
        if self.replies.len() >= MAX_REPLIES {
            self.is_stalled = true;
            return Served::Later;
        }
        let mut header = Header::default();
        let is_whole = chain.readable.read_exact(header.as_mut_bytes()).is_ok();
        // Packets with other addresses are not for this device.
        if !is_whole || header.source_cid.get() != self.guest_cid || header.destination_cid.get() != HOST_CID {
            count(&self.counters.tx_dropped, 1);
            return Served::Done(0);
        }
        count(&self.counters.tx_packets, 1);
        let (ports, op) = (Ports::of(&header), Op::from_number(header.operation.get()));
        let known = self.by_ports.get(&ports).filter(|_| header.socket_type.get() == TYPE_STREAM).copied();
        match (known, op) {
            (Some(number), op) => self.handle_known(number, op, &header, &mut chain.readable),
            (None, Some(Op::Reset)) => {}
            (None, Some(Op::Request)) if header.socket_type.get() == TYPE_STREAM => self.open(ports, &header),
            (None, _) => self.reply(&header),
        }
        Served::Done(0)
    }

    /// Answers a packet of the guest with a reset.
    fn reply(&mut self, header: &Header) {
        let reset = Ports::of(header).header(self.guest_cid, Op::Reset);
        self.replies.push_back(Header { socket_type: header.socket_type, ..reset });
    }

    /// The guest asks for a connection.
    fn open(&mut self, ports: Ports, request: &Header) {
        let socket = if self.is_full() { Err(ErrorKind::QuotaExceeded.into()) } else { self.host.connect(ports.host) };
        let Ok(socket) = socket else {
            count(&self.counters.refused, 1);
            return self.reply(request);
        };
        let connection = Connection::accepted(socket, ports, self.next_buffer_size(), request);
        if let Some(number) = self.insert(Entry::Connection(connection), None) {
            count(&self.counters.connections, 1);
            self.send_later(number);
        } else {
            self.reply(request);
        }
    }

    fn handle_known(&mut self, number: usize, op: Option<Op>, header: &Header, data: &mut Reader<'_>) {
        let Some(Slot { entry, deadline }) = &mut self.slots[number] else { return };
        let connection = match entry {
            Entry::Connection(connection) => connection,
            Entry::Reset(_) if op == Some(Op::Reset) => return self.remove(number),
            // The reset is on its way.
            Entry::Reset(_) | Entry::Greeting(_) => return,
        };
        let was_requested = connection.is_requested();
        let before = data.remaining();
        let fate = op.map_or(Fate::Reset, |op| connection.handle(op, header, data, &mut self.scratch));
        count(&self.counters.tx_bytes, (before - data.remaining()) as u64);
        if was_requested && !connection.is_requested() {
            *deadline = None;
            count(&self.counters.connections, 1);
        } else if was_requested && fate != Fate::Keep {
            count(&self.counters.refused, 1);
        }
        self.apply(number, fate);
    }

    /// Handles what has happened on the host. `true` if there may be more.
    pub(super) fn handle_host(&mut self, turn: &Turn<'_>) -> bool {
        loop {
            let events = self.host.events();
            let is_any = events.len() > 0;
            for event in events {
                match event {
                    HostEvent::Listener => self.may_accept = true,
                    HostEvent::Timer => self.expire(),
                    HostEvent::Socket(number, set) => self.socket_changed(number, set),
                }
            }
            let is_more = self.accept();
            if !is_any && !is_more {
                return false;
            }
            if turn.is_over() {
                return true;
            }
        }
    }

    /// Accepts programs of the host. `true` if there may be more.
    fn accept(&mut self) -> bool {
        for _ in 0..MAX_ACCEPTED {
            if !self.may_accept || self.greetings == MAX_GREETINGS {
                return false;
            }
            match self.host.accept() {
                // More than the limit are closed.
                Ok(_) if self.is_full() => count(&self.counters.refused, 1),
                Ok(socket) => _ = self.insert(Entry::Greeting(socket), Some(self.limits.greeting)),
                Err(error) => {
                    self.may_accept = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        self.host.wake_at(Instant::now() + ACCEPT_RETRY);
                    }
                }
            }
        }
        self.may_accept
    }

    fn socket_changed(&mut self, number: usize, set: EventSet) {
        let is_hung_up = set.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let fate = match self.slots.get_mut(number) {
            // An event of a connection that has just been closed.
            None | Some(None) => return,
            Some(Some(slot)) => match &mut slot.entry {
                Entry::Greeting(_) => return self.greet(number, is_hung_up),
                Entry::Reset(_) => return,
                Entry::Connection(connection) => match connection.host_changed(is_hung_up) {
                    Fate::Keep if connection.waits_for_output() => connection.flush(),
                    fate => fate,
                },
            },
        };
        self.apply(number, fate);
    }

    /// A program of the host may have named a port.
    fn greet(&mut self, number: usize, is_hung_up: bool) {
        let Some(Some(Slot { entry: Entry::Greeting(socket), .. })) = self.slots.get(number) else { return };
        let guest = match greeting::read_connect(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_hung_up => return,
            Ok(port) if !is_hung_up => port,
            _ => return self.remove(number),
        };
        let ports = Ports { host: self.free_port(guest), guest };
        let buffer_size = self.next_buffer_size();
        let Some(Slot { entry: Entry::Greeting(socket), .. }) = self.slots[number].take() else { return };
        self.greetings -= 1;
        self.add(
            number,
            Entry::Connection(Connection::requested(socket, ports, buffer_size)),
            Some(self.limits.answer),
        );
        self.send_later(number);
    }

    /// A port of the host that no connection to the port `guest` has.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    /// Ends what has taken too long, and sets the timer for the rest.
    fn expire(&mut self) {
        self.host.woke();
        // The host may have descriptors again.
        self.may_accept = true;
        let now = Instant::now();
        for number in 0..self.slots.len() {
            let Some(Slot { entry, deadline: Some(deadline) }) = &self.slots[number] else { continue };
            match entry {
                _ if *deadline > now => self.host.wake_at(*deadline),
                Entry::Connection(connection) if connection.is_requested() => self.apply(number, Fate::Reset),
                _ => self.remove(number),
            }
        }
    }

    /// Whether a packet for the guest may be there.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.replies.is_empty() || !self.outgoing.is_empty()
    }

    /// The next packet for the guest, with at most `space` bytes of data.
    pub(super) fn next_packet(&mut self, space: usize) -> Option<(Header, &[u8])> {
        if let Some(reset) = self.replies.pop_front() {
            count(&self.counters.rx_packets, 1);
            return Some((reset, &[]));
        }
        while let Some(number) = self.outgoing.pop_front() {
            self.is_outgoing[number] = false;
            let Some(Slot { entry, .. }) = &mut self.slots[number] else { continue };
            match entry {
                Entry::Greeting(_) => {}
                Entry::Reset(ports) => {
                    let header = ports.header(self.guest_cid, Op::Reset);
                    self.remove(number);
                    count(&self.counters.rx_packets, 1);
                    return Some((header, &[]));
                }
                Entry::Connection(connection) => match connection.next(space, &mut self.scratch) {
                    Outgoing::Nothing => {}
                    Outgoing::Failed => self.apply(number, Fate::Reset),
                    Outgoing::Packet(op, flags, length) => {
                        let mut header = connection.ports.header(self.guest_cid, op);
                        // No more than the scratch memory has.
                        (header.length, header.flags) = ((length as u32).into(), flags.into());
                        connection.announce(&mut header);
                        // The other connections that have data come before its next packet.
                        self.send_later(number);
                        count(&self.counters.rx_packets, 1);
                        count(&self.counters.rx_bytes, length as u64);
                        return Some((header, &self.scratch[..length]));
                    }
                },
            }
        }
        None
    }

    /// Whether packets of the guest that had to wait can be handled now.
    pub(super) fn take_resumed(&mut self) -> bool {
        let is_resumed = self.is_stalled && self.replies.len() < MAX_REPLIES;
        self.is_stalled &= !is_resumed;
        is_resumed
    }

    fn apply(&mut self, number: usize, fate: Fate) {
        match fate {
            Fate::Close => return self.remove(number),
            Fate::Keep => self.watch_output(number),
            Fate::Linger => {
                self.forget_ports(number);
                self.set_deadline(number, self.limits.linger);
                self.watch_output(number);
            }
            Fate::Reset => {
                let Some(Some(Slot { entry: Entry::Connection(connection), .. })) = self.slots.get(number) else {
                    return;
                };
                let ports = connection.ports;
                self.take(number);
                self.add(number, Entry::Reset(ports), None);
            }
        }
        self.send_later(number);
    }

    /// Watches the host's socket for output if there is data for it, and only then.
    fn watch_output(&mut self, number: usize) {
        let Some(Slot { entry: Entry::Connection(connection), .. }) = &mut self.slots[number] else { return };
        let waits = connection.waits_for_output();
        if std::mem::replace(&mut connection.is_output_watched, waits) != waits {
            // A change of what is watched needs no memory of the kernel.
            let _ = self.host.watch(&connection.socket, number, waits, false);
        }
    }

    fn send_later(&mut self, number: usize) {
        if !std::mem::replace(&mut self.is_outgoing[number], true) {
            self.outgoing.push_back(number);
        }
    }

    fn set_deadline(&mut self, number: usize, limit: Duration) {
        let deadline = Instant::now() + limit;
        if let Some(slot) = &mut self.slots[number] {
            slot.deadline = Some(deadline);
            self.host.wake_at(deadline);
        }
    }

    fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() == MAX_CONNECTIONS
    }

    /// Bytes that the next connection may hold, so that there is enough for all that may follow.
    fn next_buffer_size(&self) -> u32 {
        // Both are at most MAX_CONNECTIONS.
        let others = (MAX_CONNECTIONS - self.buffers) as u32;
        let spare = MAX_BUFFER_BYTES - self.buffer_bytes - others * MIN_BUFFER_SIZE;
        MIN_BUFFER_SIZE + (spare / 8).min(MAX_BUFFER_SIZE - MIN_BUFFER_SIZE)
    }

    /// Adds an entry with a new socket. `None` if the host cannot watch it; then it is closed.
    fn insert(&mut self, entry: Entry, limit: Option<Duration>) -> Option<usize> {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.is_outgoing.push(false);
            self.slots.len() - 1
        });
        let watched = match &entry {
            Entry::Greeting(socket) | Entry::Connection(Connection { socket, .. }) => {
                self.host.watch(socket, number, false, true)
            }
            Entry::Reset(_) => Ok(()),
        };
        if watched.is_err() {
            self.free.push(number);
            return None;
        }
        self.add(number, entry, limit);
        Some(number)
    }

    /// Fills an empty slot.
    fn add(&mut self, number: usize, entry: Entry, limit: Option<Duration>) {
        match &entry {
            Entry::Greeting(_) => self.greetings += 1,
            Entry::Reset(ports) => _ = self.by_ports.insert(*ports, number),
            Entry::Connection(connection) => {
                self.by_ports.insert(connection.ports, number);
                self.buffers += 1;
                self.buffer_bytes += connection.buffer_size();
            }
        }
        self.slots[number] = Some(Slot { entry, deadline: None });
        if let Some(limit) = limit {
            self.set_deadline(number, limit);
        }
    }

    /// Empties a slot. A socket in it is closed.
    fn take(&mut self, number: usize) {
        self.forget_ports(number);
        match self.slots[number].take().map(|slot| slot.entry) {
            Some(Entry::Greeting(_)) => self.greetings -= 1,
            Some(Entry::Connection(connection)) => {
                self.buffers -= 1;
                self.buffer_bytes -= connection.buffer_size();
            }
            Some(Entry::Reset(_)) | None => {}
        }
    }

    fn remove(&mut self, number: usize) {
        self.take(number);
        self.free.push(number);
    }

    /// The guest may use the ports of this entry again.
    fn forget_ports(&mut self, number: usize) {
        let ports = match &self.slots[number] {
            Some(Slot { entry: Entry::Connection(Connection { ports, .. }) | Entry::Reset(ports), .. }) => *ports,
            _ => return,
        };
        // Others may have them already, if this one lingers.
        if self.by_ports.get(&ports) == Some(&number) {
            self.by_ports.remove(&ports);
        }
    }
}

fn count(counter: &AtomicU64, add: u64) {
    counter.fetch_add(add, Ordering::Relaxed);
}
