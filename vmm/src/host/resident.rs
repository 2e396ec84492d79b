// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Giving back what the start needed and the rest of a run does not: the pages of the code that parsed, converted and
//! assembled, and of its constants. Called once, on `main`.
#![allow(unsafe_code)] // madvise(2).

use rustix::mm::{Advice, madvise};
use std::fs;
use std::ops::Range;

/// Takes code and constants of this program and its libraries out of the resident set. What still runs comes back from
/// the page cache by itself, in some tens of minor faults; the code of the start does not. A failure costs nothing but
/// the memory.
pub(crate) fn give_back_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for range in maps.lines().filter_map(code) {
        // SAFETY: the pages are those of a private mapping of a file without the right to write, so that they were never
        // written to: what the kernel drops it reads again from the same file.
        let _ = unsafe { madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed) };
    }
}

/// The range of a line of `/proc/self/maps`, if it is code or constants of a file. What is read-only further on in a file was
/// relocated first, and written to.
fn code(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset, _device, inode, path) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let is_constant = rights == "r-xp" || rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !is_constant || inode == "0" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_comes_from_a_file_and_was_never_written_is_given_back() {
        let text = "55e0a000-55e0b000 r-xp 00001000 fe:00 42   /usr/bin/coracle";
        assert_eq!(code(text), Some(0x55e0_a000..0x55e0_b000));
        let constants = "55e0a000-55e0b000 r--p 00000000 fe:00 42   /usr/bin/coracle";
        assert_eq!(code(constants), Some(0x55e0_a000..0x55e0_b000));
        for other in [
            "55e0a000-55e0b000 r--p 00001000 fe:00 42   /usr/bin/coracle",
            "55e0a000-55e0b000 rwxp 00001000 fe:00 42   /usr/bin/coracle",
            "55e0a000-55e0b000 r-xp 00000000 00:00 0    [vdso]",
            "55e0a000-55e0b000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_goes_on_without_its_code_in_memory() {
        give_back_code();
        assert_eq!(format!("{:?}", vec![1, 2]), "[1, 2]");
    }
}
