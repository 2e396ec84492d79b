// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as docker writes them (`512m`, `2g`, plain bytes), and the options that are sizes.

use super::text_form::text_form;
use boot::layout::{MemorySizeError, check_memory_size};
use kvm::KvmKind;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("expected a whole number of bytes, or one with the suffix k, m, g or t")]
    Form,
    #[error("larger than 2⁶⁴ bytes")]
    Overflow,
    #[error(transparent)]
    Memory(#[from] MemorySizeError),
    #[error("expected 16m to 16t in multiples of 4 KiB, or `tmpfs` or `none`")]
    Scratch,
    #[error("expected 16m to 16t in multiples of 4 KiB")]
    Disk,
    #[error("expected 64k to 1t")]
    Log,
}

/// Suffixes are powers of 1024, in either case, with or without `b` or `ib` after them.
pub(super) fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Form);
    }
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(SizeError::Form),
    };
    let number: u64 = number.parse().map_err(|_| SizeError::Overflow)?;
    number.checked_mul(1 << shift).ok_or(SizeError::Overflow)
}

/// Writes `bytes` with the largest suffix that is exact.
pub(super) fn write_bytes(bytes: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (shift, suffix) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return write!(f, "{}{suffix}", bytes >> shift);
        }
    }
    write!(f, "{bytes}")
}

/// A size of guest memory that a machine can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemorySize(u64);

impl MemorySize {
    #[must_use]
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }

    /// Without `--memory`. docker gives a container the host's memory; with 128 MiB java, node, a compiler or `initdb` end with
    /// `oom`. A page that the guest never touches costs the host nothing, but the guest's kernel sets up 64 bytes for each page
    /// (8 MiB for 512 MiB) before the workload runs. On a processor that is a few milliseconds. Where guest kernel mode is
    /// emulated, at 4.4 million instructions a second, 512 MiB are 6.7 million more than 128 MiB, 2.5 s of a start of 8 s, and
    /// 256 MiB are 2.2 million, 1 s.
    #[must_use]
    pub(crate) fn default_for(kvm: KvmKind) -> Self {
        match kvm {
            KvmKind::Native => Self(512 << 20),
            KvmKind::Software => Self(256 << 20),
        }
    }
}

impl FromStr for MemorySize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bytes = parse_bytes(text)?;
        check_memory_size(bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(self.0, f)
    }
}

/// How much of a stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSize(u64);

impl LogSize {
    #[must_use]
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for LogSize {
    fn default() -> Self {
        Self(16 << 20)
    }
}

impl FromStr for LogSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        match parse_bytes(text)? {
            bytes if (64 << 10..=1 << 40).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(SizeError::Log),
        }
    }
}

impl fmt::Display for LogSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(self.0, f)
    }
}

/// A size of a file system that coracle makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskSize(u64);

impl DiskSize {
    #[must_use]
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for DiskSize {
    fn default() -> Self {
        Self(8 << 30)
    }
}

impl FromStr for DiskSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        match parse_bytes(text)? {
            bytes if (16 << 20..=16 << 40).contains(&bytes) && bytes.is_multiple_of(4096) => Ok(Self(bytes)),
            _ => Err(SizeError::Disk),
        }
    }
}

impl fmt::Display for DiskSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(self.0, f)
    }
}

/// A size of a file, which exists or is to be made larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSize(u64);

impl FileSize {
    #[must_use]
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for FileSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        parse_bytes(text).map(Self)
    }
}

/// Where writes to the root file system go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scratch {
    /// To a sparse disk of this size in bytes.
    Disk(u64),
    /// To the guest's memory.
    Tmpfs,
    /// Nowhere: they fail.
    None,
}

impl Scratch {
    /// Without `--scratch`. On a read-only root only missing mount points are made, for which a tmpfs is enough.
    #[must_use]
    pub(crate) fn default_for(read_only: bool) -> Self {
        if read_only { Self::Tmpfs } else { Self::Disk(DiskSize::default().bytes()) }
    }
}

impl FromStr for Scratch {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        match text {
            "tmpfs" => Ok(Self::Tmpfs),
            "none" => Ok(Self::None),
            _ => match text.parse::<DiskSize>() {
                Err(SizeError::Disk) => Err(SizeError::Scratch),
                size => size.map(|size| Self::Disk(size.bytes())),
            },
        }
    }
}

impl fmt::Display for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(bytes) => write_bytes(*bytes, f),
            Self::Tmpfs => f.write_str("tmpfs"),
            Self::None => f.write_str("none"),
        }
    }
}

text_form!(LogSize, MemorySize, Scratch);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn from_str_reads_dockers_suffixes() {
        for (text, bytes) in [("64m", 64 << 20), ("128MB", 128 << 20), ("2g", 2 << 30), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse(), Ok(MemorySize(bytes)), "{text}");
        }
        assert_eq!("134217728".parse(), Ok(MemorySize(128 << 20)));
        assert_eq!("134217728b".parse(), Ok(MemorySize(128 << 20)));
    }

    #[test]
    fn from_str_rejects_invalid_sizes() {
        for text in ["", "m", "-5m", "1.5g", "128q", "16eib", " 128m", "128m ", "0x1000", "+128m"] {
            assert_eq!(text.parse::<MemorySize>(), Err(SizeError::Form), "{text}");
        }
        for text in ["99999999999999999999", "99999999t"] {
            assert_eq!(text.parse::<MemorySize>(), Err(SizeError::Overflow), "{text}");
        }
        for text in ["0", "1m", "63m", "134217729", "18446744073709551615", "8192g"] {
            assert!(matches!(text.parse::<MemorySize>(), Err(SizeError::Memory(_))), "{text}");
        }
    }

    #[test]
    fn default_memory_is_larger_where_kvm_is_native() {
        assert_eq!(MemorySize::default_for(KvmKind::Native).to_string(), "512m");
        assert_eq!(MemorySize::default_for(KvmKind::Software).to_string(), "256m");
    }

    #[test]
    fn log_size_has_bounds() {
        assert_eq!("64k".parse(), Ok(LogSize(64 << 10)));
        assert_eq!("-1".parse::<LogSize>(), Err(SizeError::Form));
        for text in ["0", "63k", "2t"] {
            assert_eq!(text.parse::<LogSize>(), Err(SizeError::Log), "{text}");
        }
    }

    #[test]
    fn scratch_is_a_size_or_a_keyword() {
        assert_eq!("tmpfs".parse(), Ok(Scratch::Tmpfs));
        assert_eq!("none".parse(), Ok(Scratch::None));
        assert_eq!("16m".parse(), Ok(Scratch::Disk(16 << 20)));
        assert_eq!("some".parse::<Scratch>(), Err(SizeError::Form));
        for text in ["0", "1m", "16777217", "17t"] {
            assert_eq!(text.parse::<Scratch>(), Err(SizeError::Scratch), "{text}");
        }
    }

    proptest! {
        #[test]
        fn scratch_reads_what_display_writes(pages in (16_u64 << 20 >> 12..=16 << 40 >> 12)) {
            let scratch = Scratch::Disk(pages << 12);
            prop_assert_eq!(scratch.to_string().parse(), Ok(scratch));
        }

        #[test]
        fn from_str_never_panics(text in ".*") {
            let _ = text.parse::<MemorySize>();
        }
    }
}
