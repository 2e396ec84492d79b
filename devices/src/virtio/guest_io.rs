// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls that move bytes between a descriptor and guest memory without a copy in between.
//! Runs on the event loop of the device that calls it.
//!
//! Unsafe because the kernel gets raw pointers: a Rust slice must not refer to memory that the
//! guest may change at any moment, so the safe vectored calls cannot be used.
#![allow(unsafe_code, reason = "guest memory can be passed to the kernel only as raw pointers")]

use super::chain::{Reader, Writer};
use std::io::{Error, ErrorKind, Result};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::VolatileSlice;

/// Vectors of one call. They are on the stack; a transfer with more takes several calls.
const MAX_VECTORS: usize = 256;
/// Times in a row that a disk may return `WouldBlock` before that is an error.
const MAX_WOULD_BLOCK: u32 = 100;

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// `readv`, `writev`.
    Stream,
    /// `recvmsg`, `sendmsg`, which need not block although the descriptor may.
    Socket,
}

/// Fills `writer` from `file` at `offset`, with as many calls as that takes.
///
/// # Errors
/// The file ends before, or cannot be read. Bytes may have been written to the guest.
pub(super) fn read_exact_at(file: BorrowedFd<'_>, offset: u64, writer: &mut Writer<'_>) -> Result<()> {
    complete(offset, writer.remaining(), ErrorKind::UnexpectedEof, |at| {
        let moved = transfer(file, Call::ReadAt(at), &mut Vectors::new(writer.slices(), usize::MAX))?;
        writer.skip(moved);
        Ok(moved)
    })
}

/// Fills `writer` from `file` at `offset`, up to the end of the file; returns how many bytes that were.
///
/// # Errors
/// The file cannot be read. Bytes may have been written to the guest.
pub(super) fn read_until_end_at(file: BorrowedFd<'_>, offset: u64, writer: &mut Writer<'_>) -> Result<usize> {
    let before = writer.remaining();
    match read_exact_at(file, offset, writer) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(before - writer.remaining()),
    }
}

/// Writes all of `reader` to `file` at `offset`, with as many calls as that takes.
///
/// # Errors
/// The file cannot be written. Some of it may have been.
pub(super) fn write_all_at(file: BorrowedFd<'_>, offset: u64, reader: &mut Reader<'_>) -> Result<()> {
    complete(offset, reader.remaining(), ErrorKind::WriteZero, |at| {
        let moved = transfer(file, Call::WriteAt(at), &mut Vectors::new(reader.slices(), usize::MAX))?;
        reader.skip(moved);
        Ok(moved)
    })
}

/// Writes all of `reader` at the end of `file`, wherever that is, with as many calls as that takes.
///
/// # Errors
/// The file cannot be written. Some of it may have been.
pub(super) fn append_all(file: BorrowedFd<'_>, reader: &mut Reader<'_>) -> Result<()> {
    complete(0, reader.remaining(), ErrorKind::WriteZero, |_| {
        let moved = transfer(file, Call::Append, &mut Vectors::new(reader.slices(), usize::MAX))?;
        reader.skip(moved);
        Ok(moved)
    })
}

/// Reads what there is, once. 0 is the end.
///
/// # Errors
/// It would block, or cannot be read.
pub(super) fn read_some(file: BorrowedFd<'_>, channel: Channel, writer: &mut Writer<'_>) -> Result<usize> {
    let call = if channel == Channel::Socket { Call::Receive } else { Call::Read };
    let moved = retry(|| transfer(file, call, &mut Vectors::new(writer.slices(), usize::MAX)))?;
    writer.skip(moved);
    Ok(moved)
}

/// Writes up to `limit` bytes, as many as are accepted, once.
///
/// # Errors
/// It would block, or cannot be written.
pub(super) fn write_some(
    file: BorrowedFd<'_>,
    channel: Channel,
    reader: &mut Reader<'_>,
    limit: usize,
) -> Result<usize> {
    let call = if channel == Channel::Socket { Call::Send } else { Call::Write };
    let moved = retry(|| transfer(file, call, &mut Vectors::new(reader.slices(), limit)))?;
    reader.skip(moved);
    Ok(moved)
}

/// Pieces of guest memory that [`write_packet`] can pass on.
pub(super) const MAX_PACKET_PIECES: usize = MAX_VECTORS - 2;

/// Writes one packet, at once or not at all: `parts`, at most two, and `rest` after them, which has no more
/// than [`MAX_PACKET_PIECES`].
///
/// # Errors
/// It would block, or is not accepted.
pub(super) fn write_packet(file: BorrowedFd<'_>, channel: Channel, parts: &[&[u8]], rest: &Reader<'_>) -> Result<()> {
    debug_assert!(parts.len() + rest.pieces() <= MAX_VECTORS);
    let call = if channel == Channel::Socket { Call::Send } else { Call::Write };
    retry(|| transfer(file, call, &mut Vectors::after(parts, rest.slices(), usize::MAX)))?;
    Ok(())
}

