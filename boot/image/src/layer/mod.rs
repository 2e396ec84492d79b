// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers as streams: one thread reads, hashes and decompresses the files of all layers in order; the thread that
//! merges them takes the uncompressed bytes over a short channel and hashes those.
//!
//! | thread | does |
//! |---|---|
//! | `layers` | `decode::run`: file, digest of the file, decompression, limits |
//! | the caller's | `stream::LayerStream`: diff id, then whatever reads the stream |

mod blob;
mod compression;
mod decode;
mod stream;

pub(crate) use stream::with_layers;

use crate::source::SourceError;
use std::io;

/// A layer's file is not what the image says, or cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The file is missing or has the wrong size.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The host cannot read it.
    #[error("cannot read {name}")]
    Read { name: String, source: io::Error },
    /// The bytes are not those that the manifest vouches for.
    #[error("{name} has digest {actual}: it is damaged or was changed")]
    Digest {
        name: String,
        /// The digest of what is there.
        actual: String,
    },
    /// The uncompressed bytes are not those that the configuration vouches for.
    #[error("{name} unpacks to diff id {actual}, and the configuration says {expected}")]
    DiffId {
        name: String,
        /// The digest of what came out.
        actual: String,
        expected: String,
    },
    /// Nothing that layers are made of.
    #[error("{name}: unknown compression{}", .compression.map(|it| format!(" ({it} is not supported)")).unwrap_or_default())]
    Compression {
        name: String,
        /// Known by its magic number, all the same not supported.
        compression: Option<&'static str>,
    },
    /// The compressed stream is broken or ends early.
    #[error("{name}: cannot decompress ({compression}): {detail}")]
    Decompress {
        name: String,
        /// gzip or zstd.
        compression: &'static str,
        /// What the decompressor says.
        detail: String,
    },
    /// More than any image needs.
    #[error("{name} unpacks to more than {} GiB in all layers", crate::limits::UNCOMPRESSED_BYTES >> 30)]
    TooLarge { name: String },
    /// A decompression bomb.
    #[error("{name} unpacks to more than {} times its size", crate::limits::RATIO)]
    Ratio { name: String },
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
