// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control queue: commands, their answers, and what they do to the frames of a tap.

use super::bench::*;
use super::filter::MAX_ADDRESSES;
use super::*;
use crate::testing::Buffer;
use crate::virtio::VirtioDevice;
use rustix::net::{SendFlags, send};
use std::os::fd::OwnedFd;

const CSUM: u64 = 1 << 1;
const TSO4: u64 = 1 << 7;
const ECN: u64 = 1 << 9;
const CONTROL_FEATURES: u64 = 0b11_1111 << 17 & !(1 << 21 | 1 << 22) | 1 << 23;
const OK: u8 = 0;
const ERR: u8 = 1;
const BROADCAST: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];

struct Controlled {
    bench: Bench,
    network: OwnedFd,
}

fn controlled(features: u64) -> Controlled {
    let (tap, network) = Tap::pair();
    Controlled { bench: bench(tap, features), network }
}

impl Bench {
    /// Sends one command, and returns the answer.
    fn command(&mut self, bytes: &[u8]) -> u8 {
        let offered = self.driver.offer(CONTROL, &[Buffer::Readable(bytes), Buffer::Writable(1)]);
        self.process(worker::CONTROL);
        assert_eq!(self.driver.returned(CONTROL), Some((offered.head, 1)));
        self.driver.contents(&offered, 1)[0]
    }

    fn address(&self) -> [u8; 6] {
        let mut address = [0; 6];
        self.net.read_config(0, &mut address);
        address
    }
}

impl Controlled {
    fn command(&mut self, bytes: &[u8]) -> u8 {
        self.bench.command(bytes)
    }

    /// Whether the guest gets a frame that starts so. Nothing counts as dropped.
    fn gets(&mut self, start: &[u8]) -> bool {
        let frame = [start, &[0; 60]].concat();
        send(&self.network, &packet(&frame), SendFlags::DONTWAIT).unwrap();
        let mut buffers = self.bench.offer(1, 1526);
        self.bench.backend_changed();
        assert_eq!(self.bench.passed().1, 0);
        if let Some(packet) = self.bench.received(&mut buffers) {
            assert_eq!(packet[12..], frame);
            return true;
        }
        // The buffer goes to a frame that is always wanted.
        let last = [&[0; 12][..], &MAC, &[7; 54]].concat();
        self.bench.command(&[0, 0, 1]);
        send(&self.network, &last, SendFlags::DONTWAIT).unwrap();
        self.bench.backend_changed();
        assert_eq!(self.bench.received(&mut buffers), Some([&[0; 10][..], &[1, 0], &last[12..]].concat()));
        self.bench.command(&[0, 0, 0]);
        false
    }

    /// Which of the frames to its address, a group, everybody and another address it gets.
    fn gets_each(&mut self) -> [bool; 4] {
        [MAC, GROUP, BROADCAST, OTHER].map(|to| self.gets(&to))
    }
}

/// The command that sets both tables.
fn tables(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for table in [unicast, multicast] {
        bytes.extend((table.len() as u32).to_le_bytes());
        bytes.extend(table.concat());
    }
    bytes
}

#[test]
fn frames_pass_unfiltered_for_a_driver_without_the_control_queue() {
    for features in [0, CONTROL_FEATURES & !(1 << 17), 1 << 17] {
        assert_eq!(controlled(features).gets_each(), [true; 4], "{features:#x}");
    }
}

#[test]
fn filter_starts_with_the_address_and_broadcasts() {
    assert_eq!(controlled(CONTROL_FEATURES).gets_each(), [true, false, true, false]);
}

#[test]
fn modes_choose_kinds_of_frames() {
    // Number of the mode, and which frames pass while it is on.
    let cases = [
        (0, [true; 4]),
        (1, [true, true, true, false]),
        (2, [true, false, true, true]),
        (3, [true, false, true, false]),
        (4, [false, false, true, false]),
        (5, [true, false, false, false]),
    ];
    for (mode, expected) in cases {
        let mut controlled = controlled(CONTROL_FEATURES);
        assert_eq!(controlled.command(&[0, mode, 1]), OK);
        if mode > 0 {
            assert_eq!(controlled.gets_each(), expected, "mode {mode}");
        } else {
            assert!([MAC, GROUP, BROADCAST, OTHER].iter().all(|to| controlled.gets(to)));
        }
        assert_eq!(controlled.command(&[0, mode, 0]), OK);
        assert_eq!(controlled.gets_each(), [true, false, true, false], "mode {mode} off");
    }
    let mut all_but = controlled(CONTROL_FEATURES);
    for mode in [1, 2, 3, 4] {
        assert_eq!(all_but.command(&[0, mode, 1]), OK);
    }
    assert_eq!(all_but.gets_each(), [false, false, true, false], "none is stronger than all");
}

