// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header's fields, one by one, in both directions.

use super::*;
use proptest::prelude::*;

const ALL: u64 = FROM_GUEST.all(true) | TO_GUEST.all(true);

/// A header, and the start of a TCP or UDP frame of this length.
#[derive(Clone, Copy)]
struct Case {
    flags: u8,
    segmentation: u8,
    header_length: u16,
    segment_size: u16,
    start: u16,
    offset: u16,
    ethernet_type: u16,
    protocol: u8,
    length: usize,
}

const PLAIN: Case = Case {
    flags: 0,
    segmentation: 0,
    header_length: 0,
    segment_size: 0,
    start: 0,
    offset: 0,
    ethernet_type: 0x800,
    protocol: 6,
    length: 60,
};
const SUMMED: Case = Case { flags: 1, start: 34, offset: 16, ..PLAIN };
const TCP4: Case = Case { segmentation: 1, header_length: 54, segment_size: 1448, length: 4000, ..SUMMED };
const TCP6: Case = Case { segmentation: 4, header_length: 74, start: 54, ethernet_type: 0x86dd, ..TCP4 };
const UDP4: Case = Case { segmentation: 5, header_length: 42, offset: 6, protocol: 17, ..TCP4 };
const UDP6: Case = Case { segmentation: 5, header_length: 62, offset: 6, protocol: 17, ..TCP6 };

