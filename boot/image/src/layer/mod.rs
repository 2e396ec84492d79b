// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A layer as a stream: one thread reads, hashes and decompresses its file. The thread that converts it
//! receives the uncompressed bytes over a short channel, and hashes those.
//!
//! | thread | does |
//! |---|---|
//! | `layer` | `decode::run`: file, digest of the file, decompression, limits |
//! | the caller's | `stream::LayerStream`: diff id, then the reader of the stream |

mod decode;
mod stream;

pub(crate) use decode::Totals;
pub(crate) use stream::{LayerStream, with_layer};

use crate::budget::OverBudget;
use crate::source::SourceError;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot read {name}")]
    Read { name: String, source: io::Error },
    #[error("{name} has digest {actual}: it is damaged or was changed")]
    Digest { name: String, actual: String },
    #[error("{name} unpacks to diff id {actual}, and the configuration says {expected}")]
    DiffId { name: String, actual: String, expected: String },
    #[error("{name}: unknown compression{}", .compression.map(|it| format!(" ({it} is not supported)")).unwrap_or_default())]
    Compression {
        name: String,
        /// Known by its magic number, but not supported.
        compression: Option<&'static str>,
    },
    #[error("{name}: cannot decompress ({compression}): {detail}")]
    Decompress { name: String, compression: &'static str, detail: String },
    #[error(transparent)]
    Memory(#[from] OverBudget),
    #[error("{name} unpacks to more than {} GiB in all layers", crate::limits::MAX_UNCOMPRESSED_BYTES >> 30)]
    TooLarge { name: String },
    #[error("{name}: the layers unpack to more than {} times their size", crate::limits::MAX_RATIO)]
    Ratio { name: String },
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
