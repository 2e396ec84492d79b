// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of the network device's control queue. Virtio 1.3, 5.1.6.5.

use crate::driver::{Descriptor, Driver, Fault, NEXT, STATUS, WRITE, expect};
use crate::{NET, Row, Scope};

/// That of a driver that does not accept several pairs of queues.
const CONTROL_QUEUE: Scope = Scope::Queue(NET, 2);
/// Features: the control queue, and all that its commands are for.
const CONTROL: u64 = 1 << 17;
const COMMANDS: u64 = CONTROL | 1 << 2 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23;
const PAIRS: u64 = 1 << 22;
const OK: u8 = 0;
const ERROR: u8 = 1;
/// Where the answer is written.
const ANSWER: u64 = 0x8000;
const GUARD: u8 = 0xa5;
/// Offsets of the address and of the number of pairs in the registers.
const ADDRESS: u64 = 0x100;
const MAX_PAIRS: u64 = 0x108;

const PROMISCUOUS: &[u8] = &[0, 0, 1];
const NO_TABLES: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SET_ADDRESS: &[u8] = &[1, 1, 2, 0, 0, 0, 0, 9];
const ADD_VLAN: &[u8] = &[2, 0, 1, 0];
const GOOD: [&[u8]; 4] = [PROMISCUOUS, NO_TABLES, SET_ADDRESS, ADD_VLAN];

pub(crate) const ROWS: &[Row] = &[
    Row {
        clause: "5.1.6.5",
        what: "send a command that does not exist",
        scope: CONTROL_QUEUE,
        // Class in the low byte, command in the next.
        values: &[
            0x0600, 0xff00, 0x0201, 0xff01, 0x0202, 0xff02, 0x0003, 0x0304, 0x0105, 0x0006, 0x0008, 0x00ff, 0xffff,
        ],
        action: |d, q, kind| rejected(d, q, COMMANDS, &[kind as u8, (kind >> 8) as u8, 1]),
    },
    Row {
        clause: "5.1.6.5",
        what: "send a command without its data",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 2, 3],
        action: |d, q, number| {
            let good = GOOD[number as usize];
            (1..good.len()).try_for_each(|length| rejected(d, q, COMMANDS, &good[..length]))
        },
    },
    Row {
        clause: "5.1.6.5",
        what: "send a command with more than its data",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 2, 3],
        action: |d, q, number| {
            let (good, mut bytes) = (GOOD[number as usize], [0; 16]);
            bytes[..good.len()].copy_from_slice(good);
            (good.len() + 1..16).try_for_each(|length| rejected(d, q, COMMANDS, &bytes[..length]))
        },
    },
    Row {
        clause: "5.1.6.5",
        what: "send a command of a feature that was not accepted",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 2, 3],
        action: |d, q, number| rejected(d, q, CONTROL, GOOD[number as usize]),
    },
    Row {
        clause: "5.1.6.5",
        what: "send a command without space for its answer",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 2, 3],
        action: no_answer,
    },
    Row {
        clause: "5.1.6.5",
        what: "use the control queue without its feature",
        scope: CONTROL_QUEUE,
        values: &[0],
        action: not_negotiated,
    },
    Row {
        clause: "5.1.6.5.1",
        what: "switch a mode to neither off nor on",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 2, 3, 4, 5],
        action: |d, q, mode| {
            [2, 0x80, 0xff].iter().try_for_each(|&value| rejected(d, q, COMMANDS, &[0, mode as u8, value]))
        },
    },
    Row {
        clause: "5.1.6.5.2",
        what: "count more addresses than there are in the first table",
        scope: CONTROL_QUEUE,
        values: &[1, 2, 64, 65, 0x2aaa_aaab, 0x7fff_ffff, 0x8000_0000, 0xaaaa_aaab, 0xffff_ffff],
        action: |d, q, count| tables(d, q, count as u32, 0, 4, ERROR),
    },
    Row {
        clause: "5.1.6.5.2",
        what: "count more addresses than there are in the second table",
        scope: CONTROL_QUEUE,
        values: &[1, 2, 64, 65, 0x2aaa_aaab, 0x7fff_ffff, 0x8000_0000, 0xaaaa_aaab, 0xffff_ffff],
        action: |d, q, count| tables(d, q, 0, count as u32, 0, ERROR),
    },
    Row {
        clause: "5.1.6.5.2",
        what: "fill the tables with many addresses",
        scope: CONTROL_QUEUE,
        values: &[1, 63, 64, 65, 2700],
        action: |d, q, count| tables(d, q, count as u32, count as u32, 12 * count as u32, OK),
    },
    Row {
        clause: "5.1.6.5.2",
        what: "set the address to that of a group or of nothing",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 0x33, 0xff],
        action: wrong_address,
    },
    Row {
        clause: "5.1.6.5.3",
        what: "name a VLAN past the last",
        scope: CONTROL_QUEUE,
        values: &[0x1000, 0x1001, 0x8000, 0xffff],
        action: |d, q, vlan| {
            [0, 1].iter().try_for_each(|&kind| rejected(d, q, COMMANDS, &[2, kind, vlan as u8, (vlan >> 8) as u8]))
        },
    },
    Row {
        clause: "5.1.6.5.5",
        what: "use a number of pairs that there is not",
        scope: CONTROL_QUEUE,
        values: &[0, 4, 8, 0x7fff, 0x8000, 0x8001, 0xffff],
        action: |d, _, pairs| set_pairs(d, pairs as u16, ERROR),
    },
    Row {
        clause: "5.1.6.5.5",
        what: "set the pairs by a command of another length",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 3, 8],
        action: |d, _, length| {
            let queue = start_with_pairs(d)?;
            command(d, queue, &[4, 0, 1, 0, 0, 0, 0, 0, 0, 0], 2 + length as u32, ERROR)?;
            still_ready(d, queue, COMMANDS)
        },
    },
    Row {
        clause: "5.1.6.5.5",
        what: "send on a pair that is not in use",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 2],
        action: unused_pair,
    },
    Row {
        clause: "5.1.6.5.5",
        what: "change the pairs with chains in flight",
        scope: CONTROL_QUEUE,
        values: &[2, 3, 16],
        action: change_pairs,
    },
    Row {
        clause: "5.1.6.5.5",
        what: "set the pairs without the feature",
        scope: CONTROL_QUEUE,
        values: &[1, 2],
        action: |d, q, pairs| rejected(d, q, COMMANDS, &[4, 0, pairs as u8, 0]),
    },
    Row {
        clause: "5.1.6.5.8",
        what: "leave to the guest what it has not accepted",
        scope: CONTROL_QUEUE,
        values: &[0, 1, 7, 8, 9, 10, 46, 54, 55, 63],
        action: |d, q, bit| {
            let [a, b, c, e, f, g, h, i] = (1_u64 << bit).to_le_bytes();
            rejected(d, q, COMMANDS, &[5, 0, a, b, c, e, f, g, h, i])
        },
    },
];

