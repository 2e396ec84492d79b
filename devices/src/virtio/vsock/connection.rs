// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One connection between a socket of the guest and a Unix socket of the host. Runs on the event
//! loop of the device.
//!
//! Data to the guest waits in the host's socket until the guest has a buffer and credit for it.
//! Data from the guest that the host does not accept yet waits here; the guest was granted that
//! much.

use super::super::chain::Reader;
use super::credit::Credit;
use super::greeting;
use super::host;
use super::packet::{Header, Op, Ports, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use rustix::net::{RecvFlags, Shutdown, shutdown};
use std::collections::VecDeque;
use std::io::{ErrorKind, Result};
use std::os::fd::OwnedFd;

/// Bytes that are moved at a time.
pub(super) const SCRATCH_SIZE: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The host has asked for a port of the guest.
    Requested {
        is_sent: bool,
    },
    Connected,
    /// The guest is done with the connection; the host has not accepted all data yet.
    Lingering,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    /// It is over, and the guest is to be informed by a reset.
    Reset,
    /// It is over for both sides.
    Close,
    /// It is over for the guest, which may use its port again.
    Linger,
}

/// What a connection has for the guest.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A packet with this many bytes of data in the scratch memory.
    Packet(Op, u32, usize),
    Nothing,
    /// The host's side failed.
    Failed,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    pub(super) socket: OwnedFd,
    phase: Phase,
    credit: Credit,
    /// Data of the guest for the host.
    output: VecDeque<u8>,
    /// The host's socket is watched for output.
    pub(super) is_output_watched: bool,
    /// The host's socket may have input.
    is_readable: bool,
    /// The host has closed its socket.
    is_hung_up: bool,
    /// Flags of the guest's shutdown.
    guest_shutdown: u32,
    /// Those of them that the host's socket was given.
    done_shutdown: u32,
    /// What the host does no more: flags of our shutdown.
    host_shutdown: u32,
    /// Those of them that the guest was sent.
    sent_shutdown: u32,
    is_response_due: bool,
    is_update_due: bool,
    /// The guest was asked for credit since it last had some.
    has_asked: bool,
}

impl Connection {
    /// A connection that the guest has asked for, accepted by the host.
    pub(super) fn accepted(socket: OwnedFd, ports: Ports, buffer_size: u32, request: &Header) -> Self {
        let mut new = Self::new(socket, ports, buffer_size, Phase::Connected);
        new.credit.learn(request);
        new.is_response_due = true;
        new
    }

    /// A connection that the host has asked for.
    pub(super) fn requested(socket: OwnedFd, ports: Ports, buffer_size: u32) -> Self {
        Self::new(socket, ports, buffer_size, Phase::Requested { is_sent: false })
    }

    fn new(socket: OwnedFd, ports: Ports, buffer_size: u32, phase: Phase) -> Self {
        Self {
            ports,
            socket,
            phase,
            credit: Credit::new(buffer_size),
            output: VecDeque::new(),
            is_output_watched: false,
            is_readable: true,
            is_hung_up: false,
            guest_shutdown: 0,
            done_shutdown: 0,
            host_shutdown: 0,
            sent_shutdown: 0,
            is_response_due: false,
            is_update_due: false,
            has_asked: false,
        }
    }

    /// Whether the guest has not answered yet.
    pub(super) fn is_requested(&self) -> bool {
        matches!(self.phase, Phase::Requested { .. })
    }

    /// Bytes of the guest that it may hold.
    pub(super) fn buffer_size(&self) -> u32 {
        self.credit.buffer_size()
    }

    /// Whether the socket has to be watched for output.
    pub(super) fn waits_for_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Handles a packet of the guest. `length` bytes of data follow in `data`.
    pub(super) fn handle(&mut self, op: Op, header: &Header, data: &mut Reader<'_>, scratch: &mut [u8]) -> Fate {
        self.credit.learn(header);
        if self.credit.available() > 0 {
            self.has_asked = false;
        }
        match (op, self.phase) {
            (Op::Reset, Phase::Connected) if self.guest_shutdown & SHUTDOWN_SEND != 0 && self.waits_for_output() => {
                self.phase = Phase::Lingering;
                Fate::Linger
            }
            (Op::Reset, _) => Fate::Close,
            (Op::Response, Phase::Requested { is_sent: true }) => self.accept(),
            (Op::Data, Phase::Connected) if self.guest_shutdown & SHUTDOWN_SEND == 0 => {
                self.take_data(header.length.get(), data, scratch)
            }
            (Op::Shutdown, Phase::Connected) => {
                self.guest_shutdown |= header.flags.get() & SHUTDOWN_BOTH;
                self.settle()
            }
            (Op::CreditUpdate, _) => Fate::Keep,
            (Op::CreditRequest, Phase::Connected) => {
                self.is_update_due = true;
                Fate::Keep
            }
            _ => Fate::Reset,
        }
    }

    /// The guest has accepted.
    fn accept(&mut self) -> Fate {
        self.phase = Phase::Connected;
        let answer = greeting::accepted(self.ports.host);
        // The first bytes to this socket: either there is space or no reader.
        match host::write(&self.socket, answer.as_bytes()) {
            Ok(count) if count == answer.len() => Fate::Keep,
            _ => Fate::Reset,
        }
    }

