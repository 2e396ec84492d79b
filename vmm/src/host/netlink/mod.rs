// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Links, addresses and routes of a network namespace, by rtnetlink(7): that of the thread that opens the socket. Each call
//! sends one request and waits for its answer, which the kernel has at once.
//!
//! Messages are kept as the kernel wrote them ([`Address`], [`Route`]), so that what was taken away can be put back with
//! attributes that this code does not know.

mod address;
mod bridge;
mod link;
mod message;
mod route;

pub(crate) use address::Address;
pub(crate) use link::{ADDR_GEN_MODE_NONE, Link};
pub(crate) use route::Route;

use message::{Request, received};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;

/// Types and flags of control messages.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// The kernel fills at most 32 KiB at a time for a dump.
const RECEIVE_BUF_SIZE: usize = 64 << 10;
/// Dumps that a change of the namespace interrupted.
const MAX_INTERRUPTED_DUMPS: u32 = 16;

/// A socket of the network namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no rtnetlink, or no descriptor is left.
    pub(crate) fn open() -> Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE_BUF_SIZE].into_boxed_slice() })
    }

    /// Sends a request that changes something.
    fn change(&mut self, request: Request) -> Result<()> {
        self.send(request, NLM_F_ACK)?;
        loop {
            let length = self.receive()?;
            for message in received(&self.buffer[..length]) {
                if message.sequence == self.sequence && message.kind == NLMSG_ERROR {
                    return outcome(message.payload);
                }
            }
        }
    }

    /// Returns the payloads of the objects of a kind. `request` asks for that kind.
    fn dump<T>(&mut self, request: impl Fn() -> Request, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        for _ in 0..MAX_INTERRUPTED_DUMPS {
            if let Some(objects) = self.dump_once(request(), &parse)? {
                return Ok(objects);
            }
        }
        Err(Error::new(ErrorKind::Interrupted, "the network's configuration keeps changing"))
    }

    /// Returns `None` if the objects changed meanwhile.
    fn dump_once<T>(&mut self, request: Request, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.send(request, NLM_F_DUMP)?;
        let (mut objects, mut interrupted) = (Vec::new(), false);
        loop {
            let length = self.receive()?;
            for message in received(&self.buffer[..length]) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => return Ok((!interrupted).then_some(objects)),
                    NLMSG_ERROR => {
                        outcome(message.payload)?;
                        return Ok(Some(objects));
                    }
                    _ => objects.extend(parse(message.payload)),
                }
            }
        }
    }

    fn send(&mut self, request: Request, flags: u16) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.into_bytes(NLM_F_REQUEST | flags, self.sequence);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<usize> {
        let (length, _) = recv(&self.socket, &mut *self.buffer, RecvFlags::empty())?;
        // The kernel never sends an empty datagram, and this socket is not shut down.
        if length == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(length) }
    }
}

/// The error number of an acknowledgement, which is 0 for a success.
fn outcome(payload: &[u8]) -> Result<()> {
    match payload.first_chunk().map(|number| i32::from_ne_bytes(*number)) {
        Some(0) => Ok(()),
        Some(number) => Err(Error::from_raw_os_error(number.saturating_neg())),
        None => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
