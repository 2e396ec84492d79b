// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Good requests to a block device whose backend fails now and then: each failure has to be a status, and what was written without
//! one has to be there. Virtio 1.3, 5.2.6.

use crate::driver::{Descriptor, Driver, Fault, NEXT, WRITE, expect};
use crate::{BLOCK, Machine};

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockErrors {
    /// Requests that were returned.
    pub requests: usize,
    /// Those with the status of an error.
    pub errors: usize,
    /// Sectors that were read without an error and do not hold what was written there last.
    pub wrong_sectors: usize,
}

/// Features: flush, discard, write zeroes.
const FEATURES: u64 = 1 << 9 | 1 << 13 | 1 << 14;
const READ: u32 = 0;
const WRITE_SECTORS: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const NO_STATUS: u8 = 0xff;
const SECTOR_SIZE: usize = 512;
/// Sectors that are used, in blocks of the size that can be discarded: those of 4 KiB.
const BLOCKS: usize = 32;
const BLOCK_SECTORS: usize = 8;
const BLOCK_SIZE: usize = SECTOR_SIZE * BLOCK_SECTORS;
/// Where a block is read to, and where it is written from.
const DATA: u64 = 0x1000;
const STATUS: u64 = DATA + BLOCK_SIZE as u64;

/// The contents of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// After an error, or a discard.
    Unknown,
    Zeroes,
    /// The number of the request that wrote them.
    Written(u32),
}

/// Sends requests to the machine's last block device until `errors` of them have failed, at most `max_requests`.
///
/// # Errors
/// There is no block device, or it did something else than to serve or to fail a request.
pub fn block_errors(machine: &mut dyn Machine, errors: usize, max_requests: usize) -> Result<BlockErrors, Fault> {
    let mut driver = Driver::new(machine);
    let device = (0..driver.devices()).rev().find(|&device| {
        driver.select(device);
        driver.id() == BLOCK
    });
    driver.select(device.ok_or(Fault { what: "there is a block device", found: 0 })?);
    driver.start_with(FEATURES)?;
    let (mut outcome, mut contents, mut state) = (BlockErrors::default(), [Contents::Unknown; BLOCKS], 1_u32);
    while outcome.errors < errors && outcome.requests < max_requests {
        // Xorshift: which request comes next.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let block = state as usize / 16 % BLOCKS;
        let kind = match state % 16 {
            0..6 => READ,
            6..12 => WRITE_SECTORS,
            12..14 => WRITE_ZEROES,
            14 => DISCARD,
            _ => FLUSH,
        };
        outcome.requests += 1;
        let number = outcome.requests as u32;
        let status = request(&mut driver, kind, block, number)?;
        outcome.errors += usize::from(status == IO_ERROR);
        contents[block] = match (kind, status) {
            (READ, OK) => {
                outcome.wrong_sectors += wrong_sectors(&mut driver, contents[block]);
                contents[block]
            }
            (READ | FLUSH, _) => contents[block],
            (WRITE_SECTORS, OK) => Contents::Written(number),
            (WRITE_ZEROES, OK) => Contents::Zeroes,
            _ => Contents::Unknown,
        };
    }
    Ok(outcome)
}

/// Returns the status of a request for a whole block.
fn request(driver: &mut Driver<'_>, kind: u32, block: usize, number: u32) -> Result<u8, Fault> {
    let (buffer, sector) = (driver.buffer(), (block * BLOCK_SECTORS) as u64);
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    // The others have their place in the data, or none.
    if matches!(kind, READ | WRITE_SECTORS) {
        header[8..].copy_from_slice(&sector.to_le_bytes());
    }
    driver.machine.store(buffer, &header);
    driver.machine.store(buffer + STATUS, &[NO_STATUS]);
    let data_length = match kind {
        READ | WRITE_SECTORS => BLOCK_SIZE as u32,
        WRITE_ZEROES | DISCARD => 16,
        _ => 0,
    };
    match kind {
        READ => driver.machine.store(buffer + DATA, &[0x5a; BLOCK_SIZE]),
        WRITE_SECTORS => {
            for index in 0..BLOCK_SECTORS {
                let place = buffer + DATA + (index * SECTOR_SIZE) as u64;
                driver.machine.store(place, &pattern(number, index));
            }
        }
        WRITE_ZEROES | DISCARD => {
            let mut range = [0; 16];
            range[..8].copy_from_slice(&sector.to_le_bytes());
            range[8..12].copy_from_slice(&(BLOCK_SECTORS as u32).to_le_bytes());
            driver.machine.store(buffer + DATA, &range);
        }
        _ => {}
    }
    let flags = if kind == READ { WRITE | NEXT } else { NEXT };
    let header = |next| Descriptor { address: buffer, length: 16, flags: NEXT, next };
    let data = Descriptor { address: buffer + DATA, length: data_length, flags, next: 2 };
    let status = Descriptor { address: buffer + STATUS, length: 1, flags: WRITE, next: 0 };
    if data_length == 0 {
        driver.exchange(0, &[header(1), status])?;
    } else {
        driver.exchange(0, &[header(1), data, status])?;
    }
    let mut status = [NO_STATUS];
    driver.machine.load(buffer + STATUS, &mut status);
    expect(matches!(status[0], OK | IO_ERROR), "a request is served or fails", status[0])?;
    Ok(status[0])
}

/// Sectors of the block that was read last without what it should hold.
fn wrong_sectors(driver: &mut Driver<'_>, contents: Contents) -> usize {
    let buffer = driver.buffer();
    (0..BLOCK_SECTORS)
        .filter(|&index| {
            let mut found = [0; SECTOR_SIZE];
            driver.machine.load(buffer + DATA + (index * SECTOR_SIZE) as u64, &mut found);
            match contents {
                Contents::Unknown => false,
                Contents::Zeroes => found != [0; SECTOR_SIZE],
                Contents::Written(number) => found != pattern(number, index),
            }
        })
        .count()
}

/// What the request with this number writes to a sector.
fn pattern(number: u32, index: usize) -> [u8; SECTOR_SIZE] {
    let mut bytes = [index as u8; SECTOR_SIZE];
    for word in bytes.chunks_exact_mut(8) {
        word[..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}
