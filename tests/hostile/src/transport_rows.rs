// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Registers, status, features and queue setup. Virtio 1.3, 2.1, 2.2, 3.1.1 and 4.2.2.

use crate::driver::{
    DEVICE_FEATURES, DRIVER_FEATURES, DRIVER_FEATURES_SELECT, Driver, Fault, INTERRUPT_STATUS, NEEDS_RESET,
    QUEUE_NOTIFY, QUEUE_READY, QUEUE_SELECT, QUEUE_SIZE, QUEUE_SIZE_MAX, STATUS, VERSION_1, expect,
};
use crate::{Row, Scope};

const BITS: [u64; 64] = {
    let mut bits = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        bits[bit] = bit as u64;
        bit += 1;
    }
    bits
};
const READ_ONLY: &[u64] = &[0, 4, 8, 0xc, DEVICE_FEATURES, QUEUE_SIZE_MAX, INTERRUPT_STATUS, 0xfc];
const WRITE_ONLY: &[u64] = &[0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4];
const UNKNOWN: &[u64] =
    &[0x18, 0x1c, 0x28, 0x2c, 0x3c, 0x40, 0x48, 0x4c, 0x54, 0x5c, 0x68, 0x6c, 0x74, 0x7c, 0x88, 0x98];
/// Status in the high half, what is written to it in the low half.
const WRONG_STEPS: &[u64] = &[
    0x2,
    0x3,
    0x4,
    0x7,
    0x8,
    0xb,
    0xf,
    0x10,
    0x20,
    0xff,
    0x100,
    0xffff_ffff,
    0x1_0000_0002,
    0x1_0000_0005,
    0x1_0000_000b,
    0x1_0000_000f,
    0x1_0000_0021,
    0x1_0000_0101,
    0x3_0000_0001,
    0x3_0000_0002,
    0x3_0000_0007,
    0x3_0000_000f,
    0x3_0000_0023,
    0x3_0000_0103,
    0xb_0000_0001,
    0xb_0000_0003,
    0xb_0000_0008,
    0xb_0000_0009,
    0xb_0000_001b,
    0xb_0000_002f,
    0xb_0000_010b,
];

