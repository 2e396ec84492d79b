// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps of sparse files: which stored bytes belong where.

use super::header::number;
use super::pax::decimal;

/// Longest map of one file.
pub(super) const MAX_EXTENTS: usize = 1 << 20;

/// Turns offsets and lengths in turn into extents. None if they overlap, go backwards, leave the file, or do not add up
/// to `stored`. Empty extents are dropped.
pub(super) fn extents(map: &[u64], stored: u64, real_size: u64) -> Option<Vec<(u64, u64)>> {
    if !map.len().is_multiple_of(2) || map.len() / 2 > MAX_EXTENTS {
        return None;
    }
    let mut end = 0u64;
    let mut sum = 0u64;
    let mut extents = Vec::with_capacity(map.len() / 2);
    for pair in map.chunks_exact(2) {
        let (offset, length) = (pair[0], pair[1]);
        if offset < end {
            return None;
        }
        end = offset.checked_add(length).filter(|end| *end <= real_size)?;
        sum += length;
        if length > 0 {
            extents.push((offset, length));
        }
    }
    (sum == stored).then_some(extents)
}

/// The pairs in an old GNU header or in one of its extension blocks; a pair that begins with NUL ends the list.
pub(super) fn gnu_pairs(fields: &[u8], map: &mut Vec<u64>) -> Option<()> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        for field in pair.chunks_exact(12) {
            map.push(u64::try_from(number(field)?).ok()?);
        }
        if map.len() > 2 * MAX_EXTENTS {
            return None;
        }
    }
    Some(())
}

/// The map of GNU's version 1.0, which precedes the data: decimal lines, the first one says how many pairs follow.
/// Fed block by block; complete when the announced number of pairs was read.
#[derive(Default)]
pub(super) struct PrefixedMap {
    line: Vec<u8>,
    pairs: Option<usize>,
    numbers: Vec<u64>,
}

impl PrefixedMap {
    /// Takes one block; true once the map is complete (the rest of that block is padding). None if it is malformed.
    pub(super) fn feed(&mut self, block: &[u8]) -> Option<bool> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return None;
                }
                continue;
            }
            let value = decimal(&self.line)?;
            self.line.clear();
            match self.pairs {
                None => self.pairs = Some(usize::try_from(value).ok().filter(|pairs| *pairs <= MAX_EXTENTS)?),
                Some(_) => self.numbers.push(value),
            }
            if self.pairs.is_some_and(|pairs| self.numbers.len() == 2 * pairs) {
                return Some(true);
            }
        }
        Some(false)
    }

    pub(super) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_must_be_in_order_inside_the_file_and_complete() {
        assert_eq!(extents(&[0, 5, 4096, 1, 9000, 0], 6, 9000), Some(vec![(0, 5), (4096, 1)]));
        assert_eq!(extents(&[0, 5, 4, 1], 6, 9000), None, "overlap");
        assert_eq!(extents(&[10, 5, 0, 1], 6, 9000), None, "backwards");
        assert_eq!(extents(&[8999, 2], 2, 9000), None, "past the end");
        assert_eq!(extents(&[u64::MAX, 2], 2, u64::MAX), None, "wraps");
        assert_eq!(extents(&[0, 5], 6, 9000), None, "does not add up");
        assert_eq!(extents(&[0], 0, 9000), None, "half a pair");
    }

    #[test]
    fn a_prefixed_map_may_span_blocks() {
        let mut map = PrefixedMap::default();
        assert_eq!(map.feed(b"2\n0\n1"), Some(false));
        assert_eq!(map.feed(b"0\n4096\n7\n\0\0"), Some(true));
        assert_eq!(map.into_numbers(), [0, 10, 4096, 7]);
        assert_eq!(PrefixedMap::default().feed(b"0\n\0\0"), Some(true));
        assert_eq!(PrefixedMap::default().feed(b"9999999999\n"), None);
        assert_eq!(PrefixedMap::default().feed(b"x\n"), None);
    }
}
