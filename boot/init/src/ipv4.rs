// SPDX-License-Identifier: Apache-2.0 OR MIT
//! IPv4 arithmetic for the configuration of interfaces.

/// Returns the network mask of a prefix length. Lengths above 32 count as 32.
#[must_use]
pub fn mask(prefix: u8) -> [u8; 4] {
    u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn mask_has_as_many_leading_ones_as_the_prefix() {
        assert_eq!(mask(0), [0, 0, 0, 0]);
        assert_eq!(mask(1), [128, 0, 0, 0]);
        assert_eq!(mask(20), [255, 255, 240, 0]);
        assert_eq!(mask(24), [255, 255, 255, 0]);
        assert_eq!(mask(32), [255; 4]);
        assert_eq!(mask(255), [255; 4]);
    }
}
