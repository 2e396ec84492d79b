// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header before each frame, and what each side may write there. Pure. Virtio 1.3, 5.1.6
//! (`struct virtio_net_hdr`).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const HEADER_SIZE: usize = size_of::<Header>();
/// Two addresses and a type.
pub(super) const MIN_FRAME_BYTES: usize = 14;
/// A segmented frame: the largest IP packet, and an Ethernet header with a VLAN tag.
pub(super) const MAX_FRAME_BYTES: usize = 65_535 + 18;

/// Bytes of a packet of the guest that decide about it: the header, and the frame's up to the protocol in an IP packet.
pub(super) const CHECKED_BYTES: usize = 64;

const NEEDS_CHECKSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const DATA_VALID: u8 = VIRTIO_NET_HDR_F_DATA_VALID as u8;
const ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;
const NO_SEGMENTS: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const TCP_V4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const TCP_V6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;
const UDP: u8 = VIRTIO_NET_HDR_GSO_UDP_L4 as u8;
const VLAN_TAG_SIZE: usize = 4;
pub(super) const ADDRESSES_SIZE: usize = 12;
/// Before an IP packet that may be segmented.
const MAX_VLAN_TAGS: usize = 2;

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    flags: u8,
    segmentation: u8,
    header_length: U16,
    segment_size: U16,
    checksum_start: U16,
    checksum_offset: U16,
    /// Only to the driver: chains that the packet fills.
    buffers: U16,
}

/// The feature bits of one direction.
struct Offloads {
    checksum: u32,
    tcp_v4: u32,
    tcp_v6: u32,
    ecn: u32,
    udp_v4: u32,
    udp_v6: u32,
}

const FROM_GUEST: Offloads = Offloads {
    checksum: VIRTIO_NET_F_CSUM,
    tcp_v4: VIRTIO_NET_F_HOST_TSO4,
    tcp_v6: VIRTIO_NET_F_HOST_TSO6,
    ecn: VIRTIO_NET_F_HOST_ECN,
    udp_v4: VIRTIO_NET_F_HOST_USO,
    udp_v6: VIRTIO_NET_F_HOST_USO,
};

const TO_GUEST: Offloads = Offloads {
    checksum: VIRTIO_NET_F_GUEST_CSUM,
    tcp_v4: VIRTIO_NET_F_GUEST_TSO4,
    tcp_v6: VIRTIO_NET_F_GUEST_TSO6,
    ecn: VIRTIO_NET_F_GUEST_ECN,
    udp_v4: VIRTIO_NET_F_GUEST_USO4,
    udp_v6: VIRTIO_NET_F_GUEST_USO6,
};

impl Offloads {
    const fn all(&self, udp: bool) -> u64 {
        let tcp = 1 << self.checksum | 1 << self.tcp_v4 | 1 << self.tcp_v6 | 1 << self.ecn;
        if udp { tcp | 1 << self.udp_v4 | 1 << self.udp_v6 } else { tcp }
    }

    /// Whether `header` before a frame of `length` bytes that begins with `start` is possible with `features`: each
    /// field that means something has a value that was negotiated and that the frame bears out.
    fn permit(&self, header: &Header, start: &[u8], length: usize, features: u64) -> bool {
        let has = |bit: u32| features & 1 << bit != 0;
        let needs_checksum = header.flags & NEEDS_CHECKSUM != 0;
        if needs_checksum {
            let place = usize::from(header.checksum_start.get());
            let end = place + usize::from(header.checksum_offset.get()) + 2;
            if !has(self.checksum) || place < MIN_FRAME_BYTES || end > length {
                return false;
            }
        }
        if header.segmentation == NO_SEGMENTS {
            return true;
        }
        if header.segmentation & ECN != 0 && (!has(self.ecn) || header.segmentation == UDP | ECN) {
            return false;
        }
        // The type says what the frame is, and the host's kernel and the guest's rely on it.
        let segments = match (header.segmentation & !ECN, IpPacket::of(start)) {
            (TCP_V4, Some(IpPacket { version: 4, protocol: Some(6) | None })) => Some((self.tcp_v4, 16, 20)),
            (TCP_V6, Some(IpPacket { version: 6, protocol: Some(6) | None })) => Some((self.tcp_v6, 16, 20)),
            (UDP, Some(IpPacket { version: 4, protocol: Some(17) | None })) => Some((self.udp_v4, 6, 8)),
            (UDP, Some(IpPacket { version: 6, protocol: Some(17) | None })) => Some((self.udp_v6, 6, 8)),
            _ => None,
        };
        let Some((feature, checksum_offset, transport_size)) = segments else { return false };
        let payload = usize::from(header.checksum_start.get()) + transport_size;
        has(feature)
            && needs_checksum
            && header.checksum_offset.get() == checksum_offset
            && header.segment_size.get() > 0
            && payload <= length
            && usize::from(header.header_length.get()) <= length
    }
}

