// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps of sparse files: the places of the stored bytes.

use super::header::number;
use super::pax::decimal;

/// Extents of one file.
pub(super) const MAX_EXTENTS: usize = 1 << 18;

/// Converts alternating offsets and lengths into extents. `None` if they overlap, go backwards,
/// leave the file, or do not add up to `stored`. Empty extents are dropped.
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

/// Reads the pairs of an old GNU header or of one of its extension blocks. A pair that starts with
/// NUL ends the list.
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

/// The map of GNU's version 1.0, which precedes the data: decimal lines, of which the first is the
/// number of pairs. Fed block by block.
#[derive(Default)]
pub(super) struct PrefixedMap {
    line: Vec<u8>,
    pairs: Option<usize>,
    numbers: Vec<u64>,
}

impl PrefixedMap {
    /// Parses one block. Returns true once the map is complete (the rest of that block is padding),
    /// `None` if it is malformed.
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
    fn extents_must_be_ordered_inside_the_file_and_complete() {
        assert_eq!(extents(&[0, 5, 4096, 1, 9000, 0], 6, 9000), Some(vec![(0, 5), (4096, 1)]));
        assert_eq!(extents(&[0, 5, 4, 1], 6, 9000), None, "overlap");
        assert_eq!(extents(&[10, 5, 0, 1], 6, 9000), None, "backwards");
        assert_eq!(extents(&[8999, 2], 2, 9000), None, "past the end");
        assert_eq!(extents(&[u64::MAX, 2], 2, u64::MAX), None, "wraps");
        assert_eq!(extents(&[0, 5], 6, 9000), None, "does not add up");
        assert_eq!(extents(&[0], 0, 9000), None, "half a pair");
    }

    #[test]
    fn prefixed_map_may_span_blocks() {
        let mut map = PrefixedMap::default();
        assert_eq!(map.feed(b"2\n0\n1"), Some(false));
        assert_eq!(map.feed(b"0\n4096\n7\n\0\0"), Some(true));
        assert_eq!(map.into_numbers(), [0, 10, 4096, 7]);
        assert_eq!(PrefixedMap::default().feed(b"0\n\0\0"), Some(true));
        assert_eq!(PrefixedMap::default().feed(b"9999999999\n"), None);
        assert_eq!(PrefixedMap::default().feed(b"x\n"), None);
    }
}
