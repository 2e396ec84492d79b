// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that reads and decompresses. It sends the uncompressed bytes and, at the end,
//! whether the file matches the manifest. A wrong digest is reported instead of the broken stream
//! that it causes.

use super::LayerError;
use crate::budget::Budget;
use crate::decompress::{Compression, HashedFile};
use crate::image::{Image, Layer};
use crate::limits;
use std::io::{self, BufRead as _, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

const READ_BUF_SIZE: usize = 256 << 10;
/// Uncompressed bytes per message.
pub(super) const CHUNK_SIZE: usize = 256 << 10;

pub(super) enum Message {
    Chunk {
        bytes: Vec<u8>,
        /// The layer up to here.
        totals: Totals,
    },
    /// The layer's file has been read to its end, or is invalid.
    End(Result<Compression, LayerError>),
}

/// Runs until the layer is sent, it fails, or the receiver is gone. The receiver sets `abandon` when it
/// does not need the rest: the file is then only hashed. `spare` returns buffers.
pub(super) fn run(
    image: &Image,
    layer: &Layer,
    budget: &Budget,
    messages: &SyncSender<Message>,
    spare: &Receiver<Vec<u8>>,
    abandon: &AtomicBool,
) {
    let result = decode(image, layer, budget, messages, spare, abandon);
    // The receiver may have given up.
    let _ = messages.send(Message::End(result));
}

/// What has been read, of one layer or of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub uncompressed: u64,
    /// Without long runs of zeros, which are not stored.
    pub stored: u64,
    /// Bytes that were read from the layers' files.
    pub consumed: u64,
}

impl Totals {
    fn add(&mut self, chunk: &[u8]) {
        self.uncompressed += chunk.len() as u64;
        // A run of zeros that is stored is too short to fill one of these.
        let stored = chunk.chunks(limits::HOLE_BYTES as usize).filter(|part| part.iter().any(|byte| *byte != 0));
        self.stored += stored.map(|part| part.len() as u64).sum::<u64>();
    }

    /// Checks what has been read so far; `name` is that of the last layer.
    pub(crate) fn check(&self, name: &str) -> Result<(), LayerError> {
        let exceeds = |bytes: u64, free: u64| bytes > free && bytes / limits::MAX_RATIO > self.consumed;
        if self.uncompressed > limits::MAX_UNCOMPRESSED_BYTES {
            return Err(LayerError::TooLarge { name: name.to_owned() });
        }
        if exceeds(self.stored, limits::RATIO_FREE_BYTES) || exceeds(self.uncompressed, limits::UNCOMPRESSED_FREE_BYTES)
        {
            return Err(LayerError::Ratio { name: name.to_owned() });
        }
        Ok(())
    }
}

fn decode(
    image: &Image,
    layer: &Layer,
    budget: &Budget,
    messages: &SyncSender<Message>,
    spare: &Receiver<Vec<u8>>,
    abandon: &AtomicBool,
) -> Result<Compression, LayerError> {
    let mut totals = Totals::default();
    let name = layer.name();
    let read = |source: io::Error| LayerError::Read { name: name.clone(), source };
    let mut file = HashedFile::new(image.open_layer(layer)?.section(READ_BUF_SIZE), layer.digest());
    let compression = match Compression::detect(file.fill_buf().map_err(read)?) {
        Ok(compression) => compression,
        Err(compression) => {
            check_digest(file, layer, &name)?;
            return Err(LayerError::Compression { name, compression });
        }
    };
    let mut decoder = compression.decoder(file);
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
        totals.add(&chunk);
        totals.consumed = decoder.consumed();
        if let Err(error) = totals.check(&name).and_then(|()| Ok(decoder.charge(budget)?)) {
            break Err(error);
        }
        if filled > 0 && messages.send(Message::Chunk { bytes: chunk, totals }).is_err() {
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
        Err(error @ (LayerError::TooLarge { .. } | LayerError::Ratio { .. } | LayerError::Memory(_))) => Err(error),
        outcome => {
            check_digest(decoder.into_file(), layer, &name)?;
            outcome.map(|()| compression)
        }
    }
}

fn check_digest(file: HashedFile, layer: &Layer, name: &str) -> Result<(), LayerError> {
    let actual = file.finish().map_err(|source| LayerError::Read { name: name.to_owned(), source })?;
    match (actual, layer.digest()) {
        (Some(actual), Some(expected)) if actual != *expected => {
            Err(LayerError::Digest { name: name.to_owned(), actual: actual.to_string() })
        }
        _ => Ok(()),
    }
}
