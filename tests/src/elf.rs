// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernel images with one fault: a minimal ELF file of which a test can change every field.

/// An ELF file with one loadable segment and, by default, a PVH note. The default is valid.
pub struct Elf {
    /// `EI_CLASS`: 2 is 64 bit.
    pub class: u8,
    /// `EI_DATA`: 1 is little endian.
    pub data: u8,
    /// `e_type`: 2 is executable.
    pub kind: u16,
    /// `e_machine`: 62 is x86-64.
    pub machine: u16,
    /// The entry point in the PVH note; `None` leaves the note out.
    pub pvh_entry: Option<u32>,
    /// The guest-physical address of the segment.
    pub address: u64,
    /// Size of the segment in memory.
    pub memory_size: u64,
    /// Other loadable segments without contents: address and size in memory.
    pub more_segments: Vec<(u64, u64)>,
    /// 32-bit code, entered as the PVH boot protocol says.
    pub code: Vec<u8>,
}

impl Default for Elf {
    fn default() -> Elf {
        let address = 0x100_0000;
        Elf {
            class: 2,
            data: 1,
            kind: 2,
            machine: 62,
            pvh_entry: Some(0x100_0000),
            address,
            memory_size: 4096,
            more_segments: Vec::new(),
            // hlt; jmp back: a kernel that only halts.
            code: vec![0xf4, 0xeb, 0xfd],
        }
    }
}

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

impl Elf {
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut note = Vec::new();
        if let Some(entry) = self.pvh_entry {
            for word in [4, 4, XEN_ELFNOTE_PHYS32_ENTRY] {
                note.extend_from_slice(&u32::to_le_bytes(word));
            }
            note.extend_from_slice(b"Xen\0");
            note.extend_from_slice(&entry.to_le_bytes());
        }
        let code = &self.code;
        let count = 1 + self.more_segments.len() + usize::from(!note.is_empty());
        let code_offset = (HEADER + count * PROGRAM_HEADER) as u64;
        let note_offset = code_offset + code.len() as u64;

        let mut file = self.header(count as u16);
        file.extend(program_header(PT_LOAD, code_offset, self.address, code.len() as u64, self.memory_size));
        for (address, size) in &self.more_segments {
            file.extend(program_header(PT_LOAD, code_offset, *address, 0, *size));
        }
        if !note.is_empty() {
            let size = note.len() as u64;
            file.extend(program_header(PT_NOTE, note_offset, 0, size, size));
        }
        file.extend(code);
        file.extend(note);
        file
    }

    fn header(&self, program_headers: u16) -> Vec<u8> {
        let mut header = vec![0x7f, b'E', b'L', b'F', self.class, self.data, 1, 0];
        header.extend([0; 8]);
        header.extend(self.kind.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend(self.address.to_le_bytes());
        header.extend((HEADER as u64).to_le_bytes());
        header.extend(0_u64.to_le_bytes());
        header.extend(0_u32.to_le_bytes());
        for half in [HEADER as u16, PROGRAM_HEADER as u16, program_headers, 64, 0, 0] {
            header.extend(half.to_le_bytes());
        }
        header
    }
}

fn program_header(kind: u32, offset: u64, address: u64, file_size: u64, memory_size: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(PROGRAM_HEADER);
    header.extend(kind.to_le_bytes());
    header.extend(5_u32.to_le_bytes());
    for word in [offset, address, address, file_size, memory_size, 4] {
        header.extend(word.to_le_bytes());
    }
    header
}
