// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories: blocks of entries followed by their names, sorted by name, so that the kernel finds
//! a name by two binary searches.

use super::BLOCK;
use super::format::Dirent;
use zerocopy::IntoBytes as _;

/// One name: bytes, inode number, file type.
pub(super) type Name<'a> = (&'a [u8], u64, u8);

/// Inserts `.` and `..` into sorted names of children: a few characters sort before the dot.
pub(super) fn with_dots<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let mut names = names.peekable();
    let mut dots = [&b"."[..], b".."].into_iter().peekable();
    std::iter::from_fn(move || match (dots.peek(), names.peek()) {
        (Some(dot), Some(name)) if name < dot => names.next(),
        (Some(_), _) => dots.next(),
        (None, _) => names.next(),
    })
}

/// Size of a directory with names of these lengths.
pub(super) fn size(lengths: impl Iterator<Item = usize>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for length in lengths {
        let more = (size_of::<Dirent>() + length) as u64;
        if used + more > BLOCK {
            full += BLOCK;
            used = 0;
        }
        used += more;
    }
    full + used
}

/// Encodes a directory with sorted `names`: full blocks, and the used part of the last one.
pub(super) fn encode(names: &[Name<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = names;
    while !rest.is_empty() {
        let (count, _) = rest
            .iter()
            .map(|(name, ..)| size_of::<Dirent>() + name.len())
            .scan(0, |used, more| {
                *used += more;
                Some(*used)
            })
            .take_while(|used| *used as u64 <= BLOCK)
            .fold((0, 0), |(count, _), used| (count + 1, used));
        let (block, following) = rest.split_at(count);
        let mut name_offset = count * size_of::<Dirent>();
        for (name, nid, file_type) in block {
            let nameoff = u16::try_from(name_offset).expect("a block has 4096 bytes").into();
            bytes.extend_from_slice(
                Dirent { nid: (*nid).into(), nameoff, file_type: *file_type, reserved: 0 }.as_bytes(),
            );
            name_offset += name.len();
        }
        block.iter().for_each(|(name, ..)| bytes.extend_from_slice(name));
        if !following.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        }
        rest = following;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_dots_inserts_dots_in_sort_order() {
        let names = [&b"!"[..], b"-x", b"..a", b".a", b"a"];
        let sorted: Vec<&[u8]> = with_dots(names.into_iter()).collect();
        assert_eq!(sorted, [&b"!"[..], b"-x", b".", b"..", b"..a", b".a", b"a"]);
    }

    #[test]
    fn size_is_the_length_of_the_encoding() {
        for count in [1, 2, 15, 16, 200, 1000] {
            let names: Vec<Vec<u8>> =
                (0..count).map(|n| format!("{n:0width$}", width = 1 + n % 255).into_bytes()).collect();
            let entries: Vec<Name<'_>> = names.iter().map(|name| (name.as_slice(), 7, 1)).collect();
            let encoded = encode(&entries);
            assert_eq!(encoded.len() as u64, size(names.iter().map(Vec::len)), "{count}");
        }
    }
}
