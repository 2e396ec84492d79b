// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root disk: its formats, and what writing them has in common.

mod chunks;
mod output;

pub(crate) use chunks::Chunks;
pub(crate) use output::{Output, write as write_output};

use crate::digest::Digest;
use crate::limits;
use crate::spool::SpoolFile;
use std::io;

/// The file system of a root disk made from an image. EROFS is what coracle's own kernel has; squashfs is for kernels of
/// others that lack it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RootFormat {
    /// Linux 5.4 and later, `CONFIG_EROFS_FS`.
    #[default]
    Erofs,
    /// `CONFIG_SQUASHFS` with `CONFIG_SQUASHFS_ZLIB`, which is on by default.
    Squashfs,
}

impl RootFormat {
    /// The kernel's name of it.
    #[must_use]
    pub fn file_system(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
        }
    }
}

/// What names the volume, where the format has a place for it.
pub(crate) struct Volume {
    pub uuid: [u8; 16],
    pub name: [u8; 16],
}

/// A root disk as it was written.
pub(crate) struct Written {
    pub digest: Digest,
    pub bytes: u64,
}

/// The root disk cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RootDiskError {
    /// The host cannot write it.
    #[error("cannot write the root disk")]
    Write(#[source] io::Error),
    /// The host cannot read the data back.
    #[error("cannot read the temporary file for the image's data")]
    Spool(#[source] io::Error),
    /// More than the limit.
    #[error("the root disk would be larger than {} GiB", limits::UNCOMPRESSED_BYTES >> 30)]
    TooLarge,
    /// Squashfs keeps them in a table with a 16-bit index.
    #[error("the image's files have more than {} owners and groups, which squashfs cannot hold", u16::MAX)]
    Owners,
    /// Squashfs lists every block of a file, holes too.
    #[error("the image has sparse files of more than {} GiB in all, which squashfs cannot hold", limits::SQUASHFS_SPARSE_BYTES >> 30)]
    Sparse,
}

impl RootDiskError {
    /// Whether the host is at fault rather than the image.
    pub(crate) fn is_host(&self) -> bool {
        match self {
            Self::Write(_) | Self::Spool(_) => true,
            Self::TooLarge | Self::Owners | Self::Sparse => false,
        }
    }
}

/// Failures of the output and of the spool are told apart by who met them.
impl From<io::Error> for RootDiskError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl SpoolFile {
    /// Appends `length` bytes of the spool from `start` on to `output`.
    pub(crate) fn copy(&self, start: u64, length: u64, output: &mut Output<'_>) -> Result<(), RootDiskError> {
        output.take_from(length, |into, offset| self.read(into, start + offset).map_err(RootDiskError::Spool))
    }
}
