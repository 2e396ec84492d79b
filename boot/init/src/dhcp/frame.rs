// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ethernet frames with the UDP datagrams of DHCP (RFC 791, RFC 768). An interface without an address needs them: the kernel
//! drops what a server sends to the address that it offers.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
pub(super) const BROADCAST_MAC: [u8; 6] = [0xff; 6];

const ETHERNET_SIZE: usize = 14;
const IPV4_SIZE: usize = 20;
const UDP_SIZE: usize = 8;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const PROTOCOL_UDP: u8 = 17;
const VERSION_AND_SIZE: u8 = 0x45;
const TIME_TO_LIVE: u8 = 64;
/// More fragments follow, and the offset of this one.
const FRAGMENT_BITS: u16 = 0x3fff;

/// A program of classic BPF for a packet socket: passes IPv4 datagrams to [`CLIENT_PORT`] that are no fragments. Each instruction
/// is as it is in memory.
pub const FILTER: [u64; 11] = {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_INDEXED: u16 = 0x48;
    const LOAD_HEADER_SIZE: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    [
        instruction(LOAD_HALF, 0, 0, 12),
        instruction(JUMP_EQUAL, 0, 8, 0x0800),
        instruction(LOAD_BYTE, 0, 0, 23),
        instruction(JUMP_EQUAL, 0, 6, PROTOCOL_UDP as u32),
        instruction(LOAD_HALF, 0, 0, 20),
        instruction(JUMP_SET, 4, 0, FRAGMENT_BITS as u32),
        instruction(LOAD_HEADER_SIZE, 0, 0, 14),
        instruction(LOAD_HALF_INDEXED, 0, 0, 16),
        instruction(JUMP_EQUAL, 0, 1, CLIENT_PORT as u32),
        instruction(RETURN, 0, 0, u32::MAX),
        instruction(RETURN, 0, 0, 0),
    ]
};

/// `struct sock_filter` on a little-endian machine.
const fn instruction(code: u16, if_true: u8, if_false: u8, operand: u32) -> u64 {
    code as u64 | (if_true as u64) << 16 | (if_false as u64) << 24 | (operand as u64) << 32
}

/// One end of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
}

/// A frame from a client to a server.
pub(super) fn to_server(client: Endpoint, server: Endpoint, message: &[u8]) -> Vec<u8> {
    let size = (UDP_SIZE + message.len()) as u16;
    let mut frame = Vec::with_capacity(ETHERNET_SIZE + IPV4_SIZE + UDP_SIZE + message.len());
    frame.extend([server.mac, client.mac].as_flattened());
    frame.extend(ETHERTYPE_IPV4);
    frame.extend([VERSION_AND_SIZE, 0]);
    frame.extend((IPV4_SIZE as u16 + size).to_be_bytes());
    // Identification, flags and offset; the checksum follows.
    frame.extend([0, 0, 0, 0, TIME_TO_LIVE, PROTOCOL_UDP, 0, 0]);
    frame.extend([client.address.octets(), server.address.octets()].as_flattened());
    let header = checksum(&[&frame[ETHERNET_SIZE..]]);
    frame[ETHERNET_SIZE + 10..ETHERNET_SIZE + 12].copy_from_slice(&header.to_be_bytes());
    let pseudo_header = [
        &client.address.octets()[..],
        &server.address.octets(),
        &[0, PROTOCOL_UDP],
        &size.to_be_bytes(),
        &CLIENT_PORT.to_be_bytes(),
        &SERVER_PORT.to_be_bytes(),
        &size.to_be_bytes(),
        &[0, 0],
        message,
    ];
    // 0 means that there is none.
    let sum = Some(checksum(&pseudo_header)).filter(|sum| *sum != 0).unwrap_or(u16::MAX);
    frame.extend([CLIENT_PORT, SERVER_PORT, size, sum].map(u16::to_be_bytes).as_flattened());
    frame.extend(message);
    frame
}

