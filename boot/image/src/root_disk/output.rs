// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file of the root disk, written once and front to back. A second thread hashes the written
//! buffers.

use crate::digest::{Digest, Hasher};
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const WRITE_BUF_SIZE: usize = 1 << 20;

pub(crate) struct Output<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    written: u64,
    hashed: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    /// Called on the first buffer, which holds at least a block, before it is written.
    seal: Option<fn(&mut [u8])>,
    progress: &'a dyn Fn(u64),
}

/// Calls `fill` with an output to `file` and returns the digest of the written bytes.
pub(crate) fn write<E: From<io::Error>>(
    file: &File,
    seal: fn(&mut [u8]),
    progress: &dyn Fn(u64),
    fill: impl FnOnce(&mut Output<'_>) -> Result<(), E>,
) -> Result<Digest, E> {
    std::thread::scope(|scope| {
        let (hashed, to_hash) = sync_channel::<Vec<u8>>(2);
        let (back, spare) = sync_channel(4);
        let thread = std::thread::Builder::new().name("root-disk-hash".into());
        let hash = thread.spawn_scoped(scope, move || {
            let mut hasher = Hasher::sha256();
            for buffer in to_hash {
                hasher.update(&buffer);
                // It fails once the writer is done.
                let _ = back.try_send(buffer);
            }
            hasher.finish()
        })?;
        let mut output = Output {
            file,
            buffer: Vec::with_capacity(WRITE_BUF_SIZE),
            written: 0,
            hashed,
            spare,
            seal: Some(seal),
            progress,
        };
        fill(&mut output)?;
        output.flush()?;
        drop(output);
        Ok(hash.join().expect("hashing does not panic"))
    })
}

impl Output<'_> {
    /// Offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WRITE_BUF_SIZE - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            self.flush_if_full()?;
        }
        Ok(())
    }

    /// Writes zeros up to the byte at `position`.
    pub(crate) fn zeros_to(&mut self, position: u64) -> io::Result<()> {
        debug_assert!(position >= self.position(), "a plan only moves forward");
        self.take_from(position.saturating_sub(self.position()), |_, _| Ok(()))
    }

    /// Writes `length` bytes. `read` fills zeroed buffers, and gets their offset in `length`.
    pub(crate) fn take_from<E: From<io::Error>>(
        &mut self,
        length: u64,
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut done = 0;
        while done < length {
            let start = self.buffer.len();
            let now = (length - done).min((WRITE_BUF_SIZE - start) as u64);
            self.buffer.resize(start + now as usize, 0);
            read(&mut self.buffer[start..], done)?;
            done += now;
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() == WRITE_BUF_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(seal) = self.seal.take() {
            seal(&mut self.buffer);
        }
        let mut file = self.file;
        file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        (self.progress)(self.written);
        let mut next = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(WRITE_BUF_SIZE));
        next.clear();
        let full = std::mem::replace(&mut self.buffer, next);
        self.hashed.send(full).expect("the hashing thread lives as long as the sender");
        Ok(())
    }
}
