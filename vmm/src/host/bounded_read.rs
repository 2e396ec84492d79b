// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads something whole that must not be large.

use std::fs::File;
use std::io::{Read, Result};
use std::path::Path;

/// The bytes of the file at `path`. `None` if there are more than `max`, of which no more than one is read.
///
/// # Errors
/// The file cannot be opened or read.
pub(crate) fn read_file(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    read(File::open(path)?, max)
}

/// The same of a reader, up to its end.
pub(crate) fn read(reader: impl Read, max: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(max + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_maximum_is_not_returned() {
        assert_eq!(read(&b"abc"[..], 3).unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(read(&b"abcd"[..], 3).unwrap(), None);
        // This file has no end.
        assert_eq!(read_file(Path::new("/dev/zero"), 1000).unwrap(), None);
        assert!(read_file(Path::new("/nowhere"), 3).is_err());
    }
}
