// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel and the dynamic linker load with a program: the interpreter of a script or of an ELF file, and the libraries that an
//! ELF file names. The file is the image's and may be anything: what is not understood loads nothing.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;

/// The kernel looks for an interpreter line in these first bytes.
const HEAD_BUF_SIZE: usize = 256;
const ELF_64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
const SEGMENT_SIZE: usize = 56;
const MAX_SEGMENTS: usize = 128;
const MAX_PATH_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 256;
const MAX_DYNAMIC_BYTES: usize = 64 << 10;
const MAX_LIBRARIES: usize = 64;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Where the dynamic linkers of glibc and musl look for a library without being told.
pub const LIBRARY_DIRECTORIES: [&str; 7] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The path of the program that runs it.
    pub interpreter: Option<String>,
    /// Names of files in one of [`LIBRARY_DIRECTORIES`], or paths.
    pub libraries: Vec<String>,
}

/// Reads what a program loads from its file, of which `read` returns so many bytes at an offset, or less at its end.
pub fn loaded(mut read: impl FnMut(u64, usize) -> Vec<u8>) -> Loaded {
    let head = read(0, HEAD_BUF_SIZE);
    match head.strip_prefix(b"#!") {
        Some(line) => Loaded { interpreter: interpreter(line), libraries: Vec::new() },
        None => of_elf(&head, &mut read).unwrap_or_default(),
    }
}

/// The first word of an interpreter line.
fn interpreter(line: &[u8]) -> Option<String> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| [b' ', b'\t', b'\0'].contains(byte)).filter(|word| !word.is_empty());
    words.next().and_then(text)
}

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, offset) = (number::<4>(bytes, 0)?, number::<8>(bytes, 8)?);
        Some(Self { kind, offset, address: number::<8>(bytes, 16)?, size: number::<8>(bytes, 32)? })
    }

    fn read(&self, max: usize, read: &mut impl FnMut(u64, usize) -> Vec<u8>) -> Vec<u8> {
        read(self.offset, usize::try_from(self.size).unwrap_or(max).min(max))
    }

    /// Where the file has what is at `address` in memory.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let within = address.checked_sub(self.address).filter(|within| *within < self.size)?;
        self.offset.checked_add(within)
    }
}

fn of_elf(head: &[u8], read: &mut impl FnMut(u64, usize) -> Vec<u8>) -> Option<Loaded> {
    if !head.starts_with(ELF_64_LITTLE_ENDIAN) || number::<2>(head, 54)? != SEGMENT_SIZE as u64 {
        return None;
    }
    let count = usize::try_from(number::<2>(head, 56)?).ok()?.min(MAX_SEGMENTS);
    let table = read(number::<8>(head, 32)?, count * SEGMENT_SIZE);
    let segments: Vec<_> = table.chunks_exact(SEGMENT_SIZE).filter_map(Segment::parse).collect();
    let find = |kind| segments.iter().find(|segment| segment.kind == kind);
    let interpreter = find(PT_INTERP).and_then(|segment| until_nul(&segment.read(MAX_PATH_BYTES, read)));
    let dynamic = find(PT_DYNAMIC).map(|segment| segment.read(MAX_DYNAMIC_BYTES, read)).unwrap_or_default();
    let entries = dynamic.chunks_exact(16).map_while(|entry| {
        let tag = number::<8>(entry, 0).filter(|tag| *tag != DT_NULL)?;
        Some((tag, number::<8>(entry, 8)?))
    });
    let values = |wanted| entries.clone().filter(move |(tag, _)| *tag == wanted).map(|(_, value)| value);
    let mut loads = segments.iter().filter(|segment| segment.kind == PT_LOAD);
    let strings = values(DT_STRTAB).next().and_then(|address| loads.find_map(|segment| segment.offset_of(address)));
    let mut name = |at| until_nul(&read(strings?.checked_add(at)?, MAX_NAME_BYTES));
    let libraries = values(DT_NEEDED).take(MAX_LIBRARIES).filter_map(&mut name).collect();
    Some(Loaded { interpreter, libraries })
}

fn until_nul(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    text(&bytes[..end])
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The number in the `N` bytes at `at`, the lowest first.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<N>()?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn of_bytes(bytes: &[u8]) -> Loaded {
        loaded(|offset, length| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            bytes[start..bytes.len().min(start.saturating_add(length))].to_vec()
        })
    }

    fn segment(kind: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT_SIZE];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        for (at, value) in [(8, offset), (16, address), (32, size)] {
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        bytes
    }

    /// A program with an interpreter and two libraries, whose strings are loaded elsewhere than they are in the file.
    fn elf() -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        file[..6].copy_from_slice(ELF_64_LITTLE_ENDIAN);
        file[32] = 64;
        file[54] = SEGMENT_SIZE as u8;
        file[56] = 3;
        let segments =
            [segment(3, 0x400, 0x400, 32), segment(1, 0, 0x40_0000, 0x1000), segment(2, 0x500, 0x40_0500, 80)];
        file[64..64 + 3 * SEGMENT_SIZE].copy_from_slice(&segments.concat());
        file[0x400..0x40a].copy_from_slice(b"/lib/ld.so");
        let entries: [(u64, u64); 5] = [(1, 1), (1, 8), (5, 0x40_0600), (0, 0), (1, 1)];
        let entries: Vec<_> =
            entries.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()]).collect();
        file[0x500..0x550].copy_from_slice(&entries.concat());
        file[0x601..0x60e].copy_from_slice(b"libz.1\0libc.6");
        file
    }

    #[test]
    fn elf_file_names_interpreter_and_libraries() {
        let Loaded { interpreter, libraries } = of_bytes(&elf());
        assert_eq!(interpreter.unwrap(), "/lib/ld.so");
        assert_eq!(libraries, ["libz.1", "libc.6"]);
    }

    #[test]
    fn script_names_its_interpreter() {
        let interpreter = |text: &str| of_bytes(text.as_bytes()).interpreter;
        assert_eq!(interpreter("#! /bin/sh -e\nexit").unwrap(), "/bin/sh");
        assert_eq!(interpreter("#!/bin/sh").unwrap(), "/bin/sh");
        assert_eq!(interpreter("#!\n/bin/sh"), None);
    }

    #[test]
    fn another_file_loads_nothing() {
        for file in [&b""[..], b"#", b"\x7fELF", b"\x7fELF\x01\x01", b"text"] {
            assert_eq!(of_bytes(file), Loaded::default());
        }
        let mut other_size = elf();
        other_size[54] = 32;
        assert_eq!(of_bytes(&other_size), Loaded::default());
    }

    proptest! {
        #[test]
        fn damaged_file_is_bounded_and_does_not_panic(at in 0_usize..0x620, byte: u8, length in 0_usize..0x1000) {
            let mut file = elf();
            file[at] = byte;
            prop_assert!(of_bytes(&file).libraries.len() <= MAX_LIBRARIES);
            file.truncate(length);
            of_bytes(&file);
        }
    }
}