pub(crate) const ROWS: &[Row] = &[
    Row {
        clause: "4.2.2",
        what: "write a read-only register",
        scope: Scope::EachDevice,
        values: READ_ONLY,
        action: write_read_only,
    },
    Row {
        clause: "4.2.2",
        what: "read a write-only register",
        scope: Scope::EachDevice,
        values: WRITE_ONLY,
        action: read_ones,
    },
    Row {
        clause: "4.2.2",
        what: "use an unknown register",
        scope: Scope::EachDevice,
        values: UNKNOWN,
        action: use_unknown,
    },
    Row {
        clause: "4.2.2.2",
        what: "read a register by 1 byte",
        scope: Scope::EachDevice,
        values: READ_ONLY,
        action: |d, _, at| read_by(d, at, 1),
    },
    Row {
        clause: "4.2.2.2",
        what: "read a register by 2 bytes",
        scope: Scope::EachDevice,
        values: READ_ONLY,
        action: |d, _, at| read_by(d, at, 2),
    },
    Row {
        clause: "4.2.2.2",
        what: "read a register by 8 bytes",
        scope: Scope::EachDevice,
        values: &[0, 8, 0x10, 0x60, 0x70],
        action: |d, _, at| read_by(d, at, 8),
    },
    Row {
        clause: "4.2.2.2",
        what: "read 4 bytes at an odd offset",
        scope: Scope::EachDevice,
        values: &[1, 2, 3, 0x71, 0xfd],
        action: |d, _, at| read_by(d, at, 4),
    },
    Row {
        clause: "4.2.2.2",
        what: "write the status by another width",
        scope: Scope::EachDevice,
        values: &[1, 2, 8],
        action: write_status_by,
    },
    Row {
        clause: "4.2.2",
        what: "access the configuration past its end",
        scope: Scope::EachDevice,
        values: &[0x200, 0x400, 0x800, 0xefc, 0xeff],
        action: past_configuration,
    },
    Row {
        clause: "4.2.2",
        what: "select a queue that does not exist",
        scope: Scope::EachDevice,
        values: &[16, 64, 0xffff, 0x1_0000, 0xffff_ffff],
        action: no_such_queue,
    },
    Row {
        clause: "4.2.2",
        what: "notify a queue that does not exist",
        scope: Scope::EachDevice,
        values: &[16, 64, 0xffff, 0x1_0000, 0xffff_ffff],
        action: |d, _, queue| {
            d.write(QUEUE_NOTIFY, queue as u32);
            Ok(())
        },
    },
    Row {
        clause: "4.2.3.3",
        what: "notify before the driver is ready",
        scope: Scope::EachQueue,
        values: &[0, 1, 3, 11],
        action: notify_early,
    },
    Row {
        clause: "2.1.1",
        what: "take a step that is not allowed",
        scope: Scope::EachDevice,
        values: WRONG_STEPS,
        action: wrong_step,
    },
    Row {
        clause: "2.1.1",
        what: "go on after FAILED",
        scope: Scope::EachDevice,
        values: &[0, 1, 3, 11, 15],
        action: go_on_after_failed,
    },
    Row {
        clause: "2.1.2",
        what: "reset at a step",
        scope: Scope::EachDevice,
        values: &[0, 1, 3, 11, 15],
        action: reset_at,
    },
    Row {
        clause: "6.1",
        what: "accept one feature without VERSION_1",
        scope: Scope::EachDevice,
        values: &BITS,
        action: without_version,
    },
    Row {
        clause: "2.2.1",
        what: "accept a feature that is not offered",
        scope: Scope::EachDevice,
        values: &BITS,
        action: unoffered,
    },
    Row {
        clause: "2.2.1",
        what: "accept a feature above bit 63",
        scope: Scope::EachDevice,
        values: &[2, 3, 4, 0xffff_ffff],
        action: beyond,
    },
    Row {
        clause: "2.2.1",
        what: "change features after FEATURES_OK",
        scope: Scope::EachDevice,
        values: &[0, 1],
        action: late_features,
    },
    Row {
        clause: "4.2.2.2",
        what: "give a queue a wrong size",
        scope: Scope::EachQueue,
        values: &[0, 3, 5, 0x200, 0x8000, 0xffff, 0x1_0008, 0x8000_0008],
        action: wrong_size,
    },
    Row {
        clause: "2.7",
        what: "put the descriptor table at a wrong address",
        scope: Scope::EachQueue,
        values: WRONG_PLACES,
        action: |d, queue, place| wrong_place(d, queue, 0, place),
    },
    Row {
        clause: "2.7",
        what: "put the available ring at a wrong address",
        scope: Scope::EachQueue,
        values: WRONG_PLACES,
        action: |d, queue, place| wrong_place(d, queue, 1, place),
    },
    Row {
        clause: "2.7",
        what: "put the used ring at a wrong address",
        scope: Scope::EachQueue,
        values: WRONG_PLACES,
        action: |d, queue, place| wrong_place(d, queue, 2, place),
    },
    Row {
        clause: "4.2.2.2",
        what: "describe a queue again when it is ready",
        scope: Scope::EachQueue,
        values: &[QUEUE_SIZE, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4],
        action: describe_late,
    },
    Row {
        clause: "4.2.2.2",
        what: "disable a queue while the driver is ready",
        scope: Scope::EachQueue,
        values: &[0, 2],
        action: disable_late,
    },
];

/// Address 0, or numbers of places that `wrong_place` knows, or addresses outside of memory.
const WRONG_PLACES: &[u64] =
    &[0, MISALIGNED, AT_END, 0xc000_0000, 0xd000_0000, 0xfee0_0000, 1 << 40, 1 << 63, u64::MAX - 15, u64::MAX];
const MISALIGNED: u64 = 1;
const AT_END: u64 = 2;

