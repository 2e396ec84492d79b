// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiving side: one layer's uncompressed bytes as input of a tar reader.

use super::LayerError;
use super::decode::{self, Message, Totals};
use crate::budget::Budget;
use crate::decompress::Compression;
use crate::digest::Hasher;
use crate::image::{Image, Layer};
use crate::tar::{TarInput, read_buffered};
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

/// Chunks in flight between the threads.
const MAX_CHUNKS: usize = 8;

/// Calls `convert` with the uncompressed bytes of a layer, and checks digest and diff id. An error of the file takes precedence over
/// the error that `convert` found in its bytes, unless the caller does not want the layer any more: `is_unwanted` is called with what
/// has been received, again and again.
pub(crate) fn with_layer<E: From<LayerError>>(
    image: &Image,
    layer: &Layer,
    budget: &Budget,
    is_unwanted: &dyn Fn(Totals) -> bool,
    convert: impl FnOnce(&mut LayerStream<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let abandon = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Created here, so that an early return drops the receiver before the scope waits for the
        // thread.
        let (messages, received) = sync_channel(MAX_CHUNKS);
        let (used, spare) = channel();
        let thread = std::thread::Builder::new().name("layer".into());
        let spawned = thread.spawn_scoped(scope, || {
            let (messages, spare) = (messages, spare);
            decode::run(image, layer, budget, &messages, &spare, &abandon);
        });
        if let Err(source) = spawned {
            return Err(LayerError::Read { name: "layers (cannot start a thread)".into(), source }.into());
        }
        let received = received;
        let mut stream = LayerStream::new(layer, &received, &used, is_unwanted);
        let converted = convert(&mut stream);
        if converted.is_err() {
            abandon.store(true, Ordering::Relaxed);
            if is_unwanted(stream.totals) {
                return converted;
            }
            stream.hasher = None;
        }
        stream.finish()?;
        converted
    })
}

/// One layer, uncompressed.
pub(crate) struct LayerStream<'a> {
    layer: &'a Layer,
    received: &'a Receiver<Message>,
    used: &'a Sender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    /// `None` if the diff id equals the file's own digest.
    hasher: Option<Hasher>,
    end: Option<Result<Compression, LayerError>>,
    totals: Totals,
    is_unwanted: &'a dyn Fn(Totals) -> bool,
}

impl<'a> LayerStream<'a> {
    fn new(
        layer: &'a Layer,
        received: &'a Receiver<Message>,
        used: &'a Sender<Vec<u8>>,
        is_unwanted: &'a dyn Fn(Totals) -> bool,
    ) -> Self {
        let hasher = (layer.digest() != Some(&layer.diff_id)).then(|| layer.diff_id.hasher());
        let (chunk, totals) = (Vec::new(), Totals::default());
        Self { layer, received, used, chunk, position: 0, hasher, end: None, totals, is_unwanted }
    }

    /// What has been received so far.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Receives the bytes after the archive's end, to hash them, and returns what the whole layer amounts to.
    pub(crate) fn drain(&mut self) -> Totals {
        while self.next_chunk() {}
        self.totals
    }

    /// Receives the rest and checks the layer.
    fn finish(mut self) -> Result<(), LayerError> {
        while self.next_chunk() {}
        let mismatch = |actual: String| LayerError::DiffId {
            name: self.layer.name(),
            actual,
            expected: self.layer.diff_id.to_string(),
        };
        let compression = self.end.expect("the last chunk is followed by the end")?;
        match self.hasher.map(Hasher::finish) {
            Some(actual) if actual != self.layer.diff_id => Err(mismatch(actual.to_string())),
            // The file's digest is the diff id, which is valid only for an uncompressed file.
            None if compression != Compression::None && self.layer.digest() == Some(&self.layer.diff_id) => {
                Err(mismatch("of another archive".into()))
            }
            _ => Ok(()),
        }
    }

    fn next_chunk(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let used = std::mem::take(&mut self.chunk);
        if used.capacity() > 0 {
            // The thread may have ended already; then the buffer is not needed.
            let _ = self.used.send(used);
        }
        self.position = 0;
        match self.received.recv().expect("the other thread ends the layer with a message") {
            Message::Chunk { bytes, totals } => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&bytes);
                }
                self.totals = totals;
                self.chunk = bytes;
                true
            }
            Message::End(result) => {
                self.end = Some(result);
                false
            }
        }
    }
}

impl BufRead for LayerStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if (self.is_unwanted)(self.totals) {
            return Err(io::Error::other("not wanted any more"));
        }
        while self.position == self.chunk.len() && self.next_chunk() {}
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.chunk.len());
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, into)
    }
}

impl TarInput for LayerStream<'_> {}

impl<T: TarInput> TarInput for &mut T {
    fn skip(&mut self, count: u64) -> io::Result<bool> {
        (**self).skip(count)
    }
}
