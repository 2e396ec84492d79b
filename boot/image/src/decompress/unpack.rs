// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decompresses an archive as a whole, as `docker save | gzip` writes it, to a file without a name:
//! members of a compressed archive cannot be read by seeking.

use super::compression::Compression;
use super::hashed_file::HashedFile;
use crate::limits;
use crate::spool::Spool;
use crate::tar::FileSection;
use std::fs::File;
use std::io::{self, BufRead as _, Read as _};
use std::path::Path;

const READ_BUF_SIZE: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("unknown compression{}", .0.map(|it| format!(" ({it} is not supported)")).unwrap_or_default())]
    Compression(Option<&'static str>),
    #[error("cannot decompress")]
    Decompress(#[source] io::Error),
    #[error("unpacks to more than {} GiB", limits::MAX_UNCOMPRESSED_BYTES >> 30)]
    TooLarge,
    #[error("unpacks to more than {} times its size", limits::MAX_RATIO)]
    Ratio,
    #[error("cannot write a temporary file in the image cache")]
    Write(#[source] io::Error),
}

/// Returns the uncompressed bytes of `section`, in a file without a name on the file system of
/// `directory`.
pub(crate) fn unpack(section: FileSection, directory: &Path) -> Result<File, UnpackError> {
    let mut reader = HashedFile::new(section, None);
    let compression = Compression::detect(reader.fill_buf().map_err(UnpackError::Decompress)?);
    let mut decoder = compression.map_err(UnpackError::Compression)?.decoder(reader);
    std::fs::create_dir_all(directory).map_err(UnpackError::Write)?;
    let mut spool = Spool::create(directory).map_err(UnpackError::Write)?;
    let mut buffer = vec![0; READ_BUF_SIZE];
    loop {
        let count = match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Decompress(error)),
        };
        spool.append(&buffer[..count]).map_err(UnpackError::Write)?;
        if spool.length() > limits::MAX_UNCOMPRESSED_BYTES {
            return Err(UnpackError::TooLarge);
        }
        if spool.length() > limits::RATIO_FREE_BYTES && spool.length() / limits::MAX_RATIO > decoder.consumed() {
            return Err(UnpackError::Ratio);
        }
    }
    spool.into_file().map_err(UnpackError::Write)
}
