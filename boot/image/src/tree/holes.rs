// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files as archives store them, with all of their zeros: long runs of zeros are not stored, so
//! that a log of a large user ID, gigabytes of nothing, costs nothing.

use super::fault::Fault;
use super::merge::MergeError;
use super::{Data, Extent};
use crate::budget::Budget;
use crate::limits::HOLE_BYTES;
use crate::spool::Spool;
use crate::tar::{Reader, TarInput};

/// Bytes that are looked at together.
const BLOCK: u64 = 4096;
const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Appends the data of a file of `size` bytes to `spool`, without its long runs of zeros.
pub(super) fn spool<I: TarInput>(
    spool: &mut Spool,
    budget: &Budget,
    size: u64,
    reader: &mut Reader<I>,
    fault: impl Fn(Fault) -> MergeError,
) -> Result<Data, MergeError> {
    let start = spool.length();
    let mut extents: Vec<Extent> = Vec::new();
    // Zeros before `offset` that are not in the spool yet.
    let (mut offset, mut zeros) = (0, 0);
    loop {
        let data = reader.data()?;
        if data.is_empty() {
            break;
        }
        let count = data.len();
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min((BLOCK - offset % BLOCK) as usize));
            rest = more;
            if is_zero(piece) {
                zeros += piece.len() as u64;
            } else {
                match extents.last_mut() {
                    Some(last) if zeros < HOLE_BYTES => {
                        last.length += zeros + piece.len() as u64;
                        append_zeros(spool, zeros).map_err(MergeError::Spool)?;
                    }
                    last => {
                        // Short zeros at the start of the file are data.
                        let kept = if last.is_none() && zeros < HOLE_BYTES { zeros } else { 0 };
                        let length = kept + piece.len() as u64;
                        let extent = Extent { offset: offset - kept, length, spooled: spool.length() };
                        budget.charge(size_of::<Extent>() as u64).map_err(|error| fault(error.into()))?;
                        append_zeros(spool, kept).map_err(MergeError::Spool)?;
                        extents.push(extent);
                    }
                }
                spool.append(piece).map_err(MergeError::Spool)?;
                zeros = 0;
            }
            offset += piece.len() as u64;
        }
        reader.consume(count);
    }
    if zeros < HOLE_BYTES
        && let Some(last) = extents.last_mut()
    {
        last.length += zeros;
        append_zeros(spool, zeros).map_err(MergeError::Spool)?;
    }
    match &*extents {
        [] if size < HOLE_BYTES => {
            append_zeros(spool, zeros).map_err(MergeError::Spool)?;
            Ok(Data::Contiguous(start))
        }
        [one] if one.length == size => Ok(Data::Contiguous(start)),
        _ => Ok(Data::Sparse(extents.into())),
    }
}

/// Written so that the compiler uses vector instructions.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes.iter().fold(0, |all, byte| all | byte) == 0
}

fn append_zeros(spool: &mut Spool, mut count: u64) -> std::io::Result<()> {
    while count > 0 {
        let now = count.min(BLOCK);
        spool.append(&ZEROS[..now as usize])?;
        count -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Archive, Member};

    /// Returns the extents of a file and the number of bytes in the spool.
    fn spooled(content: &[u8]) -> (Option<Vec<(u64, u64)>>, u64) {
        let directory = tempfile::tempdir().unwrap();
        let mut into = Spool::create(directory.path()).unwrap();
        let archive = Archive::of([Member::file("a", content)]).bytes();
        let mut reader = Reader::new(archive.as_slice());
        let entry = reader.next_entry().unwrap().unwrap();
        let data = spool(&mut into, &Budget::default(), entry.size, &mut reader, |fault| panic!("{fault}")).unwrap();
        let extents = match data {
            Data::Contiguous(0) => None,
            Data::Contiguous(start) => panic!("{start}"),
            Data::Sparse(extents) => Some(extents.iter().map(|extent| (extent.offset, extent.length)).collect()),
        };
        (extents, into.length())
    }

    #[test]
    fn long_runs_of_zeros_are_not_stored() {
        let hole = HOLE_BYTES as usize;
        let content = |parts: &[(u8, usize)]| {
            parts.iter().flat_map(|(byte, count)| std::iter::repeat_n(*byte, *count)).collect::<Vec<u8>>()
        };
        let (many, page) = (3 * hole, 4096);
        for (parts, extents, stored) in [
            (&[][..], None, 0),
            (&[(0, 5)], None, 5),
            (&[(0, hole - 1)], None, hole - 1),
            (&[(0, hole)], Some(vec![]), 0),
            (&[(1, many)], None, many),
            (&[(0, page), (1, page), (0, page)], None, 3 * page),
            (&[(0, many), (1, 10)], Some(vec![(many, 10)]), 10),
            (&[(1, page), (0, many)], Some(vec![(0, page)]), page),
            (&[(1, page), (0, many), (2, 7), (0, 5)], Some(vec![(0, page), (page + many, 12)]), page + 12),
            (&[(1, page), (0, hole - page), (2, page), (0, hole)], Some(vec![(0, hole + page)]), hole + page),
        ] {
            let extents: Option<Vec<(usize, usize)>> = extents;
            let expected = extents.map(|all| all.into_iter().map(|(at, count)| (at as u64, count as u64)).collect());
            assert_eq!(spooled(&content(parts)), (expected, stored as u64), "{parts:?}");
        }
    }
}
