// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CRC-32C without the final inversion, as the superblock stores it. A few kilobytes once an image: no table.

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_polynomial_comes_out() {
        assert_eq!(!super::crc32c(b"123456789"), 0xe306_9283);
    }
}
