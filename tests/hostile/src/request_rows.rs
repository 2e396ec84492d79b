// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests of the devices. Virtio 1.3, 5.1.6 (network), 5.2.6 (block), 5.3.6 (console), 5.4.6 (entropy), 5.10.6 (sockets).

use crate::driver::{Descriptor, Driver, Fault, NEXT, STATUS, WRITE, expect, socket_reset};
use crate::{BLOCK, CONSOLE, NET, RNG, Row, Scope, VSOCK};

const BYTES: [u64; 256] = {
    let mut bytes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        bytes[byte] = byte as u64;
        byte += 1;
    }
    bytes
};
/// The bytes of the header of a socket's packet.
const HEADER_OFFSETS: [u64; 44] = *BYTES.first_chunk().expect("there are more bytes");
const BLOCK_QUEUE: Scope = Scope::Only(BLOCK);
const READ: u32 = 0;
const WRITE_SECTORS: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// A sector that cannot be on any disk, or whose offset in bytes overflows.
const SECTORS: &[u64] = &[END, 1 << 42, 1 << 54, 1 << 55, 1 << 63, u64::MAX - 1, u64::MAX];
/// The first sector after the disk.
const END: u64 = 0;

pub(crate) const ROWS: &[Row] = &[
    Row {
        clause: "5.2.6.1",
        what: "send a request of an unknown type",
        scope: BLOCK_QUEUE,
        values: &[2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 0x100, 0x8000_0000, 0xffff_ffff],
        action: |d, q, kind| block(d, q, kind as u32, 0, 0, 512, UNSUPPORTED),
    },
    Row {
        clause: "5.2.6.1",
        what: "read past the end of the disk",
        scope: BLOCK_QUEUE,
        values: SECTORS,
        action: |d, q, sector| past_end(d, q, READ, sector),
    },
    Row {
        clause: "5.2.6.1",
        what: "write past the end of the disk",
        scope: BLOCK_QUEUE,
        values: SECTORS,
        action: |d, q, sector| past_end(d, q, WRITE_SECTORS, sector),
    },
    Row {
        clause: "5.2.6.1",
        what: "read a part of a sector",
        scope: BLOCK_QUEUE,
        values: &[1, 511, 513, 1023],
        action: |d, q, length| block(d, q, READ, 0, 0, length as u32, IO_ERROR),
    },
    Row {
        clause: "5.2.6.1",
        what: "write a part of a sector",
        scope: BLOCK_QUEUE,
        values: &[1, 511, 513, 1023],
        action: |d, q, length| block(d, q, WRITE_SECTORS, 0, length as u32, 0, IO_ERROR),
    },
    Row {
        clause: "5.2.6.1",
        what: "send a short header",
        scope: BLOCK_QUEUE,
        values: &[1, 2, 4, 8, 12, 15],
        action: short_header,
    },
    Row {
        clause: "5.2.6.1",
        what: "flush with data",
        scope: BLOCK_QUEUE,
        values: &[1, 512],
        action: |d, q, length| block(d, q, FLUSH, 0, length as u32, 0, IO_ERROR),
    },
    Row {
        clause: "5.2.6.1",
        what: "get the identifier into a short buffer",
        scope: BLOCK_QUEUE,
        values: &[1, 19],
        action: |d, q, length| block(d, q, GET_ID, 0, 0, length as u32, IO_ERROR),
    },
    Row {
        clause: "5.2.6",
        what: "send a request without a status byte",
        scope: BLOCK_QUEUE,
        values: &[READ as u64, WRITE_SECTORS as u64, FLUSH as u64, GET_ID as u64, 0xff],
        action: no_status,
    },
    Row {
        clause: "5.1.6.2",
        what: "send a packet shorter than its header",
        scope: Scope::Only(NET),
        values: &[1, 2, 4, 8, 10, 11, 12, 13, 25],
        action: |d, q, length| packet(d, q, 0, 0, length as u32),
    },
    Row {
        clause: "5.1.6.2",
        what: "send a packet that is too long",
        scope: Scope::Only(NET),
        values: &[0xf000],
        action: |d, q, length| packet(d, q, 0, 0, length as u32),
    },
    Row {
        clause: "5.1.6.2",
        what: "send a packet with any flags",
        scope: Scope::Only(NET),
        values: &BYTES,
        action: |d, q, value| packet(d, q, 0, value as u8, 72),
    },
    Row {
        clause: "5.1.6.2",
        what: "send a packet with any segmentation type",
        scope: Scope::Only(NET),
        values: &BYTES,
        action: |d, q, value| packet(d, q, 1, value as u8, 72),
    },
    Row {
        clause: "5.1.6.2",
        what: "send a packet with any byte in its lengths",
        scope: Scope::Only(NET),
        values: &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        action: |d, q, at| packet(d, q, at, 0xff, 72),
    },
    Row {
        clause: "5.10.6",
        what: "send a packet shorter than its header",
        scope: Scope::Only(VSOCK),
        values: &[1, 8, 16, 24, 28, 30, 32, 40, 43],
        action: |d, q, length| socket_packet(d, q, 0, 3, length as u32),
    },
    Row {
        clause: "5.10.6",
        what: "send a packet with any operation",
        scope: Scope::Only(VSOCK),
        values: &BYTES,
        action: |d, q, value| socket_packet(d, q, 30, value as u8, 44),
    },
    Row {
        clause: "5.10.6",
        what: "send a packet with any type of socket",
        scope: Scope::Only(VSOCK),
        values: &BYTES,
        action: |d, q, value| socket_packet(d, q, 28, value as u8, 44),
    },
    Row {
        clause: "5.10.6",
        what: "send a packet with any byte in its header",
        scope: Scope::Only(VSOCK),
        values: &HEADER_OFFSETS,
        action: |d, q, at| socket_packet(d, q, at, 0xff, 44),
    },
    Row {
        clause: "5.3.6",
        what: "send much text at once",
        scope: Scope::Only(CONSOLE),
        values: &[4096, 0xffff],
        action: |d, q, length| packet(d, q, 0, b'.', length as u32),
    },
    Row {
        clause: "5.3.6",
        what: "offer writable space to be sent",
        scope: Scope::Only(CONSOLE),
        values: &[1, 4096],
        action: space_to_send,
    },
    Row {
        clause: "5.3.6.2",
        what: "send a control message of a wrong length",
        scope: Scope::Only(CONSOLE),
        values: &[1, 4, 7, 9, 4096],
        action: |d, _, length| packet(d, 3, 4, 0, length as u32),
    },
    Row {
        clause: "5.3.6.2",
        what: "send a control message of any kind",
        scope: Scope::Only(CONSOLE),
        values: &BYTES,
        action: |d, _, event| packet(d, 3, 4, event as u8, 8),
    },
    Row {
        clause: "5.3.6.2",
        what: "send a control message for any port",
        scope: Scope::Only(CONSOLE),
        values: &[1, 2, 3, 7, 0x7f, 0xff],
        action: |d, _, port| packet(d, 3, 3, port as u8, 8),
    },
    Row {
        clause: "5.4.6",
        what: "ask for random bytes of any length",
        scope: Scope::Only(RNG),
        values: &[1, 4095, 4096, 4097, 0xffff],
        action: random,
    },
    Row {
        clause: "5.4.6.1",
        what: "offer readable bytes to be filled",
        scope: Scope::Only(RNG),
        values: &[1, 16, 4096],
        action: readable_random,
    },
];