fn write_read_only(driver: &mut Driver<'_>, _: u16, register: u64) -> Result<(), Fault> {
    driver.reset();
    let before = driver.read(register);
    driver.write(register, !before);
    expect(driver.read(register) == before, "the register keeps its value", driver.read(register))
}

fn read_ones(driver: &mut Driver<'_>, _: u16, register: u64) -> Result<(), Fault> {
    expect(driver.read(register) == u32::MAX, "the register reads as ones", driver.read(register))
}

fn use_unknown(driver: &mut Driver<'_>, queue: u16, register: u64) -> Result<(), Fault> {
    driver.write(register, u32::MAX);
    read_ones(driver, queue, register)?;
    expect(driver.read(STATUS) == 15, "the device is still ready", driver.read(STATUS))
}

fn read_by(driver: &mut Driver<'_>, offset: u64, width: usize) -> Result<(), Fault> {
    let ones = u64::MAX >> (64 - 8 * width);
    let found = driver.read_wide(offset, width);
    expect(found == ones, "the access reads as ones", found)
}

fn write_status_by(driver: &mut Driver<'_>, _: u16, width: u64) -> Result<(), Fault> {
    driver.write_wide(STATUS, width as usize, 0);
    expect(driver.read(STATUS) == 15, "the status keeps its value", driver.read(STATUS))
}

fn past_configuration(driver: &mut Driver<'_>, _: u16, offset: u64) -> Result<(), Fault> {
    let offset = 0x100 + offset;
    driver.write_wide(offset, 1, 0xff);
    driver.read_wide(offset, 1);
    if offset.is_multiple_of(8) {
        driver.write_wide(offset, 8, u64::MAX);
        driver.read_wide(offset, 8);
    }
    expect(driver.read(STATUS) == 15, "the device is still ready", driver.read(STATUS))
}

fn no_such_queue(driver: &mut Driver<'_>, _: u16, queue: u64) -> Result<(), Fault> {
    driver.prepare()?;
    driver.write(QUEUE_SELECT, queue as u32);
    driver.write(QUEUE_SIZE, 8);
    driver.write(QUEUE_READY, 1);
    expect(driver.read(QUEUE_SIZE_MAX) == 0, "it has no size", driver.read(QUEUE_SIZE_MAX))?;
    expect(driver.read(QUEUE_READY) == 0, "it is not ready", driver.read(QUEUE_READY))
}

/// Takes the device to a status on the way to DRIVER_OK, without queues.
fn advance(driver: &mut Driver<'_>, status: u64) -> Result<(), Fault> {
    match status {
        11 | 15 => driver.prepare()?,
        _ => {
            driver.reset();
            for step in [1, 3].into_iter().filter(|&step| u64::from(step) <= status) {
                driver.write(STATUS, step);
            }
        }
    }
    if status == 15 {
        driver.write(STATUS, 15);
    }
    expect(u64::from(driver.read(STATUS)) == status, "the step is taken", driver.read(STATUS))
}

fn notify_early(driver: &mut Driver<'_>, queue: u16, status: u64) -> Result<(), Fault> {
    advance(driver, status)?;
    driver.write(QUEUE_NOTIFY, u32::from(queue));
    expect(u64::from(driver.read(STATUS)) == status, "the status keeps its value", driver.read(STATUS))
}

fn wrong_step(driver: &mut Driver<'_>, _: u16, step: u64) -> Result<(), Fault> {
    let (status, written) = (step >> 32, step as u32);
    advance(driver, status)?;
    driver.write(STATUS, written);
    expect(u64::from(driver.read(STATUS)) == status, "the status keeps its value", driver.read(STATUS))
}

fn go_on_after_failed(driver: &mut Driver<'_>, _: u16, status: u64) -> Result<(), Fault> {
    advance(driver, status)?;
    let failed = status as u32 | 0x80;
    driver.write(STATUS, failed);
    expect(driver.read(STATUS) == failed, "FAILED is set", driver.read(STATUS))?;
    for next in [1, 3, 11, 15, 0x81, 0x83, 0x8b, 0x8f].into_iter().filter(|&next| next != failed) {
        driver.write(STATUS, next);
        expect(driver.read(STATUS) == failed, "no step follows FAILED", driver.read(STATUS))?;
    }
    Ok(())
}