/// What a frame carries, as far as its first bytes tell.
struct IpPacket {
    version: u8,
    /// `None` if it is behind extension headers.
    protocol: Option<u8>,
}

impl IpPacket {
    fn of(frame: &[u8]) -> Option<Self> {
        let mut rest = frame.get(ADDRESSES_SIZE..)?;
        for _ in 0..=MAX_VLAN_TAGS {
            let (kind, packet) = rest.split_first_chunk::<2>()?;
            match u32::from(u16::from_be_bytes(*kind)) as i32 {
                libc::ETH_P_8021Q | libc::ETH_P_8021AD => rest = packet.get(2..)?,
                libc::ETH_P_IP => return Some(Self { version: 4, protocol: Some(*packet.get(9)?) }),
                libc::ETH_P_IPV6 => {
                    let protocol = *packet.get(6)?;
                    return Some(Self { version: 6, protocol: Some(protocol).filter(|next| [6, 17].contains(next)) });
                }
                _ => return None,
            }
        }
        None
    }
}

/// Features with which the guest leaves checksums and segments to a host that can do `udp`
/// segments, or not.
pub(super) const fn host_offloads(udp: bool) -> u64 {
    FROM_GUEST.all(udp)
}

/// Features with which the host leaves them to the guest.
pub(super) const fn guest_offloads(udp: bool) -> u64 {
    TO_GUEST.all(udp)
}

/// Whether a driver that accepted `features` may have `offloads` left to it: bits of the features, and
/// each with those that it requires. Virtio 1.3, 5.1.3.1 and 5.1.6.5.8.
pub(super) const fn is_offload_set(offloads: u64, features: u64) -> bool {
    let checksum = 1 << TO_GUEST.checksum;
    let tcp = 1 << TO_GUEST.tcp_v4 | 1 << TO_GUEST.tcp_v6;
    offloads & !(features & TO_GUEST.all(true)) == 0
        && (offloads & checksum != 0 || offloads == 0)
        && (offloads & tcp != 0 || offloads & 1 << TO_GUEST.ecn == 0)
}

/// What a driver and its device agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Features that both sides have.
    pub(super) features: u64,
    /// Features of frames to the guest: those that both sides have, unless the driver has switched
    /// offloads off.
    to_guest: u64,
    /// Largest frame that is not segmented.
    pub(super) max_frame_bytes: usize,
}

impl Rules {
    /// `mtu` is that of the configuration space, if the driver knows it.
    pub(super) fn new(features: u64, mtu: Option<u16>) -> Self {
        let max_frame_bytes = mtu.map_or(MAX_FRAME_BYTES, |mtu| usize::from(mtu) + MIN_FRAME_BYTES + VLAN_TAG_SIZE);
        Self { features, to_guest: features, max_frame_bytes }
    }

    /// Whether a packet may fill several buffers.
    pub(super) fn is_merging(&self) -> bool {
        self.features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0
    }

    /// Leaves to the guest what `offloads` has, in place of all that was negotiated. Returns the
    /// features for the backend.
    pub(super) fn set_offloads(&mut self, offloads: u64) -> u64 {
        self.to_guest = self.features & !TO_GUEST.all(true) | offloads;
        self.to_guest
    }

    fn permit_length(&self, header: &Header, length: usize) -> bool {
        let is_segmented = header.segmentation != NO_SEGMENTS;
        let max = if is_segmented { MAX_FRAME_BYTES } else { self.max_frame_bytes };
        (MIN_FRAME_BYTES..=max).contains(&length)
    }