/// Where writable buffers begin.
const SPACE: u64 = 0x8000;
const GUARD: u8 = 0xa5;

/// Sends one request with `data` readable and `space` writable bytes, and expects a status.
fn block(
    d: &mut Driver<'_>,
    queue: u16,
    kind: u32,
    sector: u64,
    data: u32,
    space: u32,
    status: u8,
) -> Result<(), Fault> {
    let buffer = d.buffer();
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    d.machine.store(buffer, &header);
    d.machine.store(buffer + SPACE + u64::from(space), &[GUARD]);
    let chain = [
        Descriptor { address: buffer, length: 16 + data, flags: NEXT, next: 1 },
        Descriptor { address: buffer + SPACE, length: space + 1, flags: WRITE, next: 0 },
    ];
    let length = d.exchange(queue, &chain)?;
    let mut found = [0];
    d.machine.load(buffer + SPACE + u64::from(space), &mut found);
    expect(found[0] == status, "the request fails with its status", found[0])?;
    expect(length <= space + 1, "no more is written than there is space", length)
}

fn past_end(driver: &mut Driver<'_>, queue: u16, kind: u32, sector: u64) -> Result<(), Fault> {
    let capacity = u64::from(driver.read(0x100)) | u64::from(driver.read(0x104)) << 32;
    let sector = if sector == END { capacity } else { sector };
    let (data, space) = if kind == READ { (0, 512) } else { (512, 0) };
    block(driver, queue, kind, sector, data, space, IO_ERROR)?;
    // The last sector, and one more.
    block(driver, queue, kind, capacity.saturating_sub(1), 2 * data, 2 * space, IO_ERROR)
}