/// Sends one command of `length` bytes, of which `bytes` are the first, and expects an answer.
fn command(d: &mut Driver<'_>, queue: u16, bytes: &[u8], length: u32, answer: u8) -> Result<(), Fault> {
    let buffer = d.buffer();
    d.machine.store(buffer, bytes);
    d.machine.store(buffer + ANSWER, &[GUARD; 2]);
    let chain = [
        Descriptor { address: buffer, length, flags: NEXT, next: 1 },
        Descriptor { address: buffer + ANSWER, length: 2, flags: WRITE, next: 0 },
    ];
    let written = d.exchange(queue, &chain)?;
    expect(written == 1, "an answer is written", written)?;
    let mut found = [0; 2];
    d.machine.load(buffer + ANSWER, &mut found);
    expect(found[0] == answer, "the answer is the expected one", found[0])?;
    expect(found[1] == GUARD, "nothing is written after the answer", found[1])
}

/// A command that is wrong, and one that is right afterwards.
fn rejected(d: &mut Driver<'_>, queue: u16, features: u64, bytes: &[u8]) -> Result<(), Fault> {
    d.start_with(features)?;
    command(d, queue, bytes, bytes.len() as u32, ERROR)?;
    still_ready(d, queue, features)
}

fn still_ready(d: &mut Driver<'_>, queue: u16, features: u64) -> Result<(), Fault> {
    expect(d.read(STATUS) == 15, "the device is still ready", d.read(STATUS))?;
    if features == COMMANDS { command(d, queue, PROMISCUOUS, PROMISCUOUS.len() as u32, OK) } else { Ok(()) }
}

/// Sets tables with these counts and `bytes` of addresses, half of them in each table if that is right.
fn tables(d: &mut Driver<'_>, queue: u16, first: u32, second: u32, bytes: u32, answer: u8) -> Result<(), Fault> {
    d.start_with(COMMANDS)?;
    let buffer = d.buffer();
    for page in 0..8 {
        d.machine.store(buffer + 0x1000 * page, &[0; 0x1000]);
    }
    let place = if answer == OK { bytes / 2 } else { 0 };
    d.machine.store(buffer + 6 + u64::from(place), &second.to_le_bytes());
    let [a, b, c, e] = first.to_le_bytes();
    command(d, queue, &[1, 0, a, b, c, e], 10 + bytes, answer)?;
    still_ready(d, queue, COMMANDS)
}