#[test]
fn tables_admit_their_addresses_and_everything_when_too_long() {
    let mut controlled = controlled(CONTROL_FEATURES);
    assert_eq!(controlled.command(&tables(&[OTHER], &[GROUP])), OK);
    assert_eq!(controlled.gets_each(), [true; 4]);
    assert!(!controlled.gets(&[0x52, 0x54, 0, 0, 0, 10]) && !controlled.gets(&[0x33, 0x33, 0, 0, 0, 2]));
    assert_eq!(controlled.command(&tables(&[], &[])), OK);
    assert_eq!(controlled.gets_each(), [true, false, true, false]);
    let many = [[2, 0, 0, 0, 0, 1]; MAX_ADDRESSES + 1];
    assert_eq!(controlled.command(&tables(&many, &[])), OK);
    assert_eq!(controlled.gets_each(), [true, false, true, true]);
    assert_eq!(controlled.command(&tables(&many[1..], &many)), OK);
    assert_eq!(controlled.gets_each(), [true, true, true, false]);
}

#[test]
fn address_is_set_until_the_reset_and_shown() {
    let mut controlled = controlled(CONTROL_FEATURES);
    let generation = controlled.bench.driver.interrupt.config_generation();
    assert_eq!(controlled.command(&[&[1, 1], &OTHER[..]].concat()), OK);
    assert_eq!(controlled.bench.address(), OTHER);
    assert_ne!(controlled.bench.driver.interrupt.config_generation(), generation);
    assert_eq!(controlled.gets_each(), [false, false, true, true]);
    for invalid in [[0; 6], GROUP, BROADCAST] {
        assert_eq!(controlled.command(&[&[1, 1], &invalid[..]].concat()), ERR);
    }
    assert_eq!(controlled.bench.address(), OTHER);
    controlled.bench.worker = None;
    assert_eq!(controlled.bench.address(), MAC, "the driver has reset the device");
    controlled.bench.activate(CONTROL_FEATURES);
    assert_eq!(controlled.gets_each(), [true, false, true, false]);
}

#[test]
fn vlans_pass_if_they_are_in_the_table() {
    let mut controlled = controlled(CONTROL_FEATURES);
    let tagged = |vlan: u16, kind: [u8; 2]| [&MAC[..], &HOST_MAC, &kind, &vlan.to_be_bytes()].concat();
    let numbers = [1, 63, 64, 4095];
    for vlan in numbers {
        assert!(!controlled.gets(&tagged(vlan, [0x81, 0])));
        assert_eq!(controlled.command(&[&[2, 0][..], &vlan.to_le_bytes()].concat()), OK);
        assert!(controlled.gets(&tagged(0xe000 | vlan, [0x81, 0])), "with a priority");
    }
    assert!(controlled.gets(&tagged(0xe000, [0x81, 0])), "a priority only");
    assert!(controlled.gets(&tagged(77, [0x88, 0xa8])), "a provider's tag");
    for vlan in numbers {
        assert_eq!(controlled.command(&[&[2, 1][..], &vlan.to_le_bytes()].concat()), OK);
        assert!(!controlled.gets(&tagged(vlan, [0x81, 0])));
    }
    assert_eq!(controlled.command(&[2, 0, 0, 0x10]), ERR, "4096");
    assert_eq!(controlled.command(&[0, 0, 1]), OK);
    assert!(controlled.gets(&tagged(77, [0x81, 0])), "promiscuous");
}

#[test]
fn invalid_commands_are_rejected_and_change_nothing() {
    let mut controlled = controlled(CONTROL_FEATURES);
    let mut invalid = vec![vec![0], vec![0, 0], vec![0, 0, 2], vec![0, 0, 1, 0], vec![0, 6, 1], vec![1, 2, 0, 0]];
    invalid.extend([vec![3, 0], vec![4, 0, 1, 0], vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 0], vec![255, 255]]);
    let table = tables(&[OTHER], &[GROUP]);
    invalid.extend((2..table.len()).map(|length| table[..length].to_vec()));
    invalid.push([&table[..], &[0]].concat());
    for count in [2, 3, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for place in [2, 12] {
            let mut wrong = table.clone();
            wrong[place..place + 4].copy_from_slice(&u32::to_le_bytes(count));
            invalid.push(wrong);
        }
    }
    invalid.extend((2..8).map(|length| [&[1, 1][..], &OTHER].concat()[..length].to_vec()));
    invalid.extend([vec![2, 0], vec![2, 0, 1], vec![2, 0, 1, 0, 0], vec![2, 2, 1, 0]]);
    for bytes in invalid {
        assert_eq!(controlled.command(&bytes), ERR, "{bytes:?}");
    }
    assert_eq!(controlled.bench.address(), MAC);
    assert_eq!(controlled.gets_each(), [true, false, true, false]);
}

