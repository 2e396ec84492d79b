// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each format survives a round trip; damage, bombs and truncation are errors.

use super::*;
use flate2::write::GzEncoder;
use lzma_rust2::{FilterType, XzOptions, XzWriter};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

const ALL: [Compression; 3] = [Compression::Gzip, Compression::Xz, Compression::Zstd];

pub(crate) fn pack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        // Linux's build uses the x86 branch filter.
        Compression::Xz => {
            let mut options = XzOptions::with_preset(1);
            options.prepend_pre_filter(FilterType::BcjX86, 0);
            let mut encoder = XzWriter::new(Vec::new(), options).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
    }
}

fn unpack(packed: &[u8], limit: u64) -> Result<Vec<u8>, UnpackError> {
    let compression = Compression::recognise(packed).expect("a known format").expect("a supported format");
    let mut unpacked = Vec::new();
    compression.unpack(packed, limit, &mut unpacked).map(|()| unpacked)
}

/// Bytes as in a program: calls between other bytes.
fn program() -> Vec<u8> {
    (0..60_000_u32).flat_map(|number| [0xe8, number as u8, (number >> 8) as u8, 0, 0, 0x90, 0x55]).collect()
}

#[test]
fn every_format_survives_a_round_trip() {
    for compression in ALL {
        let packed = pack(compression, &program());
        assert!(packed.len() < program().len());
        assert_eq!(Compression::recognise(&packed), Some(Ok(compression)));
        assert!(unpack(&packed, 1 << 20).unwrap() == program(), "{compression:?}");
    }
}

#[test]
fn bytes_after_the_stream_are_ignored() {
    for compression in ALL {
        let mut packed = pack(compression, b"kernel");
        packed.extend(57_575_404_u32.to_le_bytes());
        assert_eq!(unpack(&packed, 1 << 20).unwrap(), b"kernel", "{compression:?}");
    }
}

#[test]
fn truncated_or_damaged_stream_is_an_error() {
    for compression in ALL {
        let packed = pack(compression, &program());
        for length in [packed.len() - 1, packed.len() / 2, 20] {
            assert!(
                matches!(unpack(&packed[..length], 1 << 20), Err(UnpackError::Packed(_))),
                "{compression:?} {length}"
            );
        }
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 1;
        assert!(matches!(unpack(&damaged, 1 << 20), Err(UnpackError::Packed(_))), "{compression:?}");
    }
}

#[test]
fn bomb_is_an_error_at_the_limit() {
    for compression in ALL {
        let packed = pack(compression, &vec![0; 8 << 20]);
        assert!(matches!(unpack(&packed, 1 << 20), Err(UnpackError::TooLarge(_))), "{compression:?}");
    }
}

#[test]
fn unsupported_formats_are_recognised_by_name() {
    assert_eq!(Compression::recognise(b"\x02\x21\x4c\x18...."), Some(Err("lz4")));
    assert_eq!(Compression::recognise(b"BZh9"), Some(Err("bzip2")));
    assert_eq!(Compression::recognise(b"\x7fELF"), None);
}

proptest! {
    #[test]
    fn unpack_ends_for_any_bytes_after_a_magic_number(magic in 0..3_usize, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut packed = MAGIC[magic].0.to_vec();
        packed.extend(bytes);
        let _ = unpack(&packed, 1 << 20);
    }
}