/// Repeats `step`, which gets an offset and moves some bytes there, until `length` bytes have been
/// moved.
fn complete(offset: u64, length: usize, at_end: ErrorKind, mut step: impl FnMut(u64) -> Result<usize>) -> Result<()> {
    let mut done = 0;
    let mut would_block = 0;
    while done < length {
        match retry(|| step(offset + done as u64)) {
            Ok(0) => return Err(at_end.into()),
            Ok(moved) => (done, would_block) = (done + moved, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock && would_block < MAX_WOULD_BLOCK => {
                would_block += 1;
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn retry(mut call: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[derive(Clone, Copy)]
enum Call {
    ReadAt(u64),
    WriteAt(u64),
    Append,
    Read,
    Write,
    Receive,
    Send,
}

/// The guest's buffers in the form that the kernel takes, and bytes of ours before them.
struct Vectors<'p> {
    vectors: [MaybeUninit<libc::iovec>; MAX_VECTORS],
    count: usize,
    parts: PhantomData<&'p [u8]>,
}

impl<'p> Vectors<'p> {
    /// The first `limit` bytes of `slices`, or fewer if they are in too many places.
    #[inline]
    fn new<'m>(slices: impl Iterator<Item = VolatileSlice<'m>>, limit: usize) -> Self {
        Self::after(&[], slices, limit)
    }

    /// The same after `parts`, which the calls that fill vectors must not get.
    #[inline]
    fn after<'m>(parts: &[&'p [u8]], slices: impl Iterator<Item = VolatileSlice<'m>>, mut limit: usize) -> Self {
        // Not initialised: most calls use a few of them.
        let mut new = Self { vectors: [const { MaybeUninit::uninit() }; MAX_VECTORS], count: 0, parts: PhantomData };
        let parts = parts.iter().map(|part| (part.as_ptr().cast_mut(), part.len()));
        let slices = slices.map(|slice| (slice.ptr_guard_mut().as_ptr(), slice.len()));
        for (vector, (start, length)) in new.vectors.iter_mut().zip(parts.chain(slices)) {
            let length = length.min(limit);
            if length == 0 {
                break;
            }
            limit -= length;
            vector.write(libc::iovec { iov_base: start.cast(), iov_len: length });
            new.count += 1;
        }
        new
    }
}

/// One system call. The vectors must come from slices of guest memory that stays mapped, and for
/// the calls that fill them, from a [`Writer`].
fn transfer(file: BorrowedFd<'_>, call: Call, vectors: &mut Vectors<'_>) -> Result<usize> {
    // At most MAX_VECTORS.
    let (fd, count, vectors) = (file.as_raw_fd(), vectors.count as libc::c_int, vectors.vectors.as_mut_ptr().cast());
    let at = |offset: u64| libc::off_t::try_from(offset).map_err(|_| Error::from(ErrorKind::InvalidInput));
    // SAFETY: msghdr is plain data, for which all zeroes is "no address, no control data, no
    // flags".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors;
    message.msg_iovlen = count as _;
    let (dont_wait, no_signal) = (libc::MSG_DONTWAIT, libc::MSG_NOSIGNAL);
    // SAFETY: the first `count` vectors were written. They describe slices of guest memory, or for calls
    // that read them, parts that are borrowed. The memory stays mapped during the call, because the
    // caller's reader or writer borrows it. No Rust reference points into it, and the guest may change
    // it anyway.
    let moved = unsafe {
        match call {
            Call::ReadAt(offset) => libc::preadv(fd, vectors, count, at(offset)?),
            Call::WriteAt(offset) => libc::pwritev(fd, vectors, count, at(offset)?),
            Call::Append => libc::pwritev2(fd, vectors, count, 0, libc::RWF_APPEND),
            Call::Read => libc::readv(fd, vectors, count),
            Call::Write => libc::writev(fd, vectors, count),
            Call::Receive => libc::recvmsg(fd, &mut message, dont_wait),
            Call::Send => libc::sendmsg(fd, &message, dont_wait | no_signal),
        }
    };
    usize::try_from(moved).map_err(|_| Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_interrupted_transfers_continue_where_they_stopped() {
        let mut results = vec![
            Ok(3),
            Err(ErrorKind::Interrupted.into()),
            Err(ErrorKind::WouldBlock.into()),
            Ok(1),
            Err(ErrorKind::Interrupted.into()),
            Ok(6),
        ];
        let mut offsets = Vec::new();
        let step = |at| {
            offsets.push(at);
            results.remove(0)
        };
        complete(100, 10, ErrorKind::UnexpectedEof, step).unwrap();
        assert_eq!(offsets, [100, 103, 103, 103, 104, 104]);
    }

    #[test]
    fn early_end_and_a_disk_that_always_would_block_are_errors() {
        let end = complete(0, 10, ErrorKind::UnexpectedEof, |_| Ok(0));
        assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let stuck = complete(0, 10, ErrorKind::WriteZero, |_| Err(ErrorKind::WouldBlock.into()));
        assert_eq!(stuck.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
