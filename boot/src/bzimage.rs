// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A compressed x86 kernel with its boot code, as distributions install it: finds the compressed ELF file in it
//! (Documentation/arch/x86/boot.rst of the Linux kernel, "The Real-Mode Kernel Header"). Pure but for reading the first bytes.

use crate::headers::KernelProblem;
use std::io::{Read, Seek, SeekFrom};

/// The boot sector and the set-up header.
const HEAD: usize = 0x250;
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// What a set-up of no sectors means.
const DEFAULT_SETUP_SECTORS: u8 = 4;

const SETUP_SECTORS: usize = 0x1f1;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first protocol with the offset of the compressed kernel.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x208;

/// Where things are in a bzImage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BzImage {
    /// First byte of the compressed kernel.
    pub(crate) payload: u64,
    pub(crate) length: u64,
}

impl BzImage {
    /// Reads the header of a file that [`Foreign`](crate::Foreign) took for a bzImage.
    pub(crate) fn parse(source: &mut (impl Read + Seek)) -> Result<Self, KernelProblem> {
        let file_size = source.seek(SeekFrom::End(0)).map_err(KernelProblem::Read)?;
        let cut_off = |what, end| KernelProblem::Truncated { what, end, file_size };
        if file_size < HEAD as u64 {
            return Err(cut_off("set-up header", HEAD as u64));
        }
        let mut head = [0; HEAD];
        source.rewind().and_then(|()| source.read_exact(&mut head)).map_err(KernelProblem::Read)?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 2)) << 16;
        if half(PROTOCOL) < PROTOCOL_WITH_PAYLOAD {
            return Err(KernelProblem::BootProtocol { major: head[PROTOCOL + 1], minor: head[PROTOCOL] });
        }
        let sectors = if head[SETUP_SECTORS] == 0 { DEFAULT_SETUP_SECTORS } else { head[SETUP_SECTORS] };
        let payload = (u64::from(sectors) + 1) * SECTOR + word(PAYLOAD_OFFSET);
        let length = word(PAYLOAD_LENGTH);
        if payload + length > file_size {
            return Err(cut_off("compressed kernel", payload + length));
        }
        Ok(Self { payload, length })
    }
}

#[cfg(test)]
#[path = "bzimage_tests.rs"]
pub(crate) mod tests;
