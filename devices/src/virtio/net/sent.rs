// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A packet on its way from the guest to a backend: its start, which was copied and checked, and the rest, which
//! the host's kernel copies out of guest memory.

use super::super::chain::Reader;
use super::super::guest_io::MAX_PACKET_PIECES;
use super::packet::{CHECKED_BYTES, HEADER_SIZE, MAX_FRAME_BYTES};

/// Bytes of a packet that are copied at least. A smaller packet is in one piece.
const START_BYTES: usize = 256;
const _: () = assert!(START_BYTES >= CHECKED_BYTES);

/// A packet of the guest: virtio's header and a frame. What a check has seen is not read again.
#[derive(Debug)]
pub(super) struct SentPacket<'a> {
    /// Header and the start of the frame.
    start: &'a [u8],
    /// What follows. The guest may change it at any time.
    pub(super) rest: Reader<'a>,
}

/// Where the start of a packet is copied to.
#[derive(Debug)]
pub(super) struct Copied(Box<[u8]>);

impl Copied {
    pub(super) fn new() -> Self {
        Self(vec![0; HEADER_SIZE + MAX_FRAME_BYTES].into_boxed_slice())
    }

    /// Takes over the packet in `readable`: all of it if it `is_whole`. `None` if none is so long or so short.
    pub(super) fn take<'a>(&'a mut self, mut readable: Reader<'a>, is_whole: bool) -> Option<SentPacket<'a>> {
        let length = readable.remaining();
        let in_pieces = !is_whole && readable.pieces() <= MAX_PACKET_PIECES;
        let copied = if in_pieces { length.min(START_BYTES) } else { length };
        let start = self.0.get_mut(..copied).filter(|_| length <= HEADER_SIZE + MAX_FRAME_BYTES)?;
        readable.read_exact(start).expect("no more is copied than there is");
        Some(SentPacket { start, rest: readable })
    }
}

impl SentPacket<'_> {
    /// Bytes of header and frame.
    pub(super) fn length(&self) -> usize {
        self.start.len() + self.rest.remaining()
    }

    /// All of the packet that was copied: at least [`CHECKED_BYTES`] or the whole.
    pub(super) fn start(&self) -> &[u8] {
        self.start
    }

    /// The start as header and frame.
    pub(super) fn header_and_frame(&self) -> (&[u8], &[u8]) {
        self.start.split_at(HEADER_SIZE)
    }

    /// Bytes of the frame.
    pub(super) fn frame_length(&self) -> usize {
        self.length() - HEADER_SIZE
    }
}
