// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Converts the line ends of a terminal to those of a pipe. A terminal writes a carriage return
//! before each line feed, and systemd one more for terminals that do not; readers of a system's
//! console through a pipe or in a file expect plain lines. The terminal's own setting cannot be
//! relied on, because programs that open a console reset it.

use core::ops::Range;

/// Removes carriage returns before a line feed, and all but one of a series elsewhere, across read
/// boundaries.
#[derive(Debug, Default)]
pub struct LineEnds {
    /// The previous read ended in a carriage return.
    held: bool,
}

impl LineEnds {
    /// Rewrites `bytes` in place: the first byte is free for a carriage return held back from the
    /// previous call, the rest was just read. Returns the range of the result. A carriage return at
    /// the end of the stream is dropped.
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

    fn rewritten(reads: &[&[u8]]) -> Vec<u8> {
        let mut ends = LineEnds::default();
        let mut output = Vec::new();
        for read in reads {
            let mut bytes = [b"?", *read].concat();
            let range = ends.rewrite(&mut bytes);
            output.extend_from_slice(&bytes[range]);
        }
        output
    }

    #[test]
    fn rewrite_removes_carriage_returns_of_line_ends_only() {
        assert_eq!(rewritten(&[b"one\r\ntwo\r\r\n"]), b"one\ntwo\n");
        assert_eq!(rewritten(&[b"\r50 %\r\r100 %\r\r\n"]), b"\r50 %\r100 %\n");
        assert_eq!(rewritten(&[b"", b"\n", b"no end"]), b"\nno end");
    }

    #[test]
    fn rewrite_does_not_depend_on_read_boundaries() {
        let whole = b"a\r\n\r\r\nb\rc\n\r\n";
        for first in 0..whole.len() {
            for second in first..whole.len() {
                let reads = [&whole[..first], &whole[first..second], &whole[second..]];
                assert_eq!(rewritten(&reads), b"a\n\nb\rc\n\n", "{first} {second}");
            }
        }
    }
}
