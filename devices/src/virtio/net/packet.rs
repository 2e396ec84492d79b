// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header before each frame, and what each side may write there. Pure. Virtio 1.3, 5.1.6
//! (`struct virtio_net_hdr`).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const HEADER_SIZE: usize = size_of::<Header>();
/// Two addresses and a type.
pub(super) const MIN_FRAME_BYTES: usize = 14;
/// A segmented frame: the largest IP packet, and an Ethernet header with a VLAN tag.
pub(super) const MAX_FRAME_BYTES: usize = 65_535 + 18;

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    flags: u8,
    segmentation: u8,
    header_length: U16,
    segment_size: U16,
    checksum_start: U16,
    checksum_offset: U16,
    /// Only to the driver; always 1 there, because buffers are not merged.
    buffers: U16,
}

/// Completes the header of `packet`, header and frame, which came from the host's kernel, for a
/// driver that accepted `features`. `false` if the driver cannot handle the frame: the kernel
/// queued it before its offloads were set.
pub(super) fn prepare_received(packet: &mut [u8], features: u64) -> bool {
    let Ok((header, _)) = Header::mut_from_prefix(packet) else { return false };
    // The kernel does not write this field.
    header.buffers = 1.into();
    if u32::from(header.segmentation) != VIRTIO_NET_HDR_GSO_NONE {
        return false;
    }
    if features & 1 << VIRTIO_NET_F_GUEST_CSUM == 0 {
        // The kernel sets DATA_VALID for any offloads.
        header.flags &= !(VIRTIO_NET_HDR_F_DATA_VALID as u8);
        return u32::from(header.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM == 0;
    }
    true
}

/// Whether a driver that accepted `features` may send `packet`, header and frame. The host's kernel
/// checks again; this check rejects invalid packets early, and everything that was not negotiated.
pub(super) fn may_be_sent(packet: &[u8], features: u64) -> bool {
    let Ok((header, frame)) = Header::read_from_prefix(packet) else { return false };
    if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame.len()) {
        return false;
    }
    let has = |bit: u32| features & 1 << bit != 0;
    let checksum = match u32::from(header.flags) {
        0 => false,
        VIRTIO_NET_HDR_F_NEEDS_CSUM if has(VIRTIO_NET_F_CSUM) => true,
        _ => return false,
    };
    let checksum_end = usize::from(header.checksum_start.get()) + usize::from(header.checksum_offset.get()) + 2;
    if checksum && checksum_end > frame.len() {
        return false;
    }
    let feature = match u32::from(header.segmentation) {
        VIRTIO_NET_HDR_GSO_NONE => return true,
        VIRTIO_NET_HDR_GSO_TCPV4 => VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_HDR_GSO_TCPV6 => VIRTIO_NET_F_HOST_TSO6,
        _ => return false,
    };
    let header_fits = usize::from(header.header_length.get()) <= frame.len();
    has(feature) && checksum && header.segment_size.get() > 0 && header_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSUM: u64 = 1;
    const TSO4: u64 = 1 << 11;
    const TSO6: u64 = 1 << 12;

    fn packet(header: [u16; 5], length: usize) -> Vec<u8> {
        // The first two bytes are flags and segmentation.
        let bytes = header.iter().flat_map(|field| field.to_le_bytes()).chain([0; 2]);
        bytes.chain(std::iter::repeat_n(0, length)).collect()
    }

    #[test]
    fn plain_frame_is_sent_if_its_length_is_possible() {
        let may = |length| may_be_sent(&packet([0; 5], length), 0);
        assert_eq!([0, 13, 14, 65_553, 65_554].map(may), [false, false, true, true, false]);
        assert!((0..HEADER_SIZE).all(|length| !may_be_sent(&vec![0; length], CSUM)));
    }

    #[test]
    fn checksum_request_must_be_negotiated_and_inside_the_frame() {
        let checksum = |start, offset| packet([1, 0, 0, start, offset], 60);
        assert!(may_be_sent(&checksum(34, 24), CSUM));
        assert!(!may_be_sent(&checksum(34, 24), 0));
        assert!(!may_be_sent(&checksum(34, 25), CSUM));
        assert!(!may_be_sent(&checksum(u16::MAX, u16::MAX), CSUM));
    }

    #[test]
    fn segmentation_needs_its_feature_a_checksum_and_a_size() {
        let all = CSUM | TSO4 | TSO6;
        let segmented = |kind: u16, size| packet([1 | kind << 8, 54, size, 34, 16], 4000);
        assert!(may_be_sent(&segmented(1, 1448), all));
        assert!(may_be_sent(&segmented(4, 1448), all));
        assert!(!may_be_sent(&segmented(1, 1448), CSUM | TSO6));
        assert!(!may_be_sent(&segmented(4, 1448), CSUM | TSO4));
        assert!(!may_be_sent(&segmented(1, 0), all));
        assert!(!may_be_sent(&packet([1 << 8, 54, 1448, 0, 0], 4000), all));
        let kinds = (0..=255).filter(|&kind| may_be_sent(&segmented(kind, 1448), all)).collect::<Vec<_>>();
        assert_eq!(kinds, [0, 1, 4]);
    }

    #[test]
    fn received_header_has_only_what_was_negotiated() {
        const GUEST_CSUM: u64 = 1 << 1;
        let received = |flags: u16, segmentation: u16, features| {
            let mut packet = packet([flags | segmentation << 8, 0, 0, 0, 0], 60);
            prepare_received(&mut packet, features).then(|| (packet[0], [packet[10], packet[11]]))
        };
        assert_eq!(received(0, 0, 0), Some((0, [1, 0])));
        assert_eq!(received(2, 0, 0), Some((0, [1, 0])), "no DATA_VALID without GUEST_CSUM");
        assert_eq!(received(2, 0, GUEST_CSUM), Some((2, [1, 0])));
        assert_eq!(received(1, 0, GUEST_CSUM), Some((1, [1, 0])));
        assert_eq!(received(1, 0, 0), None, "the checksum is missing");
        assert_eq!(received(0, 1, GUEST_CSUM), None, "segments are never offered");
    }

    proptest! {
        #[test]
        fn check_passes_no_bytes_without_their_features(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let plain = bytes.len() >= HEADER_SIZE + MIN_FRAME_BYTES && bytes[0] == 0 && bytes[1] == 0;
            prop_assert_eq!(may_be_sent(&bytes, 0), plain);
            may_be_sent(&bytes, u64::MAX);
        }
    }
}