impl Case {
    fn packet(self) -> Vec<u8> {
        let fields = [self.header_length, self.segment_size, self.start, self.offset, 0];
        let mut packet = vec![self.flags, self.segmentation];
        packet.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        packet.resize(HEADER_SIZE + self.length, 0);
        let mut put = |place: usize, bytes: &[u8]| {
            if let Some(to) = packet.get_mut(HEADER_SIZE + place..HEADER_SIZE + place + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(12, &self.ethernet_type.to_be_bytes());
        put(if self.ethernet_type == 0x800 { 23 } else { 20 }, &[self.protocol]);
        packet
    }

    fn is_sent(self, features: u64) -> bool {
        may_be_sent(Rules::new(features, None), &self.packet())
    }

    /// The header that the guest sees.
    fn received(self, features: u64) -> Option<Vec<u8>> {
        let mut packet = self.packet();
        Rules::new(features, None).prepare_received(&mut packet).then(|| packet[..HEADER_SIZE].to_vec())
    }
}

/// By all of the packet, which its start must not contradict.
fn may_be_sent(rules: Rules, packet: &[u8]) -> bool {
    let start = &packet[..packet.len().min(CHECKED_BYTES)];
    let answer = rules.may_be_sent(packet, packet.len());
    assert_eq!(rules.may_be_sent(start, packet.len()), answer);
    answer
}

fn bit(feature: u32) -> u64 {
    1 << feature
}

#[test]
fn plain_frame_passes_if_its_length_is_possible() {
    let lengths = [0, 1, 13, 14, 1514, 65_553, 65_554].map(|length| Case { length, ..PLAIN });
    assert_eq!(lengths.map(|case| case.is_sent(0)), [false, false, false, true, true, true, false]);
    assert_eq!(lengths.map(|case| case.received(0).is_some()), [false, false, false, true, true, true, false]);
    assert!((0..HEADER_SIZE).all(|length| !may_be_sent(Rules::new(ALL, None), &vec![0; length])));
}

#[test]
fn mtu_bounds_frames_that_are_not_segmented() {
    let rules = Rules::new(ALL, Some(1500));
    let fits = |case: Case| (may_be_sent(rules, &case.packet()), rules.prepare_received(&mut case.packet()));
    assert_eq!(fits(Case { length: 1518, ..PLAIN }), (true, true));
    assert_eq!(fits(Case { length: 1519, ..PLAIN }), (false, false));
    assert_eq!(fits(TCP4), (true, true));
}

#[test]
fn checksum_request_must_be_negotiated_and_inside_the_frame() {
    let csum = bit(VIRTIO_NET_F_CSUM);
    let request = |start, offset| Case { start, offset, ..SUMMED };
    assert!(request(34, 24).is_sent(csum));
    assert!(!request(34, 24).is_sent(0));
    assert!(!request(34, 25).is_sent(csum));
    assert!(!request(13, 24).is_sent(csum), "inside the addresses");
    assert!(!request(u16::MAX, u16::MAX).is_sent(csum));
    let flags = (0..=255).filter(|&flags| Case { flags, ..SUMMED }.is_sent(ALL)).collect::<Vec<_>>();
    assert_eq!(flags, [0, 1]);
}

#[test]
fn segments_need_their_feature_a_checksum_and_a_size() {
    let kinds = [
        (TCP4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4),
        (TCP6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6),
        (UDP4, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4),
        (UDP6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO6),
    ];
    for (case, from_guest, to_guest) in kinds {
        assert!(case.is_sent(ALL) && case.received(ALL).is_some());
        assert!(!case.is_sent(ALL & !bit(from_guest)));
        assert!(case.received(ALL & !bit(to_guest)).is_none());
        let wrong = [
            Case { segment_size: 0, ..case },
            Case { flags: 0, ..case },
            Case { offset: case.offset + 1, ..case },
            Case { start: 3993, ..case },
            Case { header_length: 4001, ..case },
            Case { ethernet_type: 0x806, ..case },
            Case { protocol: 6 ^ 17 ^ case.protocol, ..case },
            Case { length: 20, ..case },
        ];
        for (number, wrong) in wrong.into_iter().enumerate() {
            assert!(!wrong.is_sent(ALL) && wrong.received(ALL).is_none(), "{number} of {}", case.segmentation);
        }
    }
}

#[test]
fn segmentation_types_are_those_of_the_frame() {
    let sent = |case: Case| {
        let kinds = (0..=255).filter(|&segmentation| Case { segmentation, ..case }.is_sent(ALL));
        kinds.collect::<Vec<u8>>()
    };
    assert_eq!(sent(TCP4), [0, 1, 0x81]);
    assert_eq!(sent(TCP6), [0, 4, 0x84]);
    assert_eq!(sent(UDP4), [0, 5], "congestion bits are of TCP");
    let swapped = [Case { segmentation: 4, ..TCP4 }, Case { segmentation: 1, ..TCP6 }];
    assert_eq!(swapped.map(|case| case.is_sent(ALL)), [false; 2]);
    assert!(!Case { segmentation: 0x81, ..TCP4 }.is_sent(ALL & !bit(VIRTIO_NET_F_HOST_ECN)));
}

#[test]
fn vlan_tags_may_be_before_a_segmented_packet() {
    let tagged = |tags: usize| {
        let mut packet = Case { start: 34 + 4 * tags as u16, length: 4000, ..TCP4 }.packet();
        let place = HEADER_SIZE + ADDRESSES_SIZE;
        for _ in 0..tags {
            packet.splice(place..place, [0x81, 0, 0, 7]);
        }
        packet
    };
    let fits = [0, 1, 2, 3].map(|tags| may_be_sent(Rules::new(ALL, None), &tagged(tags)));
    assert_eq!(fits, [true, true, true, false]);
}

#[test]
fn received_header_has_only_what_was_negotiated() {
    let guest_csum = bit(VIRTIO_NET_F_GUEST_CSUM);
    let flags = |case: Case, features| case.received(features).map(|header| header[0]);
    assert_eq!(flags(PLAIN, 0), Some(0));
    assert_eq!(flags(Case { flags: 2, ..PLAIN }, 0), Some(0), "no DATA_VALID without GUEST_CSUM");
    assert_eq!(flags(Case { flags: 0xfe, ..PLAIN }, guest_csum), Some(2), "unknown flags are removed");
    assert_eq!(flags(SUMMED, guest_csum), Some(1));
    assert_eq!(flags(Case { offset: 25, ..SUMMED }, guest_csum), None);
    assert_eq!(flags(Case { offset: 25, ..SUMMED }, 0), None);
}

#[test]
fn checksum_that_the_driver_cannot_complete_is_completed_here() {
    let mut packet = Case { length: 61, ..SUMMED }.packet();
    let frame = HEADER_SIZE + 34;
    packet[frame..frame + 4].copy_from_slice(&[0xff, 0xfe, 0, 3]);
    // The sum of the pseudo header, and an odd last byte.
    packet[frame + 16..frame + 18].copy_from_slice(&[0x10, 0]);
    packet[HEADER_SIZE + 60] = 0x20;
    assert!(Rules::new(0, None).prepare_received(&mut packet));
    // 0xfffe + 3 + 0x1000 + 0x2000 = 0x1_3001, folded 0x3002.
    assert_eq!(packet[frame + 16..frame + 18], (!0x3002_u16).to_be_bytes());
    assert_eq!(packet[..HEADER_SIZE], [0; HEADER_SIZE]);
}

#[test]
fn checksum_of_zero_is_written_as_ones() {
    let mut packet = SUMMED.packet();
    packet[HEADER_SIZE + 34 + 16..][..2].copy_from_slice(&[0xff, 0xff]);
    assert!(Rules::new(0, None).prepare_received(&mut packet));
    assert_eq!(packet[HEADER_SIZE + 34 + 16..][..2], [0xff, 0xff]);
}

#[test]
fn vlan_tag_returns_to_its_place_and_moves_the_offsets() {
    let packet = TCP4.packet();
    let mut tagged = [&[0; 4][..], &packet].concat();
    insert_vlan_tag(&mut tagged, [0x81, 0, 0, 7]);
    assert_eq!(tagged[..HEADER_SIZE], Case { start: 38, header_length: 58, ..TCP4 }.packet()[..HEADER_SIZE]);
    assert_eq!(tagged[HEADER_SIZE + 12..HEADER_SIZE + 18], [0x81, 0, 0, 7, 8, 0]);
    assert_eq!(tagged[HEADER_SIZE + 18..], packet[HEADER_SIZE + 14..]);
    let mut short = vec![1; HEADER_SIZE + 15];
    insert_vlan_tag(&mut short, [0; 4]);
    assert_eq!(short, vec![1; HEADER_SIZE + 15]);
}

#[test]
fn segments_are_counted_by_their_size() {
    let counted = |case: Case| segments(&case.packet()[..CHECKED_BYTES], case.packet().len());
    assert_eq!(counted(PLAIN), 1);
    assert_eq!(counted(TCP4), 3);
    assert_eq!(counted(Case { segment_size: 0, ..TCP4 }), 4000);
}

proptest! {
    #[test]
    fn check_passes_no_bytes_without_their_features(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let plain = bytes.len() >= HEADER_SIZE + MIN_FRAME_BYTES && bytes[0] == 0 && bytes[1] == 0;
        prop_assert_eq!(may_be_sent(Rules::new(0, None), &bytes), plain);
        may_be_sent(Rules::new(u64::MAX, Some(0)), &bytes);
        Rules::new(0, None).prepare_received(&mut bytes.clone());
        let mut received = bytes.clone();
        if Rules::new(u64::MAX, None).prepare_received(&mut received) {
            prop_assert_eq!(&received[HEADER_SIZE..], &bytes[HEADER_SIZE..]);
        }
    }
}
