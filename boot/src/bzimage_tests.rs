// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Headers of bzImages, built in process, with one field changed at a time.

use super::*;
use proptest::prelude::*;
use std::io::Cursor;

/// A bzImage of protocol 2.15 around `payload`.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let setup_sectors = 2;
    let mut bytes = vec![0; (usize::from(setup_sectors) + 1) * 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[SETUP_SECTORS] = setup_sectors;
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
    // The decompressor's own code lies before the payload.
    bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&64_u32.to_le_bytes());
    bytes[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.resize(bytes.len() + 64, 0x90);
    bytes.extend(payload);
    bytes
}

fn parse(bytes: &[u8]) -> Result<BzImage, KernelProblem> {
    BzImage::parse(&mut Cursor::new(bytes))
}

#[test]
fn parse_finds_the_payload() {
    assert_eq!(parse(&bzimage(b"payload")).unwrap(), BzImage { payload: 3 * 512 + 64, length: 7 });
}

#[test]
fn zero_setup_sectors_mean_four() {
    let mut bytes = bzimage(b"payload");
    bytes[SETUP_SECTORS] = 0;
    bytes.resize(bytes.len() + 2 * 512, 0);
    assert_eq!(parse(&bytes).unwrap().payload, 5 * 512 + 64);
}

#[test]
fn old_protocol_is_named_in_the_error() {
    let mut bytes = bzimage(b"payload");
    bytes[PROTOCOL..PROTOCOL + 2].copy_from_slice(&[0x07, 0x02]);
    let message = parse(&bytes).unwrap_err().to_string();
    assert!(message.contains("protocol 2.07"), "{message}");
}

#[test]
fn truncated_file_is_rejected_at_every_length() {
    let bytes = bzimage(b"payload");
    for length in 0..bytes.len() {
        let error = parse(&bytes[..length]).unwrap_err();
        assert!(matches!(error, KernelProblem::Truncated { .. }), "{length} bytes: {error:?}");
    }
}

proptest! {
    #[test]
    fn payload_stays_within_the_file_for_any_header(head in proptest::collection::vec(any::<u8>(), HEAD_SIZE..4096)) {
        if let Ok(found) = parse(&head) {
            prop_assert!(found.payload + found.length <= head.len() as u64);
        }
    }
}
