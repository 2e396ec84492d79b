// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Unpacks the kernel in a bzImage, and modules. The magic number selects the format. Memory is
//! bounded by the largest window that Linux's own build uses, the result by the caller. Pure but
//! for its reader and writer.

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::{self, BufRead, Read, Write};

/// Window of `zstd -22 --ultra`, with which Linux compresses itself.
const MAX_ZSTD_WINDOW: u64 = 128 << 20;
/// Linux's own build uses a dictionary of 32 MiB.
const MAX_XZ_MEMORY_KIB: u32 = 72 << 10;
const COPY_BUF_SIZE: usize = 128 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Xz,
    Zstd,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The packed bytes are damaged or cannot be read.
    #[error(transparent)]
    Packed(io::Error),
    #[error("cannot store the result")]
    Write(#[source] io::Error),
    #[error("the result is larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
}

/// Formats by their first bytes: the supported ones, and the names of others.
const MAGIC: [(&[u8], Result<Compression, &str>); 9] = [
    (b"\x1f\x8b", Ok(Compression::Gzip)),
    (b"\xfd7zXZ\0", Ok(Compression::Xz)),
    (b"\x28\xb5\x2f\xfd", Ok(Compression::Zstd)),
    (b"BZh", Err("bzip2")),
    (b"\x5d\0\0", Err("lzma")),
    (b"\x02\x21\x4c\x18", Err("lz4")),
    (b"\x04\x22\x4d\x18", Err("lz4")),
    (b"\x89LZO", Err("lzop")),
    (b"\x1f\x9d", Err("compress")),
];

impl Compression {
    /// Recognises the format of a file that starts with `head`; an error is the name of an
    /// unsupported one.
    pub(crate) fn recognise(head: &[u8]) -> Option<Result<Self, &'static str>> {
        MAGIC.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, compression)| compression)
    }

    /// Name of the program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Unpacks the first stream of `packed` into `into`, at most `limit` bytes. Bytes after the
    /// stream are ignored: a bzImage has its unpacked size there.
    pub(crate) fn unpack(self, packed: impl BufRead, limit: u64, into: &mut impl Write) -> Result<(), UnpackError> {
        match self {
            Self::Gzip => copy(&mut GzDecoder::new(packed), limit, into),
            Self::Xz => copy(&mut XzReader::new_mem_limit(packed, false, MAX_XZ_MEMORY_KIB), limit, into),
            Self::Zstd => {
                let mut decoder = StreamingDecoder::new_with_max_window_size(packed, MAX_ZSTD_WINDOW)
                    .map_err(|error| damaged(&error.to_string()))?;
                copy(&mut decoder, limit, into)?;
                verify_checksum(&decoder.into_frame_decoder())
            }
        }
    }
}

/// The decoder computes the checksum, but does not compare it.
fn verify_checksum(decoder: &FrameDecoder) -> Result<(), UnpackError> {
    match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
        (Some(stored), Some(computed)) if stored != computed => Err(damaged("wrong checksum")),
        _ => Ok(()),
    }
}

fn damaged(detail: &str) -> UnpackError {
    UnpackError::Packed(io::Error::new(io::ErrorKind::InvalidData, detail))
}

fn copy(from: &mut impl Read, limit: u64, into: &mut impl Write) -> Result<(), UnpackError> {
    let mut buffer = vec![0; COPY_BUF_SIZE];
    let mut written = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Packed(error)),
        };
        written += length as u64;
        if written > limit {
            return Err(UnpackError::TooLarge(limit));
        }
        into.write_all(&buffer[..length]).map_err(UnpackError::Write)?;
    }
}

#[cfg(test)]
#[path = "compression_tests.rs"]
pub(crate) mod tests;
