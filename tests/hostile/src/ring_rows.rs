// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptor chains and rings of the served queue. Virtio 1.3, 2.7. A broken chain is returned with
//! length 0 and the queue goes on; a broken ring needs a reset.

use crate::driver::{Descriptor, Driver, Fault, INDIRECT, NEXT, QUEUE_NOTIFY, STATUS, WRITE, expect};
use crate::{Row, Scope};

const SERVED: Scope = Scope::ServedQueue;
/// Addresses of buffers that are not in memory, in whole or in part.
const OUTSIDE: &[u64] =
    &[AT_END, 0xbfff_fff8, 0xc000_0000, 0xd000_0000, 0xfee0_0000, 1 << 40, 1 << 63, u64::MAX - 15, u64::MAX];
/// The last byte of memory.
const AT_END: u64 = 1;

pub(crate) const ROWS: &[Row] = &[
    Row {
        clause: "2.7.5.2",
        what: "close a loop after a number of descriptors",
        scope: SERVED,
        values: &[1, 2, 3, 4, 5, 6, 7, 8],
        action: loops,
    },
    Row {
        clause: "2.7.5",
        what: "go on with a descriptor outside the table",
        scope: SERVED,
        values: &[8, 9, 255, 256, 0x7fff, 0xffff],
        action: next_outside,
    },
    Row {
        clause: "2.7.5",
        what: "use a readable buffer outside memory",
        scope: SERVED,
        values: OUTSIDE,
        action: |d, queue, place| outside(d, queue, place, 0),
    },
    Row {
        clause: "2.7.5",
        what: "use a writable buffer outside memory",
        scope: SERVED,
        values: OUTSIDE,
        action: |d, queue, place| outside(d, queue, place, WRITE),
    },
    Row {
        clause: "2.7.5",
        what: "use a buffer of a wrong length",
        scope: SERVED,
        values: &[0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff],
        action: wrong_length,
    },
    Row {
        clause: "2.7.4.2",
        what: "put a readable buffer after a writable one",
        scope: SERVED,
        values: &[1, 16, 512, 4096],
        action: wrong_order,
    },
    Row {
        clause: "2.7.5.3.1",
        what: "combine INDIRECT with NEXT",
        scope: SERVED,
        values: &[0, 1, 8],
        action: |d, queue, next| indirect(d, queue, 16, INDIRECT | NEXT, next as u16),
    },
    Row {
        clause: "2.7.5.3.1",
        what: "give an indirect table a wrong length",
        scope: SERVED,
        values: &[0, 1, 8, 15, 17, 31, 33, 0xffff, 0xffff_fff0, 0xffff_ffff],
        action: |d, queue, length| indirect(d, queue, length as u32, INDIRECT, 0),
    },
    Row { clause: "2.7.5.3.1", what: "nest an indirect table", scope: SERVED, values: &[0, 1], action: nested },
    Row {
        clause: "2.7.5.3",
        what: "put an indirect table outside memory",
        scope: SERVED,
        values: OUTSIDE,
        action: indirect_outside,
    },
    Row {
        clause: "2.7.5.3",
        what: "go on with a descriptor outside the indirect table",
        scope: SERVED,
        values: &[1, 2, 7, 8, 0xffff],
        action: indirect_next,
    },
    Row {
        clause: "2.7.5.3",
        what: "close a loop in an indirect table",
        scope: SERVED,
        values: &[0],
        action: indirect_next,
    },
    Row {
        clause: "2.7.6",
        what: "offer a head outside the table",
        scope: SERVED,
        values: &[8, 9, 255, 256, 0x7fff, 0xffff],
        action: wrong_head,
    },
    Row {
        clause: "2.7.6",
        what: "offer a head several times at once",
        scope: SERVED,
        values: &[2, 3, 8],
        action: repeated_head,
    },
    Row {
        clause: "2.7.6",
        what: "move the available index by more than the ring",
        scope: SERVED,
        values: &[9, 16, 0x7fff, 0x8000, 0xffff],
        action: wrong_index,
    },
    Row {
        clause: "2.7.8",
        what: "write the used ring",
        scope: SERVED,
        values: &[0, 1, 0x7fff, 0xffff],
        action: write_used,
    },
    Row { clause: "2.7.6", what: "wrap the ring", scope: SERVED, values: &[8, 9, 64], action: wrap },
    Row {
        clause: "4.2.3.3",
        what: "notify a queue without a new chain",
        scope: Scope::EachQueue,
        values: &[1, 100],
        action: notify_often,
    },
    Row {
        clause: "2.1.2",
        what: "reset with chains in flight",
        scope: SERVED,
        values: &[1, 8],
        action: reset_in_flight,
    },
];

