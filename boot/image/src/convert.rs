// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers in, root disk out: the layers are merged into a tree in memory and a spool of file data,
//! which are then written as an image of the requested format.

use crate::budget::Budget;
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::{LayerError, with_layers};
use crate::limits;
use crate::progress::Progress;
use crate::root_disk::{RootDiskError, RootFormat, Volume, Written};
use crate::spool::{Spool, SpoolFile};
use crate::tree::{Merge, MergeError, Tree};
use crate::{erofs, squashfs};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes between two progress reports.
const REPORT_INTERVAL: u64 = 4 << 20;
const VOLUME_NAME: [u8; 16] = *b"coracle-image\0\0\0";

pub(crate) struct Converted {
    pub root_disk_digest: Digest,
    pub root_disk_bytes: u64,
    pub layer_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("layer {number} of {count} ({name})")]
    Merge {
        /// From 1.
        number: usize,
        count: usize,
        name: String,
        source: MergeError,
    },
    #[error("cannot create a temporary file for the image's data")]
    Spool(#[source] io::Error),
    #[error(transparent)]
    RootDisk(#[from] RootDiskError),
}

impl ConvertError {
    pub(crate) fn is_host(&self) -> bool {
        match self {
            Self::Layer(_) => false,
            Self::RootDisk(error) => error.is_host(),
            Self::Merge { source, .. } => matches!(source, MergeError::Spool(_)),
            Self::Spool(_) => true,
        }
    }
}

/// Writes the root disk of `image` to the empty file `disk`. The temporary file is created in
/// `directory`.
pub(crate) fn convert(
    image: &Image,
    format: RootFormat,
    directory: &Path,
    budget: &Arc<Budget>,
    disk: &mut File,
    report: &dyn Fn(Progress),
) -> Result<Converted, ConvertError> {
    let mut merge = Merge::new(Spool::create(directory).map_err(ConvertError::Spool)?, budget.clone());
    let count = image.layers.len();
    let total = image.file_bytes();
    let (mut layer_bytes, mut file_bytes) = (0, 0);
    with_layers(image, budget, |index, stream| {
        let number = index + 1;
        let report = |bytes| report(Progress::Layers { number, count, bytes, total });
        report(file_bytes);
        let mut reported = 0;
        let merged = merge.layer(&mut *stream, |stream| {
            if stream.bytes() - reported >= REPORT_INTERVAL {
                report(file_bytes + stream.file_bytes());
                reported = stream.bytes();
            }
        });
        if merged.is_ok() {
            layer_bytes += stream.drain();
            file_bytes += stream.file_bytes();
        }
        merged.map_err(|source| ConvertError::Merge { number, count, name: image.layers[index].name(), source })
    })?;
    let (tree, spool) = merge.finish();
    let spool = spool.into_file().map_err(RootDiskError::Spool)?;
    let volume = Volume { uuid: image.digest.first_bytes(), name: VOLUME_NAME };
    let writing = |bytes, total| report(Progress::Writing { bytes, total });
    let max_bytes = file_bytes.saturating_mul(limits::MAX_RATIO);
    let max_bytes = max_bytes.clamp(limits::RATIO_FREE_BYTES, limits::MAX_UNCOMPRESSED_BYTES);
    let written = write_root_disk(format, &tree, &spool, &volume, disk, max_bytes, &writing)?;
    Ok(Converted { root_disk_digest: written.digest, root_disk_bytes: written.bytes, layer_bytes })
}

/// Writes `tree`, whose data is in `spool`, to the empty `file`, at most `max_bytes`. `progress` gets
/// the bytes written and the size.
pub(crate) fn write_root_disk(
    format: RootFormat,
    tree: &Tree,
    spool: &SpoolFile,
    volume: &Volume,
    file: &File,
    max_bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<Written, RootDiskError> {
    match format {
        RootFormat::Erofs => erofs::write(tree, spool, volume, file, max_bytes, progress),
        RootFormat::Squashfs => squashfs::write(tree, spool, file, max_bytes, progress),
    }
}
