// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plain and compressed files: reading with a digest on the way, decompressing as a stream, and
//! unpacking an archive to a file. The magic number selects the format.

mod compression;
mod hashed_file;
mod unpack;

pub(crate) use compression::Compression;
pub(crate) use hashed_file::HashedFile;
pub use unpack::UnpackError;
pub(crate) use unpack::unpack;

/// Detects a compression by its magic number.
pub(crate) fn known_compression(start: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 5] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (b"BZh", "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    ];
    magics.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}