    /// Completes the header of `packet`, header and frame, which came from the host. `false` if
    /// the driver cannot handle the frame: it is too long, or was queued before the offloads were
    /// set. The number of buffers is left open.
    pub(super) fn prepare_received(&self, packet: &mut [u8]) -> bool {
        let Ok((header, frame)) = Header::mut_from_prefix(packet) else { return false };
        header.flags &= NEEDS_CHECKSUM | DATA_VALID;
        if self.to_guest & 1 << VIRTIO_NET_F_GUEST_CSUM == 0 {
            // The kernel sets DATA_VALID for any offloads.
            header.flags &= !DATA_VALID;
            if header.segmentation == NO_SEGMENTS && header.flags == NEEDS_CHECKSUM && !complete_checksum(header, frame)
            {
                return false;
            }
        }
        self.permit_length(header, frame.len()) && TO_GUEST.permit(header, frame, frame.len(), self.to_guest)
    }

    /// Whether the driver may send a packet of `length` bytes, header and frame, which begins with `start`: all of it,
    /// or at least [`CHECKED_BYTES`]. The host's kernel checks again; this check rejects invalid packets early, and
    /// everything that was not negotiated.
    pub(super) fn may_be_sent(&self, start: &[u8], length: usize) -> bool {
        let Ok((header, start)) = Header::ref_from_prefix(start) else { return false };
        let length = length - HEADER_SIZE;
        header.flags & !NEEDS_CHECKSUM == 0
            && self.permit_length(header, length)
            && FROM_GUEST.permit(header, start, length, self.features)
    }
}

/// Writes the checksum that `header` requests. `false` if it is outside the frame.
fn complete_checksum(header: &mut Header, frame: &mut [u8]) -> bool {
    let start = usize::from(header.checksum_start.get());
    let place = start + usize::from(header.checksum_offset.get());
    if start < MIN_FRAME_BYTES || place + 2 > frame.len() {
        return false;
    }
    // The place holds the sum of the pseudo header.
    let pairs = frame[start..].chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // For UDP zero means that there is none; for others both stand for the same.
    let checksum = if sum == 0xffff { 0xffff } else { !(sum as u16) };
    frame[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
    *header = Header::default();
    true
}

/// Sets the number of chains that `packet` fills.
pub(super) fn set_buffers(packet: &mut [u8], buffers: u16) {
    if let Ok((header, _)) = Header::mut_from_prefix(packet) {
        header.buffers = buffers.into();
    }
}

/// Packets on the wire that a packet of `length` bytes, header and frame, becomes, which begins with `start`.
pub(super) fn segments(start: &[u8], length: usize) -> u64 {
    match Header::ref_from_prefix(start) {
        Ok((header, _)) if header.segmentation != NO_SEGMENTS => {
            ((length - HEADER_SIZE) as u64).div_ceil(u64::from(header.segment_size.get()).max(1))
        }
        _ => 1,
    }
}

/// Puts a VLAN tag that the kernel took out of a frame back to its place. `packet` has a header and
/// a frame behind the space of a tag; afterwards all of it is used.
pub(super) fn insert_vlan_tag(packet: &mut [u8], tag: [u8; VLAN_TAG_SIZE]) {
    const HEADER_AND_ADDRESSES: usize = HEADER_SIZE + ADDRESSES_SIZE;
    if packet.len() < VLAN_TAG_SIZE + HEADER_AND_ADDRESSES {
        return;
    }
    packet.copy_within(VLAN_TAG_SIZE..VLAN_TAG_SIZE + HEADER_AND_ADDRESSES, 0);
    packet[HEADER_AND_ADDRESSES..HEADER_AND_ADDRESSES + VLAN_TAG_SIZE].copy_from_slice(&tag);
    let Ok((header, _)) = Header::mut_from_prefix(packet) else { return };
    let moved = |place: U16| place.get().saturating_add(VLAN_TAG_SIZE as u16).into();
    if header.flags & NEEDS_CHECKSUM != 0 {
        header.checksum_start = moved(header.checksum_start);
    }
    if header.segmentation != NO_SEGMENTS {
        header.header_length = moved(header.header_length);
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