fn no_answer(d: &mut Driver<'_>, queue: u16, number: u64) -> Result<(), Fault> {
    d.start_with(COMMANDS)?;
    let (address, bytes) = (d.buffer(), GOOD[number as usize]);
    d.machine.store(address, bytes);
    let written = d.exchange(queue, &[Descriptor { address, length: bytes.len() as u32, flags: 0, next: 0 }])?;
    expect(written == 0, "nothing is written", written)?;
    still_ready(d, queue, COMMANDS)
}

/// The queue is not one of the device's, and stays as it is.
fn not_negotiated(d: &mut Driver<'_>, queue: u16, _: u64) -> Result<(), Fault> {
    d.start()?;
    let address = d.buffer();
    d.put_all(queue, &[Descriptor { address, length: 3, flags: 0, next: 0 }]);
    d.offer(queue, 0);
    d.publish(queue, 0);
    d.good_request()?;
    let used = d.addresses(queue)[2];
    let mut index = [0; 2];
    d.machine.load(used + 2, &mut index);
    expect(index == [0; 2], "nothing is returned", u16::from_le_bytes(index))
}

fn wrong_address(d: &mut Driver<'_>, queue: u16, first: u64) -> Result<(), Fault> {
    d.start_with(COMMANDS)?;
    let before = d.read(ADDRESS);
    let rest = if first == 0 { 0 } else { 9 };
    command(d, queue, &[1, 1, first as u8, 0, 0, 0, 0, rest], 8, ERROR)?;
    expect(d.read(ADDRESS) == before, "the address is as before", d.read(ADDRESS))?;
    still_ready(d, queue, COMMANDS)
}

/// Brings the device up with as many pairs as it has, and returns the number of the control queue.
fn start_with_pairs(d: &mut Driver<'_>) -> Result<u16, Fault> {
    d.start_with(COMMANDS | PAIRS)?;
    Ok(d.queues() - 1)
}

/// Pairs that the driver may use.
fn max_pairs(d: &mut Driver<'_>) -> u16 {
    d.read_wide(MAX_PAIRS, 2) as u16
}

/// A device with one pair does not have the command.
fn set_pairs(d: &mut Driver<'_>, pairs: u16, answer: u8) -> Result<(), Fault> {
    let queue = start_with_pairs(d)?;
    expect(2 * max_pairs(d) == queue, "the control queue is behind the pairs", max_pairs(d))?;
    let [low, high] = pairs.to_le_bytes();
    command(d, queue, &[4, 0, low, high], 4, answer)?;
    still_ready(d, queue, COMMANDS)?;
    send(d, 0)
}

/// Sends a packet by one pair.
fn send(d: &mut Driver<'_>, pair: u16) -> Result<(), Fault> {
    let address = d.buffer();
    d.machine.store(address, &[0; 72]);
    let length = d.exchange(2 * pair + 1, &[Descriptor { address, length: 72, flags: 0, next: 0 }])?;
    expect(length == 0, "nothing is written", length)
}

/// Of the pairs past the first, what was offered waits until the pair is in use.
fn unused_pair(d: &mut Driver<'_>, _: u16, pair: u64) -> Result<(), Fault> {
    let (queue, pair) = (start_with_pairs(d)?, pair as u16);
    if pair >= max_pairs(d) {
        return Ok(());
    }
    let transmit = 2 * pair + 1;
    let address = d.buffer();
    d.machine.store(address, &[0; 72]);
    d.put_all(transmit, &[Descriptor { address, length: 72, flags: 0, next: 0 }]);
    d.offer(transmit, 0);
    d.publish(transmit, 0);
    if pair > 0 {
        send(d, 0)?;
        command(d, queue, &[4, 0, pair as u8 + 1, 0], 4, OK)?;
    }
    let (head, length) = d.returned(transmit)?;
    expect(head == 0 && length == 0, "the chain is returned", length)?;
    still_ready(d, queue, COMMANDS)
}

fn change_pairs(d: &mut Driver<'_>, _: u16, times: u64) -> Result<(), Fault> {
    let queue = start_with_pairs(d)?;
    let max = max_pairs(d);
    if max == 1 {
        return Ok(());
    }
    for round in 0..times as u16 {
        let pairs = 1 + round % max;
        command(d, queue, &[4, 0, pairs as u8, 0], 4, OK)?;
        (0..pairs).try_for_each(|pair| send(d, pair))?;
    }
    still_ready(d, queue, COMMANDS)
}