/// Of a chain with space that is accepted the device would write some bytes.
fn plain(driver: &Driver<'_>, flags: u16, next: u16) -> Descriptor {
    Descriptor { address: driver.buffer(), length: 16, flags, next }
}

/// The chain at descriptor 0 is returned with nothing written.
fn reject(driver: &mut Driver<'_>, queue: u16) -> Result<(), Fault> {
    driver.offer(queue, 0);
    driver.publish(queue, 0);
    let (head, length) = driver.returned(queue)?;
    expect(head == 0, "the head is returned", head)?;
    expect(length == 0, "nothing is written", length)?;
    expect(driver.read(STATUS) == 15, "the device is still ready", driver.read(STATUS))?;
    driver.good_request()
}

fn loops(driver: &mut Driver<'_>, queue: u16, length: u64) -> Result<(), Fault> {
    let table = driver.addresses(queue)[0];
    for index in 0..length as u16 {
        let descriptor = plain(driver, NEXT, (index + 1) % length as u16);
        driver.put(table, index, descriptor);
    }
    reject(driver, queue)
}

fn next_outside(driver: &mut Driver<'_>, queue: u16, next: u64) -> Result<(), Fault> {
    let descriptor = plain(driver, NEXT, next as u16);
    driver.put_all(queue, &[descriptor]);
    reject(driver, queue)
}

fn place_of(driver: &Driver<'_>, place: u64) -> u64 {
    if place == AT_END { driver.machine.memory_end() - 1 } else { place }
}

fn outside(driver: &mut Driver<'_>, queue: u16, place: u64, flags: u16) -> Result<(), Fault> {
    let wrong = Descriptor { address: place_of(driver, place), flags, ..plain(driver, 0, 0) };
    driver.put_all(queue, &[wrong]);
    reject(driver, queue)?;
    let good = plain(driver, NEXT, 1);
    driver.put_all(queue, &[good, wrong]);
    reject(driver, queue)
}

fn wrong_length(driver: &mut Driver<'_>, queue: u16, length: u64) -> Result<(), Fault> {
    for flags in [0, WRITE] {
        let wrong = Descriptor { length: length as u32, ..plain(driver, flags, 0) };
        driver.put_all(queue, &[wrong]);
        reject(driver, queue)?;
        let good = plain(driver, flags | NEXT, 1);
        driver.put_all(queue, &[good, wrong]);
        reject(driver, queue)?;
    }
    Ok(())
}

fn wrong_order(driver: &mut Driver<'_>, queue: u16, length: u64) -> Result<(), Fault> {
    let sized = |flags, next| Descriptor { length: length as u32, ..plain(driver, flags, next) };
    let chain = [sized(NEXT | WRITE, 1), sized(0, 0)];
    driver.put_all(queue, &chain);
    reject(driver, queue)
}

/// Address of an indirect table, in the second half of the buffers.
fn table(driver: &Driver<'_>) -> u64 {
    driver.buffer() + 0x8000
}

fn indirect(driver: &mut Driver<'_>, queue: u16, length: u32, flags: u16, next: u16) -> Result<(), Fault> {
    let place = table(driver);
    for index in 0..4 {
        let inner = plain(driver, WRITE, 0);
        driver.put(place, index, inner);
    }
    let more = plain(driver, WRITE, 0);
    driver.put_all(queue, &[Descriptor { address: place, length, flags, next }, more]);
    reject(driver, queue)
}

