// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The headers of an ELF kernel, read once and checked before they are used: class, machine,
//! segments that are disjoint and inside the file, a PVH entry inside a segment. Pure but for
//! reading its source; reads at most 64 headers and 64 KiB of notes each, whatever the file
//! declares.

use crate::compression::UnpackError;
use crate::elf::{self, FileHeader, ProgramHeader};
use crate::file_format::{FileFormat, HEAD_SIZE};
use crate::layout;
use crate::notes;
use std::io::{self, Read, Seek, SeekFrom};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

/// A kernel has three to six.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// A kernel has about 500 bytes of notes.
const MAX_NOTES_SIZE: u64 = 64 << 10;

/// Why a file cannot be started as a kernel. The messages follow the file's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelProblem {
    #[error("cannot be opened")]
    Open(#[source] io::Error),
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("is {0}, not a file")]
    NotAFile(&'static str),
    #[error("is empty")]
    Empty,
    #[error("{0}")]
    NotElf(FileFormat),
    /// `EI_CLASS`.
    #[error("is not a 64-bit ELF file; coracle needs a kernel for x86-64")]
    Class,
    /// `EI_DATA`.
    #[error("is a big-endian ELF file; coracle needs a kernel for x86-64")]
    BigEndian,
    /// `e_machine`.
    #[error("is an ELF file for machine {0}; coracle needs a kernel for x86-64 (62)")]
    Machine(u16),
    /// `e_type`.
    #[error("is an ELF file of type {0}, not an executable (2) linked to fixed addresses")]
    Kind(u16),
    /// `e_phentsize`.
    #[error("has ELF program headers of {0} bytes, not 56")]
    ProgramHeaderSize(u16),
    /// `e_phnum`.
    #[error("has {0} ELF program headers; 1 to 64 are accepted")]
    ProgramHeaderCount(u16),
    #[error("is cut off: its {what} ends at byte {end}, the file at {file_size}")]
    Truncated { what: &'static str, end: u64, file_size: u64 },
    /// `p_memsz` or `p_paddr`.
    #[error("has an invalid segment at {address:#x}: {file_size} bytes in the file, {memory_size} in memory")]
    SegmentSize { address: u64, file_size: u64, memory_size: u64 },
    #[error("is a bzImage of boot protocol {major}.{minor:02}; coracle finds the kernel in those of 2.08 and later")]
    BootProtocol { major: u8, minor: u8 },
    #[error("is a bzImage whose kernel is compressed with {0}; coracle unpacks gzip, xz and zstd")]
    Compression(&'static str),
    #[error("is a bzImage whose kernel cannot be unpacked")]
    Unpack(#[source] UnpackError),
    /// A problem of the ELF file in a bzImage.
    #[error("is a bzImage whose kernel {0}")]
    Inside(Box<KernelProblem>),
    #[error("has no segment to load")]
    NoSegments,
    #[error("has segments that overlap at {0:#x}")]
    Overlap(u64),
    #[error("is linked to {0:#x}; the first MiB belongs to the machine")]
    TooLow(u64),
    #[error("has {0} bytes of ELF notes in one segment; at most 65536 are accepted")]
    NotesSize(u64),
    #[error("has no PVH entry (no ELF note Xen 18); build it with CONFIG_PVH=y")]
    NoPvhNote,
    #[error("has a PVH note of {0} bytes; 4 or 8 are accepted")]
    PvhNoteSize(usize),
    #[error("has its PVH entry at {0:#x}, outside of its segments")]
    EntryOutside(u64),
    #[error(
        "does not fit: it needs {address:#x} to {end:#x}, and the guest has {memory_mib} MiB of memory; --memory gives it more"
    )]
    TooLarge { address: u64, end: u64, memory_mib: u64 },
    #[error("is linked to {0:#x}, where the machine has its devices")]
    InHole(u64),
    #[error("changed or failed while it was loaded")]
    Load(#[source] linux_loader::loader::Error),
}

/// A range of the file that is loaded to a range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes in memory. Those past `file_size` are zero.
    pub memory_size: u64,
    pub file_offset: u64,
    pub file_size: u64,
}

impl Segment {
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address + self.memory_size
    }

    fn has_content_at(&self, address: u64) -> bool {
        (self.address..self.address + self.file_size).contains(&address)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelHeaders {
    entry: u32,
    /// Sorted by address; no two overlap.
    segments: Vec<Segment>,
}

impl KernelHeaders {
    pub fn parse(source: &mut (impl Read + Seek)) -> Result<Self, KernelProblem> {
        let file_size = source.seek(SeekFrom::End(0)).map_err(KernelProblem::Read)?;
        let header = file_header(source, file_size)?;
        let mut segments = Vec::new();
        let mut entry = None;
        for header in program_headers(source, file_size, &header)? {
            match header.kind.get() {
                elf::SEGMENT_LOAD if header.memory_size.get() == 0 && header.file_size.get() == 0 => {}
                elf::SEGMENT_LOAD => segments.push(segment(&header, file_size)?),
                elf::SEGMENT_NOTE if entry.is_none() => entry = pvh_entry(source, &header, file_size)?,
                _ => {}
            }
        }
        segments.sort_unstable_by_key(|segment| segment.address);
        check_disjoint(&segments)?;
        let entry = entry.ok_or(KernelProblem::NoPvhNote)?;
        if !segments.iter().any(|segment| segment.has_content_at(entry)) {
            return Err(KernelProblem::EntryOutside(entry));
        }
        let entry = u32::try_from(entry).map_err(|_| KernelProblem::EntryOutside(entry))?;
        Ok(Self { entry, segments })
    }

    /// Guest-physical address of the PVH entry.
    #[must_use]
    pub fn entry(&self) -> u32 {
        self.entry
    }

    /// In ascending order, disjoint.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Checks that every segment lies within the memory of a guest of `memory_bytes`.
    pub fn check_fits(&self, memory_bytes: u64) -> Result<(), KernelProblem> {
        let regions = layout::memory_regions(memory_bytes);
        for segment in &self.segments {
            let fits = |&(start, length): &(vm_memory::GuestAddress, usize)| {
                segment.address >= start.0 && segment.end() - start.0 <= length as u64
            };
            if regions.iter().any(fits) {
                continue;
            }
            if (layout::HOLE_START.0..layout::HOLE_END.0).contains(&segment.address) {
                return Err(KernelProblem::InHole(segment.address));
            }
            let (address, end) = (segment.address, segment.end());
            return Err(KernelProblem::TooLarge { address, end, memory_mib: memory_bytes >> 20 });
        }
        Ok(())
    }

    /// Returns the beginning of an ELF file with the checked headers only, for a loader that must
    /// neither read the file's own again nor search its notes.
    pub(crate) fn to_elf(&self) -> Vec<u8> {
        let mut header = FileHeader::new_zeroed();
        header.ident[..4].copy_from_slice(&elf::MAGIC);
        header.ident[4] = elf::CLASS_64;
        header.ident[5] = elf::DATA_LITTLE_ENDIAN;
        header.kind = elf::KIND_EXECUTABLE.into();
        header.machine = elf::MACHINE_X86_64.into();
        header.entry = u64::from(self.entry).into();
        header.program_headers = (size_of::<FileHeader>() as u64).into();
        header.program_header_size = (size_of::<ProgramHeader>() as u16).into();
        header.program_header_count = (self.segments.len() as u16).into();
        let mut bytes = header.as_bytes().to_vec();
        for segment in &self.segments {
            let mut header = ProgramHeader::new_zeroed();
            header.kind = elf::SEGMENT_LOAD.into();
            header.offset = segment.file_offset.into();
            header.physical_address = segment.address.into();
            header.file_size = segment.file_size.into();
            header.memory_size = segment.memory_size.into();
            bytes.extend_from_slice(header.as_bytes());
        }
        bytes
    }
}

fn file_header(source: &mut (impl Read + Seek), file_size: u64) -> Result<FileHeader, KernelProblem> {
    if file_size == 0 {
        return Err(KernelProblem::Empty);
    }
    let mut head = vec![0; HEAD_SIZE.min(usize::try_from(file_size).unwrap_or(HEAD_SIZE))];
    read_at(source, 0, &mut head)?;
    if !head.starts_with(&elf::MAGIC) {
        return Err(KernelProblem::NotElf(FileFormat::recognise(&head)));
    }
    if head.get(4).is_some_and(|class| *class != elf::CLASS_64) {
        return Err(KernelProblem::Class);
    }
    let Ok((header, _)) = FileHeader::read_from_prefix(&head) else {
        return Err(KernelProblem::Truncated { what: "ELF header", end: size_of::<FileHeader>() as u64, file_size });
    };
    if header.ident[5] != elf::DATA_LITTLE_ENDIAN {
        return Err(KernelProblem::BigEndian);
    }
    if header.machine.get() != elf::MACHINE_X86_64 {
        return Err(KernelProblem::Machine(header.machine.get()));
    }
    if header.kind.get() != elf::KIND_EXECUTABLE {
        return Err(KernelProblem::Kind(header.kind.get()));
    }
    Ok(header)
}

fn program_headers(
    source: &mut (impl Read + Seek),
    file_size: u64,
    header: &FileHeader,
) -> Result<Vec<ProgramHeader>, KernelProblem> {
    let (count, size) = (header.program_header_count.get(), header.program_header_size.get());
    if !(1..=MAX_PROGRAM_HEADERS).contains(&count) {
        return Err(KernelProblem::ProgramHeaderCount(count));
    }
    if usize::from(size) != size_of::<ProgramHeader>() {
        return Err(KernelProblem::ProgramHeaderSize(size));
    }
    let mut headers = vec![ProgramHeader::new_zeroed(); usize::from(count)];
    let offset = header.program_headers.get();
    check_in_file("table of program headers", offset, u64::from(count) * u64::from(size), file_size)?;
    read_at(source, offset, headers.as_mut_bytes())?;
    Ok(headers)
}

fn segment(header: &ProgramHeader, file_size: u64) -> Result<Segment, KernelProblem> {
    let segment = Segment {
        address: header.physical_address.get(),
        memory_size: header.memory_size.get(),
        file_offset: header.offset.get(),
        file_size: header.file_size.get(),
    };
    let Segment { address, memory_size, .. } = segment;
    if memory_size < segment.file_size || address.checked_add(memory_size).is_none() {
        return Err(KernelProblem::SegmentSize { address, file_size: segment.file_size, memory_size });
    }
    if address < layout::HIGH_MEMORY.0 {
        return Err(KernelProblem::TooLow(address));
    }
    check_in_file("segment", segment.file_offset, segment.file_size, file_size)?;
    Ok(segment)
}

fn pvh_entry(
    source: &mut (impl Read + Seek),
    header: &ProgramHeader,
    file_size: u64,
) -> Result<Option<u64>, KernelProblem> {
    let (offset, size) = (header.offset.get(), header.file_size.get());
    if size > MAX_NOTES_SIZE {
        return Err(KernelProblem::NotesSize(size));
    }
    check_in_file("ELF notes", offset, size, file_size)?;
    let mut bytes = vec![0; size as usize];
    read_at(source, offset, &mut bytes)?;
    notes::pvh_entry(&bytes).map_err(|descriptor| KernelProblem::PvhNoteSize(descriptor.size))
}

/// `segments` are sorted by address.
fn check_disjoint(segments: &[Segment]) -> Result<(), KernelProblem> {
    if segments.is_empty() {
        return Err(KernelProblem::NoSegments);
    }
    match segments.windows(2).find(|pair| pair[0].end() > pair[1].address) {
        Some(pair) => Err(KernelProblem::Overlap(pair[1].address)),
        None => Ok(()),
    }
}

fn check_in_file(what: &'static str, offset: u64, size: u64, file_size: u64) -> Result<(), KernelProblem> {
    let end = offset.saturating_add(size);
    if end > file_size { Err(KernelProblem::Truncated { what, end, file_size }) } else { Ok(()) }
}

fn read_at(source: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<(), KernelProblem> {
    source.seek(SeekFrom::Start(offset)).and_then(|_| source.read_exact(bytes)).map_err(KernelProblem::Read)
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
