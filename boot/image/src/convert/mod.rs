// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers in, root disk out: the layers that the cache lacks are converted, several at a time; then the entries of all layers are
//! merged into a tree in memory, and that is written as an image of the requested format.

mod ahead;
mod layers;

use crate::budget::Budget;
use crate::cache::{CacheError, LayerCache};
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::LayerError;
use crate::layer_files::{LayerFiles, WriteLayerError};
use crate::limits;
use crate::progress::Progress;
use crate::root_disk::{RootDiskError, RootFormat, Volume, Written};
use crate::tree::{Merge, MergeError, Tree};
use crate::{erofs, squashfs};
pub use ahead::LayersAhead;
use layers::Layers;
use std::fs::File;
use std::io;
use std::sync::Arc;

const VOLUME_NAME: [u8; 16] = *b"coracle-image\0\0\0";

pub(crate) struct Converted {
    pub written: Written,
    pub layers: Layers,
}

#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("layer {number} of {count} ({name})")]
    Content {
        /// From 1.
        number: usize,
        count: usize,
        name: String,
        source: WriteLayerError,
    },
    #[error("layer {number} of {count} ({name})")]
    Merge { number: usize, count: usize, name: String, source: MergeError },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    RootDisk(#[from] RootDiskError),
}

impl ConvertError {
    pub(crate) fn is_host(&self) -> bool {
        match self {
            Self::Layer(_) => false,
            Self::RootDisk(error) => error.is_host(),
            Self::Content { source, .. } => source.is_host(),
            Self::Merge { source, .. } => matches!(source, MergeError::List(_)),
            Self::Thread(_) | Self::Cache(_) => true,
        }
    }

    fn is_memory(&self) -> bool {
        matches!(self, Self::Layer(LayerError::Memory(_)) | Self::Content { source: WriteLayerError::Memory(_), .. })
    }
}

/// Writes the root disk of `image` to the empty file `disk`.
pub(crate) fn convert(
    image: &Image,
    chain_id: &Digest,
    format: RootFormat,
    cache: &LayerCache,
    budget: &Arc<Budget>,
    disk: &File,
    report: &dyn Fn(Progress),
) -> Result<Converted, ConvertError> {
    let mut converted = Vec::new();
    let result = layers::find_or_convert(image, cache, budget, &mut converted, report).and_then(|layers| {
        let written = write_disk(image, chain_id, format, &layers, budget, disk, report)?;
        Ok(Converted { written, layers })
    });
    if result.as_ref().is_err_and(|error| !error.is_host()) {
        // An image that cannot be used leaves nothing.
        converted.iter().for_each(|diff_id| cache.remove(diff_id));
    }
    result
}

fn write_disk(
    image: &Image,
    chain_id: &Digest,
    format: RootFormat,
    layers: &Layers,
    budget: &Arc<Budget>,
    disk: &File,
    report: &dyn Fn(Progress),
) -> Result<Written, ConvertError> {
    let tree = merge(layers, budget).map_err(|(index, source)| {
        let (number, count, name) = (index + 1, image.layers.len(), image.layers[index].name());
        ConvertError::Merge { number, count, name, source }
    })?;
    let volume = Volume { uuid: chain_id.first_bytes(), name: VOLUME_NAME };
    let writing = |bytes, total| report(Progress::Writing { bytes, total });
    let max_bytes = image.file_bytes().unwrap_or(0).saturating_mul(limits::MAX_RATIO);
    let max_bytes = max_bytes.clamp(limits::RATIO_FREE_BYTES, limits::MAX_UNCOMPRESSED_BYTES);
    Ok(write_root_disk(format, &tree, &layers.files, &volume, disk, max_bytes, &writing)?)
}

/// Merges the entries of all layers. An error comes with the number of its layer, from 0.
pub(crate) fn merge(layers: &Layers, budget: &Arc<Budget>) -> Result<Tree, (usize, MergeError)> {
    let mut merge = Merge::new(budget.clone());
    for (index, number) in layers.order.iter().enumerate() {
        merge.layer(*number, layers.files[*number as usize].entries()).map_err(|error| (index, error))?;
    }
    Ok(merge.finish())
}

/// Writes `tree`, whose data is in `layers`, to the empty `file`; the disk may have at most `max_bytes`. `progress` gets the bytes
/// written and the size.
pub(crate) fn write_root_disk(
    format: RootFormat,
    tree: &Tree,
    layers: &[LayerFiles],
    volume: &Volume,
    file: &File,
    max_bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<Written, RootDiskError> {
    match format {
        RootFormat::Erofs => erofs::write(tree, layers, volume, file, max_bytes, progress),
        RootFormat::Squashfs => squashfs::write(tree, layers, file, max_bytes, progress),
    }
}
