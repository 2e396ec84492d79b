// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiving side: one layer's uncompressed bytes as something to read a tar from.

use super::LayerError;
use super::compression::Compression;
use super::decode::{self, Message};
use crate::digest::Hasher;
use crate::image::{Image, Layer};
use crate::tar::{TarInput, read_buffered};
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

/// Chunks on their way between the threads.
const CHUNKS: usize = 8;

/// Calls `merge` for every layer, lowest first, with its uncompressed bytes, and checks digest and diff id of each
/// before the next one begins. An error of the file goes before the error that `merge` met in its bytes.
pub(crate) fn with_layers<E: From<LayerError>>(
    image: &Image,
    mut merge: impl FnMut(usize, &mut LayerStream<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let abandon = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Made in here, so that an early return drops the receiver before the scope waits for the thread.
        let (messages, received) = sync_channel(CHUNKS);
        let (used, spare) = channel();
        let thread = std::thread::Builder::new().name("layers".into());
        let spawned = thread.spawn_scoped(scope, || {
            let (messages, spare) = (messages, spare);
            decode::run(image, &messages, &spare, &abandon);
        });
        if let Err(source) = spawned {
            return Err(LayerError::Read { name: "layers (no thread for them)".into(), source }.into());
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
    /// None where the file's own digest says the same.
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

    /// Bytes of the layer's file that were read for them.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Takes what stands behind the archive's end, to hash it, and gives the number of all bytes.
    pub(crate) fn drain(&mut self) -> u64 {
        while self.next_chunk() {}
        self.bytes
    }

    /// Takes what is left and judges the layer as a whole.
    fn finish(mut self) -> Result<(), LayerError> {
        while self.next_chunk() {}
        let mismatch = |actual: String| LayerError::DiffId {
            name: self.layer.name(),
            actual,
            expected: self.layer.diff_id.to_string(),
        };
        let compression = self.end.expect("the last chunk was followed by the end")?;
        match self.hasher.map(Hasher::finish) {
            Some(actual) if actual != self.layer.diff_id => Err(mismatch(actual.to_string())),
            // The file's digest stood in for the diff id, which is right only if the file is the archive itself.
            None if compression != Compression::None && self.layer.digest() == Some(&self.layer.diff_id) => {
                Err(mismatch("of something else".into()))
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
