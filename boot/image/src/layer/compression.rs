// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decompression of one layer. The magic number selects the format, not the media type.

use super::blob::BlobReader;
use crate::tar::is_tar_start;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead as _, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A stream of uncompressed bytes over a file.
pub(super) enum Decoder {
    None(Box<BlobReader>),
    Gzip(Box<MultiGzDecoder<BlobReader>>),
    Zstd(Box<ZstdDecoder>),
}

impl Compression {
    /// Detects the compression by the first bytes of a file. `Err` is the name of an unsupported
    /// one, if known.
    pub(super) fn detect(start: &[u8]) -> Result<Self, Option<&'static str>> {
        match crate::source::known_compression(start) {
            Some("gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(other) => Err(Some(other)),
            None if is_zstd_skippable(start) => Ok(Self::Zstd),
            None if start.is_empty() || is_tar_start(start) => Ok(Self::None),
            None => Err(None),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    pub(super) fn decoder(self, blob: BlobReader) -> Decoder {
        match self {
            Self::None => Decoder::None(Box::new(blob)),
            Self::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(blob))),
            Self::Zstd => Decoder::Zstd(Box::new(ZstdDecoder { blob, decoder: FrameDecoder::new(), in_frame: false })),
        }
    }
}

impl Decoder {
    /// Compressed bytes used so far.
    pub(super) fn consumed(&self) -> u64 {
        match self {
            Self::None(blob) => blob.consumed,
            Self::Gzip(decoder) => decoder.get_ref().consumed,
            Self::Zstd(decoder) => decoder.blob.consumed,
        }
    }

    pub(super) fn into_blob(self) -> BlobReader {
        match self {
            Self::None(blob) => *blob,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.blob,
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(blob) => blob.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

/// A sequence of frames, with skippable ones between them (RFC 8878, section 3.1).
pub(super) struct ZstdDecoder {
    blob: BlobReader,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl ZstdDecoder {
    /// Begins the next frame; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.blob.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.blob) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.blob).take(length), &mut io::sink())? != length {
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
            self.decoder.decode_blocks(&mut self.blob, strategy).map_err(io::Error::other)?;
        }
    }
}

fn is_zstd_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}