fn nested(driver: &mut Driver<'_>, queue: u16, depth: u64) -> Result<(), Fault> {
    let place = table(driver);
    let inner = Descriptor { address: place + 0x100 * depth, length: 16, flags: INDIRECT, next: 0 };
    driver.put(place, 0, inner);
    let end = plain(driver, WRITE, 0);
    driver.put(place + 0x100, 0, end);
    driver.put_all(queue, &[Descriptor { address: place, length: 16, flags: INDIRECT, next: 0 }]);
    reject(driver, queue)
}

fn indirect_outside(driver: &mut Driver<'_>, queue: u16, place: u64) -> Result<(), Fault> {
    let address = place_of(driver, place);
    driver.put_all(queue, &[Descriptor { address, length: 16, flags: INDIRECT, next: 0 }]);
    reject(driver, queue)
}

fn indirect_next(driver: &mut Driver<'_>, queue: u16, next: u64) -> Result<(), Fault> {
    let place = table(driver);
    let inner = plain(driver, NEXT | WRITE, next as u16);
    driver.put(place, 0, inner);
    driver.put_all(queue, &[Descriptor { address: place, length: 16, flags: INDIRECT, next: 0 }]);
    reject(driver, queue)
}

fn wrong_head(driver: &mut Driver<'_>, queue: u16, head: u64) -> Result<(), Fault> {
    driver.offer(queue, head as u16);
    driver.publish(queue, 0);
    driver.needs_reset()
}

fn repeated_head(driver: &mut Driver<'_>, queue: u16, times: u64) -> Result<(), Fault> {
    let descriptor = plain(driver, 0, 0);
    driver.put_all(queue, &[descriptor]);
    for _ in 0..times {
        driver.offer(queue, 0);
    }
    driver.publish(queue, 0);
    driver.needs_reset()
}

fn wrong_index(driver: &mut Driver<'_>, queue: u16, more: u64) -> Result<(), Fault> {
    driver.publish(queue, more as u16);
    driver.needs_reset()
}

/// The device keeps its own index, and writes over what the guest wrote.
fn write_used(driver: &mut Driver<'_>, queue: u16, index: u64) -> Result<(), Fault> {
    let used = driver.addresses(queue)[2];
    driver.machine.store(used, &[0xff; 2]);
    driver.machine.store(used + 2, &(index as u16).to_le_bytes());
    driver.machine.store(used + 4, &[0xff; 64]);
    driver.write(QUEUE_NOTIFY, u32::from(queue));
    driver.machine.store(used + 2, &[0; 2]);
    driver.good_request()
}

fn wrap(driver: &mut Driver<'_>, _: u16, requests: u64) -> Result<(), Fault> {
    (0..requests).try_for_each(|_| driver.good_request())
}

fn notify_often(driver: &mut Driver<'_>, queue: u16, times: u64) -> Result<(), Fault> {
    for _ in 0..times {
        driver.write(QUEUE_NOTIFY, u32::from(queue));
    }
    driver.good_request()
}

/// When the reset is done, no chain is returned any more.
fn reset_in_flight(driver: &mut Driver<'_>, queue: u16, chains: u64) -> Result<(), Fault> {
    let table = driver.addresses(queue)[0];
    for head in 0..chains as u16 {
        let descriptor = plain(driver, 0, 0);
        driver.put(table, head, descriptor);
        driver.offer(queue, head);
    }
    driver.publish(queue, 0);
    driver.reset();
    let used = driver.addresses(queue)[2];
    let (mut before, mut after) = ([0; 2], [0; 2]);
    driver.machine.load(used + 2, &mut before);
    driver.machine.wait(0);
    driver.machine.load(used + 2, &mut after);
    expect(before == after, "a device that was reset returns nothing", u16::from_le_bytes(after))
}
