// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices and options on a kernel's command line. Pure.

const OPTION: &str = "virtio_mmio.device=";

/// The first address of each register window that `line` names: words `virtio_mmio.device=SIZE@ADDRESS:LINE`, as Linux takes them
/// (Documentation/admin-guide/kernel-parameters.txt). Words that are not so are passed over.
pub fn windows(line: &str) -> impl Iterator<Item = u64> + '_ {
    line.split(' ').filter_map(|word| {
        let (_, place) = word.strip_prefix(OPTION)?.split_once('@')?;
        let (address, _) = place.split_once(':')?;
        match address.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => address.parse().ok(),
        }
    })
}

/// The value of the word `NAME=VALUE` of `line`, a number in decimal digits.
#[must_use]
pub fn number(line: &str, name: &str) -> Option<usize> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{number, windows};

    #[test]
    fn windows_are_those_of_virtio_mmio_words() {
        let line = "quiet virtio_mmio.device=4K@0xd0000000:5 panic=-1 virtio_mmio.device=512@4272950784:12:3";
        assert!(windows(line).eq([0xd000_0000, 0xfeb0_0e00]));
        let wrong =
            "virtio_mmio.device= virtio_mmio.device=4K@:5 virtio_mmio.device=4K@0xx:5 virtio_mmio.device=4K@0x10";
        assert_eq!(windows(wrong).count(), 0);
    }

    #[test]
    fn number_is_that_of_the_named_word() {
        let line = "quiet hostile.every=16 every=2 hostile.max_faults=";
        assert_eq!(number(line, "hostile.every"), Some(16));
        assert_eq!(number(line, "hostile.max_faults"), None);
        assert_eq!(number(line, "hostile"), None);
    }
}