    fn take_data(&mut self, length: u32, data: &mut Reader<'_>, scratch: &mut [u8]) -> Fate {
        if !self.credit.receive(length) {
            return Fate::Reset;
        }
        let mut left = length as usize;
        while left > 0 {
            let part = &mut scratch[..left.min(SCRATCH_SIZE)];
            if data.read_exact(part).is_err() {
                return Fate::Reset;
            }
            left -= part.len();
            let mut rest = &*part;
            if self.output.is_empty() {
                let count = self.write(rest);
                rest = &rest[count..];
            }
            if !rest.is_empty() {
                // At once for all that the guest may send, so that it never grows beyond that.
                self.output.reserve_exact(self.credit.buffer_size() as usize - self.output.len());
                self.output.extend(rest);
            }
        }
        Fate::Keep
    }

    /// Passes `data` to the host, as far as it accepts it. What a host that reads no more would get
    /// is dropped.
    fn write(&mut self, data: &[u8]) -> usize {
        let count = if self.host_shutdown & SHUTDOWN_RECEIVE != 0 {
            data.len()
        } else {
            match host::write(&self.socket, data) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => {
                    self.host_shutdown |= SHUTDOWN_RECEIVE;
                    data.len()
                }
            }
        };
        // No more than the guest has sent, which is 32 bits.
        self.credit.forward(count as u32);
        count
    }

    /// Passes on data that waits, as far as the host accepts it.
    pub(super) fn flush(&mut self) -> Fate {
        let mut output = std::mem::take(&mut self.output);
        while !output.is_empty() {
            let count = self.write(output.as_slices().0);
            output.drain(..count);
            if count == 0 {
                break;
            }
        }
        if !output.is_empty() {
            // Otherwise its memory is given back.
            self.output = output;
        }
        self.settle()
    }

    /// Does what the guest's shutdown asks for, once its data has left.
    fn settle(&mut self) -> Fate {
        // The host's writes fail from now on.
        self.shut_down(self.guest_shutdown & SHUTDOWN_RECEIVE, Shutdown::Read);
        if self.guest_shutdown & SHUTDOWN_SEND == 0 || self.waits_for_output() {
            return Fate::Keep;
        }
        self.shut_down(SHUTDOWN_SEND, Shutdown::Write);
        match self.phase {
            Phase::Lingering => Fate::Close,
            _ if self.guest_shutdown == SHUTDOWN_BOTH => Fate::Reset,
            _ => Fate::Keep,
        }
    }

    /// Once for each flag, because each call is an event of the socket.
    fn shut_down(&mut self, flag: u32, how: Shutdown) {
        if flag & !self.done_shutdown != 0 {
            self.done_shutdown |= flag;
            let _ = shutdown(&self.socket, how);
        }
    }

    /// The host's socket may have input, or has been closed by its other end.
    pub(super) fn host_changed(&mut self, is_hung_up: bool) -> Fate {
        self.is_readable = true;
        self.is_hung_up |= is_hung_up;
        match self.phase {
            Phase::Requested { .. } if self.is_hung_up => Fate::Reset,
            Phase::Lingering if self.is_hung_up => Fate::Close,
            _ => Fate::Keep,
        }
    }

    /// The next packet for the guest, with at most `space` bytes of data.
    pub(super) fn next(&mut self, space: usize, scratch: &mut [u8]) -> Outgoing {
        match &mut self.phase {
            Phase::Lingering | Phase::Requested { is_sent: true } => return Outgoing::Nothing,
            Phase::Requested { is_sent } => {
                *is_sent = true;
                return Outgoing::Packet(Op::Request, 0, 0);
            }
            Phase::Connected => {}
        }
        if std::mem::take(&mut self.is_response_due) {
            return Outgoing::Packet(Op::Response, 0, 0);
        }
        let available = self.credit.available();
        if self.is_readable && !self.is_input_over() {
            if available == 0 {
                if !std::mem::replace(&mut self.has_asked, true) {
                    return Outgoing::Packet(Op::CreditRequest, 0, 0);
                }
            } else {
                match self.read(space.min(available as usize), scratch) {
                    Ok(0) => {}
                    Ok(count) => return Outgoing::Packet(Op::Data, 0, count),
                    Err(_) => return Outgoing::Failed,
                }
            }
        }
        if self.is_hung_up && self.is_input_over() {
            self.host_shutdown = SHUTDOWN_BOTH;
        }
        if self.sent_shutdown != self.host_shutdown {
            self.sent_shutdown = self.host_shutdown;
            return Outgoing::Packet(Op::Shutdown, self.host_shutdown, 0);
        }
        if self.is_update_due || self.credit.is_update_due() {
            return Outgoing::Packet(Op::CreditUpdate, 0, 0);
        }
        Outgoing::Nothing
    }

    /// Whether nothing more is read from the host.
    fn is_input_over(&self) -> bool {
        self.host_shutdown & SHUTDOWN_SEND != 0 || self.guest_shutdown & SHUTDOWN_RECEIVE != 0
    }

    /// Fills in the credit of a packet to the guest.
    pub(super) fn announce(&mut self, header: &mut Header) {
        self.is_update_due = false;
        self.credit.announce(header);
    }

    /// Reads from the host. 0 if there is nothing now, or never again.
    fn read(&mut self, space: usize, scratch: &mut [u8]) -> Result<usize> {
        if space == 0 {
            return Ok(0);
        }
        let place = &mut scratch[..space.min(SCRATCH_SIZE)];
        match host::receive(&self.socket, place, RecvFlags::empty()) {
            Ok(0) => {
                self.is_readable = false;
                self.host_shutdown |= SHUTDOWN_SEND;
                Ok(0)
            }
            Ok(count) => {
                self.credit.send(count as u32);
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}