fn short_header(driver: &mut Driver<'_>, queue: u16, length: u64) -> Result<(), Fault> {
    let buffer = driver.buffer();
    driver.machine.store(buffer + SPACE, &[GUARD]);
    let chain = [
        Descriptor { address: buffer, length: length as u32, flags: NEXT, next: 1 },
        Descriptor { address: buffer + SPACE, length: 1, flags: WRITE, next: 0 },
    ];
    driver.exchange(queue, &chain)?;
    let mut status = [0];
    driver.machine.load(buffer + SPACE, &mut status);
    expect(status[0] == IO_ERROR, "the request fails with its status", status[0])
}

fn no_status(driver: &mut Driver<'_>, queue: u16, kind: u64) -> Result<(), Fault> {
    let buffer = driver.buffer();
    let mut header = [0; 16];
    header[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    driver.machine.store(buffer, &header);
    let length = driver.exchange(queue, &[Descriptor { address: buffer, length: 528, flags: 0, next: 0 }])?;
    expect(length == 0, "nothing is written", length)
}

/// Sends `length` bytes, all zero but one. Served or dropped, they are returned with nothing written.
fn packet(driver: &mut Driver<'_>, queue: u16, at: u64, byte: u8, length: u32) -> Result<(), Fault> {
    let buffer = driver.buffer();
    driver.machine.store(buffer, &[0; 128]);
    driver.machine.store(buffer + at, &[byte]);
    let length = driver.exchange(queue, &[Descriptor { address: buffer, length, flags: 0, next: 0 }])?;
    expect(length == 0, "nothing is written", length)?;
    expect(driver.read(STATUS) == 15, "the device is still ready", driver.read(STATUS))
}

/// Sends a good packet of a socket in which one byte is another one.
fn socket_packet(driver: &mut Driver<'_>, queue: u16, at: u64, byte: u8, length: u32) -> Result<(), Fault> {
    let buffer = driver.buffer();
    driver.machine.store(buffer, &socket_reset());
    driver.machine.store(buffer + at, &[byte]);
    let length = driver.exchange(queue, &[Descriptor { address: buffer, length, flags: 0, next: 0 }])?;
    expect(length == 0, "nothing is written", length)?;
    expect(driver.read(STATUS) == 15, "the device is still ready", driver.read(STATUS))
}

fn space_to_send(driver: &mut Driver<'_>, queue: u16, length: u64) -> Result<(), Fault> {
    let address = driver.buffer();
    let length = driver.exchange(queue, &[Descriptor { address, length: length as u32, flags: WRITE, next: 0 }])?;
    expect(length == 0, "nothing is written", length)
}

fn random(driver: &mut Driver<'_>, queue: u16, wanted: u64) -> Result<(), Fault> {
    let address = driver.buffer();
    let length = driver.exchange(queue, &[Descriptor { address, length: wanted as u32, flags: WRITE, next: 0 }])?;
    expect((1..=wanted).contains(&u64::from(length)), "at most what was asked for is written", length)
}

fn readable_random(driver: &mut Driver<'_>, queue: u16, length: u64) -> Result<(), Fault> {
    let address = driver.buffer();
    let length = driver.exchange(queue, &[Descriptor { address, length: length as u32, flags: 0, next: 0 }])?;
    expect(length == 0, "nothing is written", length)
}
