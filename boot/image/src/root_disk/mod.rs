// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root disk: its formats, and the code that their writers share.

mod chunks;
mod files;
mod output;

pub(crate) use chunks::Chunks;
pub use files::{RootDisk, RootDiskPart};
pub(crate) use output::{Output, write as write_output};

use crate::digest::Digest;
use crate::limits;
use std::io;

/// The file system of a root disk. Coracle's own kernel has EROFS; squashfs is for other kernels
/// that lack it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RootFormat {
    /// Linux 5.4 and later, `CONFIG_EROFS_FS`.
    #[default]
    Erofs,
    /// `CONFIG_SQUASHFS` with `CONFIG_SQUASHFS_ZLIB`, which is on by default.
    Squashfs,
}

impl RootFormat {
    #[must_use]
    pub fn file_system(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
        }
    }
}

/// Identity of the volume, in formats that store one.
pub(crate) struct Volume {
    pub uuid: [u8; 16],
    pub name: [u8; 16],
}

pub(crate) struct Written {
    /// Of the file that was written.
    pub digest: Digest,
    /// Size of the file.
    pub bytes: u64,
    /// The layers whose data follows the file, by number.
    pub layers: Vec<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum RootDiskError {
    #[error("cannot write the root disk")]
    Write(#[source] io::Error),
    #[error("cannot read a layer in the image cache")]
    Layer(#[source] io::Error),
    /// 128 GiB, or a ratio to the size of the layers.
    #[error("the root disk would be larger than {} MiB, with its maps of sparse files", .limit >> 20)]
    TooLarge { limit: u64 },
    /// Squashfs has a 16-bit index of owners.
    #[error("the image's files have more than {} owners and groups, the maximum of squashfs", u16::MAX)]
    Owners,
    /// Squashfs lists every block of a file, including holes.
    #[error("the image has sparse files of more than {} GiB in total, the maximum for squashfs", limits::MAX_SQUASHFS_SPARSE_BYTES >> 30)]
    Sparse,
}

impl RootDiskError {
    /// Whether the cause is the host rather than the image.
    pub(crate) fn is_host(&self) -> bool {
        match self {
            Self::Write(_) | Self::Layer(_) => true,
            Self::TooLarge { .. } | Self::Owners | Self::Sparse => false,
        }
    }
}

/// An I/O error of the output. Those of layers are converted where they occur.
impl From<io::Error> for RootDiskError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}
