// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of DHCP as bytes: RFC 2131, 2; options: RFC 2132; options that are split or moved into other fields: RFC 3396.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

pub(super) mod option {
    pub(in crate::dhcp) const PAD: u8 = 0;
    pub(in crate::dhcp) const SUBNET_MASK: u8 = 1;
    pub(in crate::dhcp) const ROUTERS: u8 = 3;
    pub(in crate::dhcp) const NAME_SERVERS: u8 = 6;
    pub(in crate::dhcp) const HOST_NAME: u8 = 12;
    pub(in crate::dhcp) const DOMAIN: u8 = 15;
    pub(in crate::dhcp) const MTU: u8 = 26;
    pub(in crate::dhcp) const REQUESTED_ADDRESS: u8 = 50;
    pub(in crate::dhcp) const LEASE_TIME: u8 = 51;
    pub(in crate::dhcp) const OVERLOAD: u8 = 52;
    pub(in crate::dhcp) const MESSAGE_TYPE: u8 = 53;
    pub(in crate::dhcp) const SERVER: u8 = 54;
    pub(in crate::dhcp) const WANTED: u8 = 55;
    pub(in crate::dhcp) const MAX_MESSAGE_SIZE: u8 = 57;
    pub(in crate::dhcp) const RENEWAL_TIME: u8 = 58;
    pub(in crate::dhcp) const REBINDING_TIME: u8 = 59;
    pub(in crate::dhcp) const CLIENT: u8 = 61;
    /// RFC 3397.
    pub(in crate::dhcp) const SEARCH: u8 = 119;
    /// RFC 3442.
    pub(in crate::dhcp) const CLASSLESS_ROUTES: u8 = 121;
    pub(in crate::dhcp) const END: u8 = 255;
}

/// Of a message with its headers; also that of a socket's buffer.
pub const MAX_MESSAGE_SIZE: u16 = 1500;
/// Shorter ones are not understood by servers for BOOTP (RFC 1542, 2.1).
const MIN_MESSAGE_SIZE: usize = 300;

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAC_SIZE: u8 = 6;
/// The client asks for broadcast replies, because it has no address yet.
const BROADCAST_FLAG: [u8; 2] = [0x80, 0];
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Where the fields of a message are.
const XID: usize = 4;
const SECONDS: usize = 8;
const FLAGS: usize = 10;
const CLIENT_ADDRESS: usize = 12;
const YOUR_ADDRESS: usize = 16;
const CLIENT_MAC: usize = 28;
const SERVER_NAME: usize = 44;
const FILE: usize = 108;
const COOKIE_START: usize = 236;
const OPTIONS: usize = 240;

/// `DHCP message type`, RFC 2132, 9.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
    Release = 7,
}

/// A message from a client that is being written.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// `address` is the client's, if it has one. Only a client without an address asks for broadcast replies.
    pub(super) fn new(kind: Kind, mac: [u8; 6], xid: u32, seconds: u16, address: Option<Ipv4Addr>) -> Self {
        let mut bytes = [0; OPTIONS];
        bytes[..3].copy_from_slice(&[BOOT_REQUEST, ETHERNET, MAC_SIZE]);
        bytes[XID..XID + 4].copy_from_slice(&xid.to_be_bytes());
        bytes[SECONDS..SECONDS + 2].copy_from_slice(&seconds.to_be_bytes());
        match address {
            Some(address) => bytes[CLIENT_ADDRESS..CLIENT_ADDRESS + 4].copy_from_slice(&address.octets()),
            None => bytes[FLAGS..FLAGS + 2].copy_from_slice(&BROADCAST_FLAG),
        }
        bytes[CLIENT_MAC..CLIENT_MAC + 6].copy_from_slice(&mac);
        bytes[COOKIE_START..OPTIONS].copy_from_slice(&COOKIE);
        let message = Self(bytes.to_vec()).with(option::MESSAGE_TYPE, &[kind as u8]);
        let [a, b, c, d, e, f] = mac;
        message.with(option::CLIENT, &[ETHERNET, a, b, c, d, e, f])
    }

    /// Adds an option. An empty or too long one is left out.
    pub(super) fn with(mut self, code: u8, value: &[u8]) -> Self {
        if let Ok(length @ 1..) = u8::try_from(value.len()) {
            self.0.extend([code, length]);
            self.0.extend(value);
        }
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(option::END);
        self.0.resize(self.0.len().max(MIN_MESSAGE_SIZE), option::PAD);
        self.0
    }
}

/// A server's message to this client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    /// The one that the client gets.
    pub(super) address: Ipv4Addr,
    options: Options,
}

/// The code and the value of each option.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| *found == code).map(|(_, value)| &**value)
    }

    /// The parts of an option that occurs again are one value.
    fn add(&mut self, code: u8, part: &[u8]) {
        match self.0.iter_mut().find(|(found, _)| *found == code) {
            Some((_, value)) => value.extend(part),
            None => self.0.push((code, part.into())),
        }
    }
}

impl Reply {
    /// Returns `None` for what is not a reply to the request `xid` of the client `mac`, and for one whose options are malformed.
    pub(super) fn parse(message: &[u8], mac: [u8; 6], xid: u32) -> Option<Self> {
        let (header, options) = message.split_at_checked(OPTIONS)?;
        let is_ours = header[..3] == [BOOT_REPLY, ETHERNET, MAC_SIZE]
            && header[XID..XID + 4] == xid.to_be_bytes()
            && header[CLIENT_MAC..CLIENT_MAC + 6] == mac
            && header[COOKIE_START..] == COOKIE;
        if !is_ours {
            return None;
        }
        let mut found = Options::default();
        read_options(options, &mut found)?;
        // The fields of a server's name and of a file may hold options, too: in this order, and none that does so again.
        let (file, name) = (&header[FILE..COOKIE_START], &header[SERVER_NAME..FILE]);
        let more: &[&[u8]] = match found.get(option::OVERLOAD) {
            None => &[],
            Some([1]) => &[file],
            Some([2]) => &[name],
            Some([3]) => &[file, name],
            Some(_) => return None,
        };
        more.iter().try_for_each(|field| read_options(field, &mut found))?;
        let kind = match *found.get(option::MESSAGE_TYPE)? {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        let octets: [u8; 4] = header[YOUR_ADDRESS..YOUR_ADDRESS + 4].try_into().ok()?;
        Some(Self { kind, address: octets.into(), options: found })
    }

    pub(super) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(code)
    }

    /// An option of one address.
    pub(super) fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        Some(<[u8; 4]>::try_from(self.option(code)?).ok()?.into())
    }

    /// An option of 32 bits.
    pub(super) fn number(&self, code: u8) -> Option<u32> {
        self.address_option(code).map(Ipv4Addr::to_bits)
    }

    /// The addresses of a list, which has at least one and no other bytes.
    pub(super) fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let (addresses, rest) = self.option(code).unwrap_or_default().as_chunks::<4>();
        addresses.iter().filter(|_| rest.is_empty()).map(|octets| Ipv4Addr::from(*octets))
    }
}

/// Adds the options of one field to `found`. Returns `None` if one is longer than the field.
fn read_options(mut field: &[u8], found: &mut Options) -> Option<()> {
    loop {
        match *field {
            [] | [option::END, ..] => return Some(()),
            [option::PAD, ref rest @ ..] => field = rest,
            [code, length, ref rest @ ..] => {
                let (value, rest) = rest.split_at_checked(length.into())?;
                found.add(code, value);
                field = rest;
            }
            [_] => return None,
        }
    }
}
