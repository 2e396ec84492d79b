// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes on their way to a peer that may be slow: written as far as its socket takes them, the rest
//! kept, bounded in bytes and in frames. Used by `main`'s event loop for every client of the
//! control socket, and by the verbs `exec` and `attach` for the way to it. No call waits.

use std::collections::VecDeque;
use std::io::{ErrorKind, Result, Write};
use std::time::{Duration, Instant};

/// Bound of what waits for one peer.
pub(crate) const MAX_OUTBOX_BYTES: usize = 256 << 10;
/// A frame costs its place in a list, however short it is.
pub(crate) const MAX_OUTBOX_FRAMES: usize = 8 << 10;
/// Time without progress after which a peer has missed its [`deadline`](Outbox::deadline).
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The peer has not taken enough of what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("output for the client exceeds {MAX_OUTBOX_BYTES} bytes or {MAX_OUTBOX_FRAMES} frames")]
pub(crate) struct OutboxFull;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: VecDeque<u8>,
    /// How many of `bytes` belong to each frame.
    frames: VecDeque<usize>,
    deadline: Option<Instant>,
}

impl Outbox {
    /// Adds a frame. A single one may exceed the limit of bytes if nothing else waits: an answer is
    /// one document, however long.
    ///
    /// # Errors
    /// A limit is exceeded; nothing is added.
    pub(crate) fn push(&mut self, frame: &[u8], now: Instant) -> std::result::Result<(), OutboxFull> {
        if !self.is_empty() && (frame.len() > self.room() || self.frames.len() >= MAX_OUTBOX_FRAMES) {
            return Err(OutboxFull);
        }
        if self.is_empty() {
            self.deadline = Some(now + STALL_TIMEOUT);
        }
        self.bytes.extend(frame);
        self.frames.push_back(frame.len());
        Ok(())
    }

    /// Bytes that [`push`](Self::push) accepts now.
    pub(crate) fn room(&self) -> usize {
        if self.frames.len() >= MAX_OUTBOX_FRAMES { 0 } else { MAX_OUTBOX_BYTES.saturating_sub(self.bytes.len()) }
    }

    /// Bytes that the peer has not taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes what `peer`, which does not block, takes; returns how many bytes that was.
    ///
    /// # Errors
    /// The peer is gone.
    pub(crate) fn write_to(&mut self, peer: &mut impl Write, now: Instant) -> Result<usize> {
        let mut written = 0;
        while !self.bytes.is_empty() {
            match peer.write(self.bytes.as_slices().0) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.bytes.drain(..length);
                    written += length;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.remove_frames(written);
        if written > 0 {
            self.deadline = Some(now + STALL_TIMEOUT);
        }
        if self.is_empty() {
            // A slow peer's memory is given back once it has caught up.
            *self = Self::default();
        }
        Ok(written)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When the peer must have taken something. `None` while nothing waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Begins the time without progress anew.
    pub(crate) fn restart_deadline(&mut self, now: Instant) {
        self.deadline = self.deadline.map(|_| now + STALL_TIMEOUT);
    }

    fn remove_frames(&mut self, mut written: usize) {
        while let Some(frame) = self.frames.front_mut() {
            if *frame > written {
                *frame -= written;
                return;
            }
            written -= *frame;
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Takes `room` bytes, then blocks.
    struct Peer {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= length;
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn peer(room: usize) -> Peer {
        Peer { room, taken: Vec::new() }
    }

    #[test]
    fn outbox_keeps_what_the_peer_does_not_take() {
        let (now, mut outbox, mut peer) = (Instant::now(), Outbox::default(), peer(4));
        outbox.push(b"one", now).unwrap();
        outbox.push(b"two", now).unwrap();
        assert_eq!(outbox.write_to(&mut peer, now).unwrap(), 4);
        assert_eq!((outbox.len(), outbox.frames.len()), (2, 1));
        assert_eq!(outbox.write_to(&mut peer, now).unwrap(), 0);
        peer.room = 10;
        assert_eq!(outbox.write_to(&mut peer, now).unwrap(), 2);
        assert_eq!(peer.taken, b"onetwo");
        assert!(outbox.is_empty() && outbox.deadline().is_none() && outbox.room() == MAX_OUTBOX_BYTES);
    }

    #[test]
    fn outbox_is_bounded_in_bytes() {
        let (now, mut outbox) = (Instant::now(), Outbox::default());
        let mut frames = 0;
        while outbox.push(&[0; 1000], now).is_ok() {
            frames += 1;
        }
        assert_eq!(frames, MAX_OUTBOX_BYTES / 1000);
        assert_eq!(outbox.push(&vec![0; outbox.room() + 1], now), Err(OutboxFull));
        assert_eq!(outbox.push(&vec![0; outbox.room()], now), Ok(()));
        assert_eq!(outbox.len(), MAX_OUTBOX_BYTES);
    }

    #[test]
    fn outbox_is_bounded_in_frames_even_if_they_are_empty() {
        for frame in [&b""[..], b"x"] {
            let (now, mut outbox) = (Instant::now(), Outbox::default());
            for _ in 0..MAX_OUTBOX_FRAMES {
                outbox.push(frame, now).unwrap();
            }
            assert_eq!((outbox.push(frame, now), outbox.room()), (Err(OutboxFull), 0));
            outbox.write_to(&mut peer(usize::MAX), now).unwrap();
            assert!(outbox.is_empty());
        }
    }

    #[test]
    fn outbox_takes_one_long_frame_when_empty() {
        let (now, mut outbox) = (Instant::now(), Outbox::default());
        outbox.push(&[0; 2 * MAX_OUTBOX_BYTES], now).unwrap();
        assert_eq!((outbox.push(b"x", now), outbox.room()), (Err(OutboxFull), 0));
    }

    #[test]
    fn outbox_deadline_moves_with_progress_only() {
        let (start, mut outbox, mut peer) = (Instant::now(), Outbox::default(), peer(1));
        outbox.push(b"abc", start).unwrap();
        let later = start + Duration::from_secs(9);
        outbox.push(b"def", later).unwrap();
        assert_eq!(outbox.deadline(), Some(start + STALL_TIMEOUT));
        outbox.write_to(&mut peer, later).unwrap();
        assert_eq!(outbox.deadline(), Some(later + STALL_TIMEOUT));
        outbox.write_to(&mut peer, later + Duration::from_secs(1)).unwrap();
        assert_eq!(outbox.deadline(), Some(later + STALL_TIMEOUT), "nothing was taken");
    }

    #[test]
    fn outbox_reports_a_peer_that_is_gone() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let mut outbox = Outbox::default();
        outbox.push(b"x", Instant::now()).unwrap();
        let error = outbox.write_to(&mut writer, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
