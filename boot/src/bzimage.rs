// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the compressed ELF file in a bzImage, a compressed x86 kernel with its boot code, as
//! distributions install it (Documentation/arch/x86/boot.rst of the Linux kernel, "The Real-Mode
//! Kernel Header"). Pure but for reading the first bytes.

use crate::headers::KernelProblem;
use std::io::{Read, Seek, SeekFrom};

/// Boot sector and set-up header.
const HEAD_SIZE: usize = 0x250;
const SECTOR_SIZE: u64 = 512;
/// Value of a `setup_sects` field of 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;

const SETUP_SECTORS: usize = 0x1f1;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first protocol with `payload_offset`.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x208;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BzImage {
    /// Offset of the compressed kernel.
    pub(crate) payload: u64,
    pub(crate) length: u64,
}

impl BzImage {
    /// Parses the header of a file that [`FileFormat`](crate::FileFormat) recognised as a bzImage.
    pub(crate) fn parse(source: &mut (impl Read + Seek)) -> Result<Self, KernelProblem> {
        let file_size = source.seek(SeekFrom::End(0)).map_err(KernelProblem::Read)?;
        let truncated = |what, end| KernelProblem::Truncated { what, end, file_size };
        if file_size < HEAD_SIZE as u64 {
            return Err(truncated("set-up header", HEAD_SIZE as u64));
        }
        let mut head = [0; HEAD_SIZE];
        source.rewind().and_then(|()| source.read_exact(&mut head)).map_err(KernelProblem::Read)?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 2)) << 16;
        if half(PROTOCOL) < PROTOCOL_WITH_PAYLOAD {
            return Err(KernelProblem::BootProtocol { major: head[PROTOCOL + 1], minor: head[PROTOCOL] });
        }
        let sectors = if head[SETUP_SECTORS] == 0 { DEFAULT_SETUP_SECTORS } else { head[SETUP_SECTORS] };
        let payload = (u64::from(sectors) + 1) * SECTOR_SIZE + word(PAYLOAD_OFFSET);
        let length = word(PAYLOAD_LENGTH);
        if payload + length > file_size {
            return Err(truncated("compressed kernel", payload + length));
        }
        Ok(Self { payload, length })
    }
}

#[cfg(test)]
#[path = "bzimage_tests.rs"]
pub(crate) mod tests;
