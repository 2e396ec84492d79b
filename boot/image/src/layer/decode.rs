// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that reads and decompresses. It sends the uncompressed bytes and, after each layer,
//! whether the file matches the manifest. A wrong digest is reported instead of the broken stream
//! that it causes.

use super::LayerError;
use super::blob::BlobReader;
use super::compression::Compression;
use crate::image::{Image, Layer};
use crate::limits;
use std::io::{self, BufRead as _, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

/// Uncompressed bytes per message.
pub(super) const CHUNK_SIZE: usize = 256 << 10;

pub(super) enum Message {
    Chunk {
        bytes: Vec<u8>,
        /// Bytes of the layer's file up to here.
        consumed: u64,
    },
    /// A layer's file has been read to its end, or is invalid.
    End(Result<Compression, LayerError>),
}

/// Runs until every layer is sent, one fails, or the receiver is gone. The receiver sets `abandon`
/// when it does not need the rest of the current layer: the file is then only hashed. `spare`
/// returns buffers.
pub(super) fn run(image: &Image, messages: &SyncSender<Message>, spare: &Receiver<Vec<u8>>, abandon: &AtomicBool) {
    let mut total = 0;
    for layer in &image.layers {
        let result = decode(image, layer, messages, spare, abandon, &mut total);
        let failed = result.is_err();
        if messages.send(Message::End(result)).is_err() || failed || abandon.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn decode(
    image: &Image,
    layer: &Layer,
    messages: &SyncSender<Message>,
    spare: &Receiver<Vec<u8>>,
    abandon: &AtomicBool,
    total: &mut u64,
) -> Result<Compression, LayerError> {
    let name = layer.name();
    let read = |source: io::Error| LayerError::Read { name: name.clone(), source };
    let mut blob = BlobReader::new(&image.open_layer(layer)?, layer.digest());
    let compression = match Compression::detect(blob.fill_buf().map_err(read)?) {
        Ok(compression) => compression,
        Err(compression) => {
            check_digest(blob, layer, &name)?;
            return Err(LayerError::Compression { name, compression });
        }
    };
    let mut decoder = compression.decoder(blob);
    let mut layer_bytes = 0u64;
    let outcome = loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_SIZE, 0);
        let mut filled = 0;
        let result = loop {
            match decoder.read(&mut chunk[filled..]) {
                Ok(0) => break Ok(()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        chunk.truncate(filled);
        layer_bytes += filled as u64;
        *total += filled as u64;
        if *total > limits::MAX_UNCOMPRESSED_BYTES {
            break Err(LayerError::TooLarge { name: name.clone() });
        }
        if layer_bytes > limits::RATIO_FREE_BYTES && layer_bytes / limits::MAX_RATIO > decoder.consumed() {
            break Err(LayerError::Ratio { name: name.clone() });
        }
        let consumed = decoder.consumed();
        if filled > 0 && messages.send(Message::Chunk { bytes: chunk, consumed }).is_err() {
            return Ok(compression);
        }
        if abandon.load(Ordering::Relaxed) {
            break Ok(());
        }
        match result {
            Ok(()) if filled < CHUNK_SIZE => break Ok(()),
            Ok(()) => {}
            Err(error) if compression == Compression::None => break Err(read(error)),
            Err(error) => {
                let detail = match error.kind() {
                    io::ErrorKind::UnexpectedEof => "the stream ends early".into(),
                    _ => error.to_string().replace('\n', " "),
                };
                break Err(LayerError::Decompress { name: name.clone(), compression: compression.name(), detail });
            }
        }
    };
    match outcome {
        // Skip the digest: the layer is already rejected.
        Err(error @ (LayerError::TooLarge { .. } | LayerError::Ratio { .. })) => Err(error),
        outcome => {
            check_digest(decoder.into_blob(), layer, &name)?;
            outcome.map(|()| compression)
        }
    }
}

fn check_digest(blob: BlobReader, layer: &Layer, name: &str) -> Result<(), LayerError> {
    let actual = blob.finish().map_err(|source| LayerError::Read { name: name.to_owned(), source })?;
    match (actual, layer.digest()) {
        (Some(actual), Some(expected)) if actual != *expected => {
            Err(LayerError::Digest { name: name.to_owned(), actual: actual.to_string() })
        }
        _ => Ok(()),
    }
}
