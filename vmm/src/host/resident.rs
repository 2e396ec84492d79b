// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drops the pages of code and constants that only the start needs: parsing, conversion, assembly. Called once, on `main`.
#![allow(unsafe_code, reason = "madvise(2) on the process's own code")]

use rustix::mm::{Advice, madvise};
use std::fs;
use std::ops::Range;

/// Removes code and constants of this program and its libraries from the resident set. Code that still runs comes back from the page
/// cache by some tens of minor faults. A failure costs only memory.
pub(crate) fn drop_code_pages() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for range in maps.lines().filter_map(code) {
        // SAFETY: the pages belong to a private, read-only mapping of a file and were never written, so the kernel reads the
        // same content again from the file.
        let _ = unsafe { madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed) };
    }
}

/// The range of a line of `/proc/self/maps` if it is code or constants of a file. Read-only ranges at another offset than 0 may have
/// been relocated, that is, written.
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
    fn only_unwritten_code_and_constants_of_files_are_dropped() {
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
    fn a_program_continues_without_its_code_in_memory() {
        drop_code_pages();
        assert_eq!(format!("{:?}", vec![1, 2]), "[1, 2]");
    }
}
