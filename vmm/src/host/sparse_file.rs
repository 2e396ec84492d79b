// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files with holes: what is zero takes no space, is not copied, and is left out of the digest. Used by `main`, before a machine runs
//! and while one is paused.

use super::hex::hex;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

/// What is a hole or is not: a block of a file, at a multiple of its size.
pub(crate) const BLOCK_SIZE: usize = 64 << 10;
static ZEROES: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// Whether `block`, of at most [`BLOCK_SIZE`], has only zero bytes.
#[must_use]
pub(crate) fn is_zero(block: &[u8]) -> bool {
    block == &ZEROES[..block.len()]
}

/// Copies `size` bytes of `from` to the empty file `to`, which shares them where the file system can.
///
/// # Errors
/// A file cannot be read or written, or the disk is full.
pub(crate) fn copy(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut copy = SparseCopy::begin(from, to, size)?;
    while !copy.step(from, to, usize::MAX)? {}
    Ok(())
}

/// A copy that is made in parts. No process changes the files meanwhile.
#[derive(Debug)]
pub(crate) struct SparseCopy {
    offset: u64,
    size: u64,
    buffer: Vec<u8>,
}

impl SparseCopy {
    /// Begins to copy `size` bytes of `from` to the empty file `to`, which shares them where the file system can.
    ///
    /// # Errors
    /// `to` cannot have this size.
    pub(crate) fn begin(from: &File, to: &File, size: u64) -> io::Result<Self> {
        if ioctl_ficlone(to, from).is_ok() {
            return Ok(Self { offset: size, size, buffer: Vec::new() });
        }
        to.set_len(size)?;
        Ok(Self { offset: 0, size, buffer: vec![0; BLOCK_SIZE] })
    }

    /// Copies at most `blocks` of [`BLOCK_SIZE`]. Returns whether all is copied.
    ///
    /// # Errors
    /// A file cannot be read or written, or the disk is full.
    pub(crate) fn step(&mut self, from: &File, to: &File, blocks: usize) -> io::Result<bool> {
        for _ in 0..blocks {
            let Some((offset, block)) = next_block(from, self.offset, self.size, &mut self.buffer)? else {
                self.offset = self.size;
                return Ok(true);
            };
            self.offset = offset + block.len() as u64;
            if !is_zero(block) {
                to.write_all_at(block, offset)?;
            }
        }
        Ok(false)
    }
}

/// SHA-256 of a file of `size` bytes: of each [`BLOCK_SIZE`] that are not all zero their offset, as 64 bits with the lowest byte
/// first, and the bytes. Files of the same content and size have the same digest, whichever holes they have.
///
/// # Errors
/// The file cannot be read, or has another size.
pub(crate) fn digest(file: &File, size: u64) -> io::Result<String> {
    if file.metadata()?.len() != size {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut digest = Sha256::new();
    for_each_block(file, size, |offset, block| {
        digest.update(offset.to_le_bytes());
        digest.update(block);
        Ok(())
    })?;
    Ok(hex(&digest.finalize()))
}

/// Calls `act` with each block that is not all zero.
fn for_each_block(file: &File, size: u64, mut act: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK_SIZE];
    let mut offset = 0;
    while let Some((at, block)) = next_block(file, offset, size, &mut buffer)? {
        if !is_zero(block) {
            act(at, block)?;
        }
        offset = at + block.len() as u64;
    }
    Ok(())
}

/// Reads the first block from `offset` on that is no hole, into `buffer`. None if there is none.
fn next_block<'a>(
    file: &File,
    mut offset: u64,
    size: u64,
    buffer: &'a mut [u8],
) -> io::Result<Option<(u64, &'a [u8])>> {
    match seek(file, SeekFrom::Data(offset)) {
        // A hole up to the end.
        Err(Errno::NXIO) => return Ok(None),
        Ok(data) => offset = offset.max(data - data % BLOCK_SIZE as u64),
        // A file system without holes reports none.
        Err(_) => {}
    }
    if offset >= size {
        return Ok(None);
    }
    let block = &mut buffer[..BLOCK_SIZE.min((size - offset).try_into().unwrap_or(usize::MAX))];
    file.read_exact_at(block, offset)?;
    Ok(Some((offset, block)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    const SIZE: u64 = 3 * BLOCK_SIZE as u64 + 100;

    fn file(writes: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        writes.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
        file
    }

    #[test]
    fn copy_has_the_bytes_and_the_holes() {
        let from = file(&[(BLOCK_SIZE as u64 + 5, b"x"), (SIZE - 1, b"y"), (0, &[0; 4096])]);
        let to = tempfile::tempfile().unwrap();
        copy(&from, &to, SIZE).unwrap();
        let (mut expected, mut copied) = (vec![0; SIZE as usize], vec![1; SIZE as usize]);
        from.read_exact_at(&mut expected, 0).unwrap();
        to.read_exact_at(&mut copied, 0).unwrap();
        assert!(expected == copied);
        assert!(to.metadata().unwrap().blocks() * 512 < SIZE);
    }

    #[test]
    fn copy_in_parts_ends_once() {
        let from = file(&[(5, b"x"), (BLOCK_SIZE as u64, b"z"), (SIZE - 1, b"y")]);
        let to = tempfile::tempfile().unwrap();
        let mut copying = SparseCopy::begin(&from, &to, SIZE).unwrap();
        let mut steps = 0;
        while !copying.step(&from, &to, 1).unwrap() {
            steps += 1;
            assert!(steps <= SIZE.div_ceil(BLOCK_SIZE as u64));
        }
        assert!(copying.step(&from, &to, 1).unwrap());
        assert_eq!(digest(&to, SIZE).unwrap(), digest(&from, SIZE).unwrap());
    }

    #[test]
    fn digest_depends_on_bytes_and_places_and_not_on_holes() {
        let digest = |writes: &[(u64, &[u8])]| digest(&file(writes), SIZE).unwrap();
        let expected = digest(&[(70_000, b"x")]);
        assert_eq!(digest(&[(0, &[0; 4096]), (70_000, b"x"), (SIZE - 9, &[0; 9])]), expected);
        for other in [&[(70_001, &b"x"[..])][..], &[(70_000, b"y")], &[(4464, b"x")], &[(70_000, b"x"), (0, b"x")], &[]]
        {
            assert_ne!(digest(other), expected);
        }
    }

    #[test]
    fn digest_rejects_a_file_of_another_size() {
        assert!(digest(&file(&[]), SIZE - 1).is_err());
        assert!(digest(&file(&[]), SIZE + 1).is_err());
    }
}
