// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tiny kernels for tests, built in process: a test changes fields, `bytes` lays them out.

use crate::elf::{self, FileHeader, ProgramHeader};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Load address of [`TestKernel::valid`].
pub(crate) const ADDRESS: u64 = 0x0100_0000;
/// Content of [`TestKernel::valid`].
pub(crate) const CODE: [u8; 16] = [0xf4; 16];

/// One note with its padding.
pub(crate) fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, descriptor.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, descriptor] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A PVH note for `entry`.
pub(crate) fn pvh_note(entry: u64) -> Vec<u8> {
    note(b"Xen\0", 18, &entry.to_le_bytes())
}

/// A program header that loads to `address`; its file range is filled in by [`TestKernel::bytes`].
pub(crate) fn load(address: u64, memory_size: u64) -> ProgramHeader {
    let mut header = ProgramHeader::new_zeroed();
    header.kind = elf::SEGMENT_LOAD.into();
    header.physical_address = address.into();
    header.memory_size = memory_size.into();
    header
}

/// A program header for notes.
pub(crate) fn notes() -> ProgramHeader {
    let mut header = ProgramHeader::new_zeroed();
    header.kind = elf::SEGMENT_NOTE.into();
    header
}

pub(crate) struct TestKernel {
    pub(crate) header: FileHeader,
    /// Each with its content. An offset or file size other than zero is kept.
    pub(crate) segments: Vec<(ProgramHeader, Vec<u8>)>,
}

impl TestKernel {
    /// A valid kernel: sixteen bytes of code in a page at [`ADDRESS`], entered at its start.
    pub(crate) fn valid() -> Self {
        Self::new(vec![(load(ADDRESS, 0x1000), CODE.to_vec()), (notes(), pvh_note(ADDRESS))])
    }

    pub(crate) fn new(segments: Vec<(ProgramHeader, Vec<u8>)>) -> Self {
        let mut header = FileHeader::new_zeroed();
        header.ident[..4].copy_from_slice(&elf::MAGIC);
        header.ident[4] = elf::CLASS_64;
        header.ident[5] = elf::DATA_LITTLE_ENDIAN;
        header.ident[6] = 1;
        header.kind = elf::KIND_EXECUTABLE.into();
        header.machine = elf::MACHINE_X86_64.into();
        header.version = 1.into();
        header.program_headers = 64.into();
        header.header_size = 64.into();
        header.program_header_size = 56.into();
        header.program_header_count = (segments.len() as u16).into();
        Self { header, segments }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.as_bytes().to_vec();
        let mut offset = (64 + 56 * self.segments.len()) as u64;
        for (header, content) in &self.segments {
            let mut header = *header;
            if header.offset.get() == 0 {
                header.offset = offset.into();
            }
            if header.file_size.get() == 0 {
                header.file_size = (content.len() as u64).into();
            }
            bytes.extend(header.as_bytes());
            offset += content.len() as u64;
        }
        bytes.extend(self.segments.iter().flat_map(|(_, content)| content));
        bytes
    }
}
