// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Line ends of a terminal as those of a pipe. A terminal writes a carriage return before each line feed, and systemd one more
//! for terminals that do not; whoever reads a system's console through a pipe or in a file wants lines. The terminal's own
//! setting cannot be relied on: what opens a console resets it.

use core::ops::Range;

/// Takes away the carriage returns before each line feed, and all but one of several elsewhere, across the pieces in which
/// the bytes come.
#[derive(Debug, Default)]
pub struct LineEnds {
    /// The last piece ended in a carriage return.
    held: bool,
}

impl LineEnds {
    /// Rewrites `bytes`, of which the first is free for what the last piece left, and the rest was just read. Returns where
    /// the bytes are that can be passed on. A carriage return at the very end of everything is never passed on.
    pub fn rewrite(&mut self, bytes: &mut [u8]) -> Range<usize> {
        let start = usize::from(!self.held);
        if let Some(free) = bytes.first_mut() {
            *free = b'\r';
        }
        self.held = bytes.get(start..).is_some_and(|read| read.ends_with(b"\r"));
        let mut end = start;
        for at in start..bytes.len() {
            match (bytes[at], bytes.get(at + 1)) {
                (b'\r', Some(b'\n' | b'\r') | None) => {}
                (byte, _) => {
                    bytes[end] = byte;
                    end += 1;
                }
            }
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn rewritten(pieces: &[&[u8]]) -> Vec<u8> {
        let mut ends = LineEnds::default();
        let mut passed = Vec::new();
        for piece in pieces {
            let mut bytes = [b"?", *piece].concat();
            let range = ends.rewrite(&mut bytes);
            passed.extend_from_slice(&bytes[range]);
        }
        passed
    }

    #[test]
    fn only_carriage_returns_of_line_ends_go() {
        assert_eq!(rewritten(&[b"one\r\ntwo\r\r\n"]), b"one\ntwo\n");
        assert_eq!(rewritten(&[b"\r50 %\r\r100 %\r\r\n"]), b"\r50 %\r100 %\n");
        assert_eq!(rewritten(&[b"", b"\n", b"no end"]), b"\nno end");
    }

    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut() {
        let whole = b"a\r\n\r\r\nb\rc\n\r\n";
        for first in 0..whole.len() {
            for second in first..whole.len() {
                let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                assert_eq!(rewritten(&pieces), b"a\n\nb\rc\n\n", "{first} {second}");
            }
        }
    }
}
