// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiving side: one layer's uncompressed bytes as input of a tar reader.

use super::LayerError;
use super::decode::{self, Message};
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

/// Calls `merge` for every layer, lowest first, with its uncompressed bytes, and checks digest and
/// diff id of each before the next one. An error of the file takes precedence over the error that
/// `merge` found in its bytes.
pub(crate) fn with_layers<E: From<LayerError>>(
    image: &Image,
    budget: &Budget,
    mut merge: impl FnMut(usize, &mut LayerStream<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let abandon = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Created here, so that an early return drops the receiver before the scope waits for the
        // thread.
        let (messages, received) = sync_channel(MAX_CHUNKS);
        let (used, spare) = channel();
        let thread = std::thread::Builder::new().name("layers".into());
        let spawned = thread.spawn_scoped(scope, || {
            let (messages, spare) = (messages, spare);
            decode::run(image, budget, &messages, &spare, &abandon);
        });
        if let Err(source) = spawned {
            return Err(LayerError::Read { name: "layers (cannot start a thread)".into(), source }.into());
        }
        let received = received;
        for (index, layer) in image.layers.iter().enumerate() {
            let mut stream = LayerStream::new(layer, &received, &used);
            let merged = merge(index, &mut stream);
            if merged.is_err() {
                abandon.store(true, Ordering::Relaxed);
                stream.hasher = None;
            }
            stream.finish()?;
            merged?;
        }
        Ok(())
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
    bytes: u64,
    file_bytes: u64,
}

impl<'a> LayerStream<'a> {
    fn new(layer: &'a Layer, received: &'a Receiver<Message>, used: &'a Sender<Vec<u8>>) -> Self {
        let hasher = (layer.digest() != Some(&layer.diff_id)).then(|| layer.diff_id.hasher());
        Self { layer, received, used, chunk: Vec::new(), position: 0, hasher, end: None, bytes: 0, file_bytes: 0 }
    }

    /// Uncompressed bytes received so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the layer's file read for them.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Receives the bytes after the archive's end, to hash them, and returns the number of all
    /// bytes.
    pub(crate) fn drain(&mut self) -> u64 {
        while self.next_chunk() {}
        self.bytes
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
        match self.received.recv().expect("the other thread ends every layer with a message") {
            Message::Chunk { bytes, consumed } => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&bytes);
                }
                self.bytes += bytes.len() as u64;
                self.file_bytes = consumed;
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
