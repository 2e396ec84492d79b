// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CRC-32C without the final inversion, as in the superblock. Without a table: it runs over one
//! block per image.

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc32c_returns_the_check_value() {
        assert_eq!(!super::crc32c(b"123456789"), 0xe306_9283);
    }
}
