// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether an interface of the host is up: a netlink socket that receives each change of it.
//! Opened on `main` in the interface's network namespace, used on the event loop of the network
//! device. rtnetlink(7).

use crate::event_loop::Source;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use std::io::Result;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Messages about links.
const RTMGRP_LINK: u32 = 1;
const NLM_F_REQUEST: u16 = 1;
/// The kernel sends no more at once.
pub(super) const MESSAGE_BUF_SIZE: usize = 32 << 10;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MessageHeader {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct ifinfomsg`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Interface {
    /// Other families report less than that all of the interface has changed.
    family: u8,
    padding: u8,
    kind: u16,
    index: u32,
    flags: u32,
    change: u32,
}

/// What is known of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    Up,
    Down,
    /// Deleted, or moved to another network namespace, where it cannot be watched.
    Gone,
}

#[derive(Debug)]
pub(super) struct LinkWatch {
    socket: OwnedFd,
    index: u32,
    /// Flags that an interface which is up has.
    up_flags: u32,
    state: LinkState,
    buffer: Box<[u8]>,
}

impl LinkWatch {
    /// Watches the interface with this index. It is up while it has all of `up_flags`.
    pub(super) fn open(index: u32, up_flags: u32) -> Result<Self> {
        let socket = open_socket()?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
        let buffer = vec![0; MESSAGE_BUF_SIZE].into_boxed_slice();
        let mut new = Self { socket, index, up_flags, state: LinkState::Up, buffer };
        new.ask()?;
        new.update();
        Ok(new)
    }

    pub(super) fn source(&self, token: u32) -> Source {
        Source::readable(self, token)
    }

    pub(super) fn state(&self) -> LinkState {
        self.state
    }

    /// Reads what has changed.
    pub(super) fn update(&mut self) {
        // A message for each change of any interface. The kernel drops them if there are too many.
        for _ in 0..MESSAGE_BUF_SIZE {
            match recv(&self.socket, &mut *self.buffer, RecvFlags::empty()) {
                Ok((_, length)) => self.read_messages(length),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => _ = self.ask(),
                Err(_) => return,
            }
        }
    }

    /// Requests the present state.
    fn ask(&self) -> Result<()> {
        request_link(&self.socket, self.index)
    }

    fn read_messages(&mut self, length: usize) {
        let mut rest = &self.buffer[..length.min(self.buffer.len())];
        while let Some(message) = next_message(&mut rest) {
            if let Some(state) = self.state_in(message) {
                self.state = state;
            }
        }
    }

    /// The state of the interface, if the message reports it.
    fn state_in(&self, (kind, body): (u16, &[u8])) -> Option<LinkState> {
        if kind == libc::NLMSG_ERROR as u16 {
            // The answer to a request.
            let (error, _) = body.split_first_chunk()?;
            return (i32::from_ne_bytes(*error) == -libc::ENODEV).then_some(LinkState::Gone);
        }
        let (interface, _) = Interface::read_from_prefix(body).ok()?;
        if interface.index != self.index || interface.family != 0 {
            return None;
        }
        match kind {
            libc::RTM_DELLINK => Some(LinkState::Gone),
            libc::RTM_NEWLINK if interface.flags & self.up_flags == self.up_flags => Some(LinkState::Up),
            libc::RTM_NEWLINK => Some(LinkState::Down),
            _ => None,
        }
    }
}

impl AsRawFd for LinkWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket of NETLINK_ROUTE, whose number is 0.
pub(super) fn open_socket() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?)
}

/// Requests the message about the interface with this index.
pub(super) fn request_link(socket: &OwnedFd, index: u32) -> Result<()> {
    let length = (size_of::<MessageHeader>() + size_of::<Interface>()) as u32;
    let header = MessageHeader { length, kind: libc::RTM_GETLINK, flags: NLM_F_REQUEST, sequence: 1, port: 0 };
    let interface = Interface { family: 0, padding: 0, kind: 0, index, flags: 0, change: 0 };
    let request = [header.as_bytes(), interface.as_bytes()].concat();
    send(socket, &request, SendFlags::empty())?;
    Ok(())
}

/// Type and body of the next message in `bytes`.
pub(super) fn next_message<'b>(bytes: &mut &'b [u8]) -> Option<(u16, &'b [u8])> {
    let (header, _) = MessageHeader::read_from_prefix(bytes).ok()?;
    let length = header.length as usize;
    let body = bytes.get(size_of::<MessageHeader>()..length)?;
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header.kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_up_or_down_and_a_missing_interface_gone() {
        // Its index is the same in every network namespace.
        let state = |index, flags| LinkWatch::open(index, flags).unwrap().state();
        assert_eq!(state(1, 0), LinkState::Up);
        assert_eq!(state(1, 1 << 31), LinkState::Down);
        assert_eq!(state(u32::MAX >> 1, 0), LinkState::Gone);
    }

    #[test]
    fn messages_end_at_the_first_that_is_too_long() {
        let message = |length: u32| [&length.to_ne_bytes()[..], &[7, 0], &[0; 10]].concat();
        let bytes = [message(16), message(17), vec![9; 4], message(40)].concat();
        let mut rest = &*bytes;
        assert_eq!(next_message(&mut rest), Some((7, &[][..])));
        assert_eq!(next_message(&mut rest), Some((7, &[9][..])));
        assert_eq!(next_message(&mut rest), None);
        assert_eq!(next_message(&mut &[0; 15][..]), None);
        assert_eq!(next_message(&mut &[0; 16][..]), None, "shorter than its header");
    }
}
