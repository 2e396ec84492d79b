// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decompression of one file. The magic number selects the format, not the media type.

use super::hashed_file::HashedFile;
use crate::budget::{Budget, OverBudget};
use crate::limits;
use crate::tar::is_tar_start;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead as _, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A stream of uncompressed bytes over a file.
pub(crate) enum Decoder {
    None(Box<HashedFile>),
    Gzip(Box<MultiGzDecoder<HashedFile>>),
    Zstd(Box<ZstdDecoder>),
}

impl Compression {
    /// Detects the compression by the first bytes of a file. `Err` is the name of an unsupported
    /// one, if known.
    pub(crate) fn detect(start: &[u8]) -> Result<Self, Option<&'static str>> {
        match super::known_compression(start) {
            Some("gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(other) => Err(Some(other)),
            None if is_zstd_skippable(start) => Ok(Self::Zstd),
            None if start.is_empty() || is_tar_start(start) => Ok(Self::None),
            None => Err(None),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn decoder(self, file: HashedFile) -> Decoder {
        match self {
            Self::None => Decoder::None(Box::new(file)),
            Self::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(file))),
            Self::Zstd => {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(limits::MAX_ZSTD_WINDOW);
                Decoder::Zstd(Box::new(ZstdDecoder { file, decoder, in_frame: false, window: 0, charged: 0 }))
            }
        }
    }
}

impl Decoder {
    /// Compressed bytes used so far.
    pub(crate) fn consumed(&self) -> u64 {
        match self {
            Self::None(file) => file.consumed,
            Self::Gzip(decoder) => decoder.get_ref().consumed,
            Self::Zstd(decoder) => decoder.file.consumed,
        }
    }

    /// Charges the decoder's buffer, once it is known.
    pub(crate) fn charge(&mut self, budget: &Budget) -> Result<(), OverBudget> {
        let Self::Zstd(decoder) = self else { return Ok(()) };
        let grown = decoder.window.saturating_sub(decoder.charged);
        decoder.charged += grown;
        budget.charge(2 * grown)
    }

    pub(crate) fn into_file(self) -> HashedFile {
        match self {
            Self::None(file) => *file,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.file,
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(file) => file.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

/// A sequence of frames, with skippable ones between them (RFC 8878, section 3.1).
pub(crate) struct ZstdDecoder {
    file: HashedFile,
    decoder: FrameDecoder,
    in_frame: bool,
    /// The largest window so far, in bytes.
    window: u64,
    /// How much of the window is already charged to the budget.
    charged: u64,
}

impl ZstdDecoder {
    /// Begins the next frame; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.file.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let window = window(self.file.fill_buf()?);
            match self.decoder.reset(&mut self.file) {
                Ok(()) => {
                    self.window = self.window.max(window);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.file).take(length), &mut io::sink())? != length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Read for ZstdDecoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(into);
            }
            if self.decoder.is_finished() {
                let stored = self.decoder.get_checksum_from_data();
                if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                    return Err(io::Error::other("checksum mismatch"));
                }
                self.in_frame = false;
                continue;
            }
            let strategy = BlockDecodingStrategy::UptoBlocks(1);
            self.decoder.decode_blocks(&mut self.file, strategy).map_err(io::Error::other)?;
        }
    }
}

/// Window size of the frame that starts with `start` (RFC 8878, section 3.1.1.1), or the largest one
/// if its header is incomplete. The decoder rejects larger ones.
fn window(start: &[u8]) -> u64 {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    let window = match start {
        [_, _, _, _, descriptor, window, ..] if descriptor & SINGLE_SEGMENT == 0 => {
            let base = 1_u64 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
        // The window is the content, whose size has 1, 2, 4 or 8 bytes.
        [_, _, _, _, descriptor, size, ..] if descriptor >> 6 == 0 => u64::from(*size),
        [_, _, _, _, descriptor, low, high, ..] if descriptor >> 6 == 1 => {
            u64::from(u16::from_le_bytes([*low, *high])) + 256
        }
        [_, _, _, _, descriptor, a, b, c, d, ..] if descriptor >> 6 == 2 => {
            u64::from(u32::from_le_bytes([*a, *b, *c, *d]))
        }
        _ => limits::MAX_ZSTD_WINDOW,
    };
    window.min(limits::MAX_ZSTD_WINDOW)
}

fn is_zstd_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}