/// The sender's MAC address and the message of a frame from a server to the client `mac`. The checksum of UDP is not tested: on
/// a virtual link the sender leaves it to a device that does not exist.
pub(super) fn from_server(frame: &[u8], mac: [u8; 6]) -> Option<([u8; 6], &[u8])> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_SIZE)?;
    let (destination, sender): ([u8; 6], [u8; 6]) = (ethernet[..6].try_into().ok()?, ethernet[6..12].try_into().ok()?);
    if ethernet[12..] != ETHERTYPE_IPV4 || ![mac, BROADCAST_MAC].contains(&destination) || sender[0] & 1 != 0 {
        return None;
    }
    let header_size = usize::from(packet.first()? & 0xf) * 4;
    let header = packet.get(..header_size).filter(|header| header.len() >= IPV4_SIZE)?;
    let total = usize::from(half(header, 2)?);
    let is_whole = half(header, 6)? & FRAGMENT_BITS == 0;
    if header[0] >> 4 != 4 || header[9] != PROTOCOL_UDP || !is_whole || checksum(&[header]) != 0 {
        return None;
    }
    let datagram = packet.get(header_size..total)?;
    if half(datagram, 0)? != SERVER_PORT || half(datagram, 2)? != CLIENT_PORT {
        return None;
    }
    Some((sender, datagram.get(UDP_SIZE..usize::from(half(datagram, 4)?))?))
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// RFC 1071. All parts but the last one have an even number of bytes.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |byte| u32::from(*byte))).sum();
    while sum > u32::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const CLIENT: Endpoint = Endpoint { mac: [2, 0, 0, 0, 0, 1], address: Ipv4Addr::new(10, 0, 0, 9) };
    const SERVER: Endpoint = Endpoint { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(10, 0, 0, 1) };

    /// A frame from the server `server`, with the ports the other way round.
    pub(in crate::dhcp) fn reply_frame(mac: [u8; 6], message: &[u8]) -> Vec<u8> {
        let mut frame = to_server(SERVER, Endpoint { mac, ..CLIENT }, message);
        frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
        frame
    }

    #[test]
    fn frame_has_the_checksums_of_both_headers() {
        for message in [&b"even"[..], b"odd"] {
            let frame = to_server(CLIENT, SERVER, message);
            assert_eq!(frame.len(), 42 + message.len());
            assert_eq!(checksum(&[&frame[14..34]]), 0);
            let size = (8 + message.len() as u16).to_be_bytes();
            assert_eq!(checksum(&[&frame[26..34], &[0, 17], &size, &frame[34..]]), 0);
        }
        let known = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&[&known]), 0xb861);
    }

    #[test]
    fn frame_of_a_server_is_read() {
        let good = reply_frame(CLIENT.mac, b"message");
        assert_eq!(from_server(&good, CLIENT.mac), Some((SERVER.mac, &b"message"[..])));
        assert_eq!(from_server(&reply_frame(BROADCAST_MAC, b""), CLIENT.mac), Some((SERVER.mac, &b""[..])));
        // What the link has added so that the frame is long enough.
        let padded = [&good[..], &[0; 20]].concat();
        assert_eq!(from_server(&padded, CLIENT.mac), Some((SERVER.mac, &b"message"[..])));
    }

    #[test]
    fn frame_of_another_kind_is_rejected() {
        let good = reply_frame(CLIENT.mac, b"message");
        assert_eq!(from_server(&good, [2, 0, 0, 0, 0, 9]), None, "another client's");
        for length in 0..good.len() {
            assert_eq!(from_server(&good[..length], CLIENT.mac), None, "{length} bytes");
        }
        // The checksum of the header covers bytes 14 to 33.
        for at in (6..7).chain(12..34).chain(34..38) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(from_server(&bad, CLIENT.mac), None, "byte {at}");
        }
        for size in [0_u16, 7, 16, u16::MAX] {
            let mut bad = good.clone();
            bad[38..40].copy_from_slice(&size.to_be_bytes());
            assert_eq!(from_server(&bad, CLIENT.mac), None, "UDP length {size}");
        }
    }

    /// What the kernel does with [`FILTER`].
    fn passes(frame: &[u8]) -> bool {
        let (mut a, mut x, mut at) = (0_u32, 0_usize, 0);
        loop {
            let [code, _, if_true, if_false, operand @ ..] = FILTER[at].to_le_bytes();
            let operand = u32::from_le_bytes(operand);
            let offset = operand as usize;
            at += 1;
            match code {
                0x28 | 0x48 => match half(frame, offset + if code == 0x48 { x } else { 0 }) {
                    Some(value) => a = value.into(),
                    None => return false,
                },
                0x30 => a = frame[offset].into(),
                0xb1 => x = usize::from(frame[offset] & 0xf) * 4,
                0x15 | 0x45 => {
                    let is_true = if code == 0x15 { a == operand } else { a & operand != 0 };
                    at += usize::from(if is_true { if_true } else { if_false });
                }
                0x06 => return operand > 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn filter_passes_datagrams_to_the_client() {
        let good = reply_frame(CLIENT.mac, b"message");
        assert!(passes(&good));
        for (at, why) in [(12, "ethertype"), (23, "protocol"), (20, "a fragment"), (37, "port")] {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert!(!passes(&bad), "{why}");
        }
        let mut with_options = good.clone();
        with_options[14] = 0x46;
        with_options.splice(34..34, [0; 4]);
        assert!(passes(&with_options));
    }
}