fn reset_at(driver: &mut Driver<'_>, _: u16, status: u64) -> Result<(), Fault> {
    advance(driver, status)?;
    driver.reset();
    expect(driver.read(STATUS) == 0, "status is 0 after a reset", driver.read(STATUS))
}

fn without_version(driver: &mut Driver<'_>, _: u16, bit: u64) -> Result<(), Fault> {
    let accepted = driver.negotiate(1 << bit);
    expect(accepted == (1 << bit == VERSION_1), "only VERSION_1 is accepted alone", accepted)
}

fn unoffered(driver: &mut Driver<'_>, _: u16, bit: u64) -> Result<(), Fault> {
    let offered = driver.features() & 1 << bit != 0;
    let accepted = driver.negotiate(VERSION_1 | 1 << bit);
    expect(accepted == offered, "a feature is accepted if it is offered", accepted)
}

fn beyond(driver: &mut Driver<'_>, _: u16, select: u64) -> Result<(), Fault> {
    driver.introduce();
    for (half, value) in [(1, 1), (select as u32, 1)] {
        driver.write(DRIVER_FEATURES_SELECT, half);
        driver.write(DRIVER_FEATURES, value);
    }
    driver.write(STATUS, 11);
    expect(driver.read(STATUS) == 3, "FEATURES_OK is not set", driver.read(STATUS))
}

fn late_features(driver: &mut Driver<'_>, _: u16, half: u64) -> Result<(), Fault> {
    driver.write(DRIVER_FEATURES_SELECT, half as u32);
    driver.write(DRIVER_FEATURES, u32::MAX);
    expect(driver.read(STATUS) == 15, "the device is still ready", driver.read(STATUS))?;
    driver.good_request()
}

/// Brings the device up with its other queues as they should be, and expects that it refuses.
fn refuse(driver: &mut Driver<'_>, queue: u16, size: u32, addresses: [u64; 3]) -> Result<(), Fault> {
    driver.prepare()?;
    for other in 0..driver.queues() {
        driver.describe_well(other);
        if other == queue {
            driver.describe(queue, size, addresses);
        }
        driver.write(QUEUE_READY, 1);
    }
    driver.write(STATUS, 15);
    expect(driver.read(STATUS) & NEEDS_RESET != 0, "the device needs a reset", driver.read(STATUS))
}

fn wrong_size(driver: &mut Driver<'_>, queue: u16, size: u64) -> Result<(), Fault> {
    let addresses = driver.addresses(queue);
    refuse(driver, queue, size as u32, addresses)
}

fn wrong_place(driver: &mut Driver<'_>, queue: u16, part: usize, place: u64) -> Result<(), Fault> {
    let mut addresses = driver.addresses(queue);
    addresses[part] = match place {
        MISALIGNED => addresses[part] + 1,
        AT_END => driver.machine.memory_end() - [16, 2, 4][part],
        outside => outside,
    };
    let size = u32::from(driver.ring_size(queue));
    refuse(driver, queue, size, addresses)
}

/// The queue is served as it was described first.
fn describe_late(driver: &mut Driver<'_>, queue: u16, register: u64) -> Result<(), Fault> {
    driver.write(QUEUE_SELECT, u32::from(queue));
    driver.write(register, 0x7fff_fff1);
    driver.good_request()?;
    driver.prepare()?;
    for queue in 0..driver.queues() {
        driver.describe_well(queue);
        driver.write(QUEUE_READY, 1);
        driver.write(register, 0x7fff_fff1);
    }
    driver.write(STATUS, 15);
    expect(driver.read(STATUS) == 15, "the device is ready", driver.read(STATUS))?;
    driver.good_request()
}

fn disable_late(driver: &mut Driver<'_>, queue: u16, value: u64) -> Result<(), Fault> {
    driver.write(QUEUE_SELECT, u32::from(queue));
    driver.write(QUEUE_READY, value as u32);
    driver.good_request()
}