#[test]
fn commands_need_their_feature() {
    let commands = [(18, vec![0, 0, 1]), (20, vec![0, 5, 1]), (18, tables(&[], &[])), (19, vec![2, 0, 1, 0])];
    for (feature, command) in commands {
        let with = 1 << 17 | 1 << feature;
        assert_eq!(controlled(with).command(&command), OK);
        assert_eq!(controlled(CONTROL_FEATURES & !(1 << feature)).command(&command), ERR, "{command:?}");
    }
    let address = [&[1, 1][..], &OTHER].concat();
    assert_eq!(controlled(1 << 17 | 1 << 23).command(&address), OK);
    assert_eq!(controlled(CONTROL_FEATURES & !(1 << 23)).command(&address), ERR);
}

#[test]
fn command_without_space_for_the_answer_is_ignored() {
    let mut controlled = controlled(CONTROL_FEATURES);
    let offered = controlled.bench.driver.offer(CONTROL, &[Buffer::Readable(&[0, 0, 1])]);
    controlled.bench.process(worker::CONTROL);
    assert_eq!(controlled.bench.driver.returned(CONTROL), Some((offered.head, 0)));
    assert!(!controlled.gets(&OTHER));
}

/// The command that sets the offloads.
fn offloads(bits: u64) -> Vec<u8> {
    [&[5, 0][..], &bits.to_le_bytes()].concat()
}

#[test]
fn offloads_can_be_switched_off_and_on() {
    let mut controlled = controlled(CONTROL_FEATURES | 1 << 2 | CSUM | TSO4 | ECN);
    let mut segmented = vec![1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0];
    segmented.extend(MAC);
    segmented.extend([0x02, 0, 0, 0, 0, 1, 8, 0]);
    segmented.extend([6; 400]);
    let passes = |controlled: &mut Controlled| {
        let before = controlled.bench.passed().0;
        send(&controlled.network, &segmented, SendFlags::DONTWAIT).unwrap();
        controlled.bench.offer(1, 1526);
        controlled.bench.backend_changed();
        controlled.bench.passed().0 > before
    };
    assert!(passes(&mut controlled));
    for invalid in [TSO4, ECN, ECN | CSUM, CSUM | 1 << 8, CSUM | 1 << 54, 1 << 0, 1 << 63, u64::MAX] {
        assert_eq!(controlled.command(&offloads(invalid)), ERR, "{invalid:#x}");
    }
    assert_eq!(controlled.command(&offloads(CSUM)), OK);
    assert!(!passes(&mut controlled));
    assert_eq!(controlled.command(&offloads(CSUM | TSO4)), OK);
    assert!(passes(&mut controlled));
}

#[test]
fn saved_device_goes_on_with_what_was_commanded_and_a_reset_ends_it() {
    let mut source = controlled(CONTROL_FEATURES);
    assert_eq!(source.command(&tables(&[], &[GROUP])), OK);
    assert_eq!(source.command(&[[1, 1].as_slice(), &OTHER].concat()), OK);
    assert_eq!(source.command(&[2, 0, 5, 0]), OK);
    let expected = [false, true, true, true];
    assert_eq!(source.gets_each(), expected);
    source.bench.worker = None;
    let state = source.bench.net.save();

    // The source itself, and a copy of it.
    for mut machine in [source, controlled(CONTROL_FEATURES)] {
        machine.bench.worker = None;
        machine.bench.net.restore(&state).unwrap();
        machine.bench.activate(CONTROL_FEATURES);
        assert_eq!((machine.gets_each(), machine.bench.address()), (expected, OTHER));
        machine.bench.worker = None;
        assert_eq!(machine.bench.net.save(), state);
        machine.bench.activate(CONTROL_FEATURES);
        assert_eq!((machine.gets_each(), machine.bench.address()), ([true, false, true, false], MAC));
    }
}

#[test]
fn commands_that_the_driver_cannot_have_sent_are_not_restored() {
    let mut source = controlled(CONTROL_FEATURES | CSUM | TSO4 | 1 << 2);
    source.bench.worker = None;
    let state = source.bench.net.save();
    let mut other = controlled(CONTROL_FEATURES);
    other.bench.worker = None;
    other.bench.net.restore(&state).unwrap();
    // The offloads left to it are not all features of this driver.
    assert!(other.bench.net.activate(other.bench.driver.activation(CONTROL_FEATURES)).is_err());
    assert!(other.bench.net.restore(&state[1..]).is_err());
}
