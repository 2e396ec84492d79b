// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The records of a 64-bit little-endian ELF file that a loader of kernels needs (System V ABI,
//! chapters 4 and 5). Plain data; segments are loaded to `p_paddr`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";
/// `ident[4]`: 64-bit.
pub(crate) const CLASS_64: u8 = 2;
/// `ident[5]`: little-endian.
pub(crate) const DATA_LITTLE_ENDIAN: u8 = 1;
/// `kind`: executable, linked to fixed addresses.
pub(crate) const KIND_EXECUTABLE: u16 = 2;
/// `machine`: x86-64.
pub(crate) const MACHINE_X86_64: u16 = 62;
/// Type of a program header: loaded into memory.
pub(crate) const SEGMENT_LOAD: u32 = 1;
/// Type of a program header: notes.
pub(crate) const SEGMENT_NOTE: u32 = 4;

/// `Elf64_Ehdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FileHeader {
    pub(crate) ident: [u8; 16],
    pub(crate) kind: U16,
    pub(crate) machine: U16,
    pub(crate) version: U32,
    pub(crate) entry: U64,
    pub(crate) program_headers: U64,
    pub(crate) section_headers: U64,
    pub(crate) flags: U32,
    pub(crate) header_size: U16,
    pub(crate) program_header_size: U16,
    pub(crate) program_header_count: U16,
    pub(crate) section_header_size: U16,
    pub(crate) section_header_count: U16,
    pub(crate) section_names: U16,
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: U32,
    pub(crate) flags: U32,
    pub(crate) offset: U64,
    pub(crate) virtual_address: U64,
    pub(crate) physical_address: U64,
    pub(crate) file_size: U64,
    pub(crate) memory_size: U64,
    pub(crate) alignment: U64,
}

/// `Elf64_Nhdr`, followed by the name and the descriptor of a note.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct NoteHeader {
    pub(crate) name_size: U32,
    pub(crate) descriptor_size: U32,
    pub(crate) kind: U32,
}

const _: () = assert!(size_of::<FileHeader>() == 64);
const _: () = assert!(size_of::<ProgramHeader>() == 56);
const _: () = assert!(size_of::<NoteHeader>() == 12);
