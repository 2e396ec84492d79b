// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The meaning of the fuzzer's bytes: a device, and the steps of a guest and of the host.

use libfuzzer_sys::arbitrary::{self, Arbitrary};

#[derive(Arbitrary, Debug)]
pub struct Input {
    pub kind: u8,
    pub variant: u8,
    /// Accepted by the driver, as far as they are offered.
    pub features: u64,
    /// The driver follows the rules of the rings and of the registers, though not those of the
    /// device. More can be asserted of what is returned to it.
    pub polite: bool,
    pub steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
pub enum Step {
    /// Registers as a driver writes them, with one of them wrong unless the driver is polite.
    Start {
        wrong: Option<(u8, u32)>,
    },
    WriteRegister {
        offset: u16,
        width: u8,
        value: u32,
    },
    ReadRegister {
        offset: u16,
        width: u8,
    },
    /// A chain of descriptors, offered with a notification.
    Chain {
        queue: u8,
        slot: u8,
        content: Content,
        buffers: [Buffer; 4],
        count: u8,
    },
    /// A chain in the shape of a block request: header, data if there is a length, status.
    Request {
        queue: u8,
        slot: u8,
        content: Content,
        header: u8,
        at: u16,
        sectors: u8,
        write: bool,
    },
    /// A descriptor: in a queue's table, or among the buffers for an indirect one.
    Descriptor {
        table: u8,
        index: u8,
        buffer: Buffer,
        next: u8,
    },
    Offer {
        queue: u8,
        head: u16,
    },
    AvailableIndex {
        queue: u8,
        index: u16,
    },
    AvailableFlags {
        queue: u8,
        flags: u16,
    },
    /// Writes eight bytes at any address.
    Word {
        address: u32,
        value: u64,
    },
    /// Eight bytes near the start of a ring.
    RingWord {
        queue: u8,
        part: u8,
        offset: u8,
        value: u64,
    },
    Process {
        token: u8,
        ready: u8,
    },
    HostSends {
        count: u16,
    },
    HostReads,
    HostCloses {
        input: bool,
    },
}

/// Content of the first readable buffer of a chain: noise, or a request.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Content {
    Noise([u64; 4]),
    /// A block request, with the range of a discard or write-zeroes.
    Disk {
        operation: u8,
        sector: u16,
        range: (u16, u16, u8),
    },
    /// A control message of the console.
    Message {
        port: u8,
        event: u8,
        value: u8,
    },
    /// A command of the network's control queue.
    Command {
        class: u8,
        command: u8,
        data: [u16; 3],
    },
    /// The header of a packet.
    Packet {
        flags: u8,
        segmentation: u8,
        lengths: [u16; 4],
    },
}

impl Content {
    pub fn words(self) -> [u64; 4] {
        match self {
            Self::Noise(words) => words,
            Self::Disk { operation, sector, range: (first, count, flags) } => {
                [u64::from(operation % 16), sector.into(), first.into(), u64::from(flags % 4) << 32 | u64::from(count)]
            }
            Self::Message { port, event, value } => {
                [u64::from(value % 3) << 48 | u64::from(event % 8) << 32 | u64::from(port % 4), 0, 0, 0]
            }
            Self::Command { class, command, data: [first, second, third] } => {
                let kind = u64::from(class % 8) | u64::from(command % 8) << 8;
                [kind | u64::from(first) << 16 | u64::from(second) << 32 | u64::from(third) << 48, 0, 0, 0]
            }
            Self::Packet { flags, segmentation, lengths: [length, size, start, offset] } => {
                let first = u64::from(flags % 4) | u64::from(segmentation % 8) << 8;
                let lengths = u64::from(length) << 16 | u64::from(size) << 32 | u64::from(start) << 48;
                [first | lengths, offset.into(), 0, 0]
            }
        }
    }
}

/// The buffer of one descriptor.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Buffer {
    /// In units of 32 bytes from the start of the buffers; with `wild`, anywhere.
    pub at: u16,
    pub wild: Option<u64>,
    pub length: Length,
    pub flags: u8,
}

/// Lengths that mean something to a device are more frequent than others.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Length {
    One,
    Header,
    Sectors(u8),
    Short(u8),
    Any(u32),
}

impl Length {
    pub fn bytes(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Header => 16,
            Self::Sectors(count) => 512 * u32::from(count),
            Self::Short(length) => length.into(),
            Self::Any(length) => length,
        }
    }
}
