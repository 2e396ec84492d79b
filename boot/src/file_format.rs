// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recognises files given in place of an uncompressed x86-64 ELF kernel, so that the message can
//! say how to get one. Pure.

use crate::compression::Compression;
use std::fmt;

/// Bytes from the start of a file that [`FileFormat::recognise`] needs.
pub(crate) const HEAD_SIZE: usize = 0x210;

/// A file format other than ELF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// A compressed x86 kernel with its boot code, as distributions install it.
    BzImage,
    Arm64Image,
    RiscvImage,
    /// An EFI or Windows program.
    PortableExecutable,
    /// Compressed by the program with this name.
    Compressed(&'static str),
    /// A text file with an interpreter.
    Script,
    Tar,
    Unknown,
}

impl FileFormat {
    /// Recognises a file that starts with `head`.
    pub(crate) fn recognise(head: &[u8]) -> Self {
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        // Kernels with an EFI stub are PE files too, so the kernels come first.
        // Documentation/arch/x86/boot.rst, arm64/booting.rst and riscv/boot-image-header.rst of the
        // Linux kernel.
        if at(0x202, b"HdrS") {
            return Self::BzImage;
        }
        if at(0x38, b"ARM\x64") {
            return Self::Arm64Image;
        }
        if at(0x38, b"RSC\x05") {
            return Self::RiscvImage;
        }
        if let Some(compression) = Compression::recognise(head) {
            return Self::Compressed(compression.map_or_else(|name| name, Compression::name));
        }
        let formats: [(usize, &[u8], Self); 3] =
            [(0, b"MZ", Self::PortableExecutable), (0, b"#!", Self::Script), (0x101, b"ustar", Self::Tar)];
        formats.into_iter().find(|(offset, magic, _)| at(*offset, magic)).map_or(Self::Unknown, |(_, _, format)| format)
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BzImage => formatter.write_str("is a bzImage; coracle needs an uncompressed vmlinux here"),
            Self::Arm64Image => formatter.write_str("is an arm64 kernel; coracle needs one for x86-64"),
            Self::RiscvImage => formatter.write_str("is a RISC-V kernel; coracle needs one for x86-64"),
            Self::PortableExecutable => {
                formatter.write_str("is an EFI or Windows program; coracle needs a kernel (vmlinux or bzImage)")
            }
            Self::Compressed(program) => {
                write!(formatter, "is compressed with {program}; if it is a vmlinux, unpack it first")
            }
            Self::Script => formatter.write_str("is a script; coracle needs a kernel (vmlinux or bzImage)"),
            Self::Tar => formatter.write_str("is a tar archive; coracle needs a kernel (vmlinux or bzImage)"),
            Self::Unknown => formatter.write_str("is not an ELF file; coracle needs a kernel (vmlinux or bzImage)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(offset: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn kernel_with_an_efi_stub_is_recognised_as_a_kernel() {
        let mut bzimage = with(0x202, b"HdrS");
        bzimage[..2].copy_from_slice(b"MZ");
        assert_eq!(FileFormat::recognise(&bzimage), FileFormat::BzImage);
        let mut arm64 = with(0x38, b"ARM\x64");
        arm64[..2].copy_from_slice(b"MZ");
        assert_eq!(FileFormat::recognise(&arm64), FileFormat::Arm64Image);
    }

    #[test]
    fn compressed_files_scripts_and_programs_are_recognised() {
        assert_eq!(FileFormat::recognise(&with(0, b"\x1f\x8b\x08")), FileFormat::Compressed("gzip"));
        assert_eq!(FileFormat::recognise(&with(0, b"\x28\xb5\x2f\xfd")), FileFormat::Compressed("zstd"));
        assert_eq!(FileFormat::recognise(b"#!/bin/sh\n"), FileFormat::Script);
        assert_eq!(FileFormat::recognise(b"MZ"), FileFormat::PortableExecutable);
        assert_eq!(FileFormat::recognise(&with(0x101, b"ustar\x0000")), FileFormat::Tar);
        assert_eq!(FileFormat::recognise(b"\x7f"), FileFormat::Unknown);
    }
}
